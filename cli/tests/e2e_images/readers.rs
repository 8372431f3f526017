//! skopeo and containerd.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Running, build, folder, k8sm, outcome, run, upstream};

/// What each program of an image says when it is asked who it is, and what must be in it.
const PROGRAMS: [(&str, &[&str], &str); 17] = [
    ("k8sm-control-plane", &["/k8sm", "--version"], "k8sm "),
    (
        "k8sm-control-plane",
        &["/etcd", "--version"],
        "etcd Version",
    ),
    (
        "k8sm-control-plane",
        &["/etcdctl", "version"],
        "etcdctl version",
    ),
    (
        "k8sm-control-plane",
        &["/etcdutl", "version"],
        "etcdutl version",
    ),
    (
        "k8sm-control-plane",
        &["/kube-apiserver", "--version"],
        "Kubernetes v",
    ),
    (
        "k8sm-control-plane",
        &["/kube-controller-manager", "--version"],
        "Kubernetes v",
    ),
    ("k8sm-control-plane", &["/proxy-server", "--help"], "Usage"),
    ("k8sm-framework", &["/k8sm", "--version"], "k8sm "),
    (
        "k8sm-framework",
        &["/k8sm-framework", "--version"],
        "k8sm-framework ",
    ),
    ("k8sm-proxy", &["/k8sm", "--version"], "k8sm "),
    ("k8sm-proxy", &["/k8sm-proxy", "--version"], "k8sm-proxy "),
    (
        "k8sm-executor",
        &["/k8sm-executor", "--version"],
        "k8sm-executor ",
    ),
    ("coredns", &["/coredns", "-version"], "CoreDNS-"),
    ("konnectivity-agent", &["/proxy-agent", "--help"], "Usage"),
    ("pause", &["/pause", "--version"], "pause "),
    // It asks nobody, and says so.
    (
        "hello",
        &["/hello", "get", "http://127.0.0.1:1/"],
        "hello: ",
    ),
    ("hello", &["/hello", "no such word"], "usage: hello"),
];

#[test]
fn skopeo_and_containerd_read_every_image_and_containerd_runs_it() {
    let dir = folder();
    let images = dir.path().join("images");
    // As quickly as possible; compressed ones go through registries in other tests.
    build(&images, &[], &["--no-compress"]);
    let list = std::fs::read(images.join("images.json")).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let list = list["images"].as_array().unwrap().clone();
    assert_eq!(list.len(), 8, "{list:#?}");

    for image in &list {
        let reference = image["reference"].as_str().unwrap();
        let path = images.join(image["file"].as_str().unwrap());
        let skopeo = |transport: &str| -> (Value, Value) {
            let name = match transport {
                // skopeo parts path and name by a colon, which our file names have too.
                "oci-archive" => linked(&path, dir.path()),
                _ => format!("{}:{reference}", linked(&path, dir.path())),
            };
            let name = format!("{transport}:{name}");
            let shown = run(Path::new("skopeo"), ["inspect", &name]);
            let config = run(Path::new("skopeo"), ["inspect", "--config", &name]);
            (
                serde_json::from_str(&shown).unwrap(),
                serde_json::from_str(&config).unwrap(),
            )
        };
        let (oci, config) = skopeo("oci-archive");
        assert_eq!(oci["Digest"], image["digest"], "{reference}");
        let user = config["config"]["User"].as_str().unwrap();
        let root = image["name"] == "k8sm-executor";
        assert_eq!(user == "0:0", root, "{reference} runs as {user}");
        let label = |name: &str| oci["Labels"][format!("org.opencontainers.image.{name}")].clone();
        for name in ["title", "description", "version", "source", "licenses"] {
            assert!(label(name).is_string(), "{reference} has no {name}");
        }
        let (docker, again) = skopeo("docker-archive");
        assert_eq!(docker["Layers"], oci["Layers"], "{reference}");
        assert_eq!(again, config, "{reference}");
    }

    let mut containerd = Containerd::start(dir.path());
    containerd.until_ready();
    for image in &list {
        let path = images.join(image["file"].as_str().unwrap());
        let reference = image["reference"].as_str().unwrap();
        containerd.ctr(&["images", "import", "--local", &path.display().to_string()]);
        let listed = containerd.ctr(&["images", "list", &format!("name=={reference}")]);
        assert!(
            listed.contains(image["digest"].as_str().unwrap()),
            "{listed}"
        );
        let name = image["name"].as_str().unwrap();
        let mut tried = 0;
        for (number, (_, words, wanted)) in PROGRAMS.iter().enumerate().filter(|(_, p)| p.0 == name)
        {
            let id = format!("run-{number}");
            let mut args = vec!["run", "--rm", "--net-host", reference, &id];
            args.extend(*words);
            let output = outcome(&containerd.ctr, &containerd.args(&args));
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(wanted), "{reference} {words:?}: {said}");
            tried += 1;
        }
        assert!(tried > 0, "{name} was not run");
        // What has a shell could run this.
        let args = ["run", "--rm", reference, "shell", "/bin/sh", "-c", "true"];
        let output = outcome(&containerd.ctr, &containerd.args(&args));
        assert!(!output.status.success(), "{reference} has a shell");
    }
}

/// The same file by a name without a colon.
fn linked(path: &Path, dir: &Path) -> String {
    let name = path
        .file_name()
        .unwrap()
        .to_string_lossy()
        .replace(':', "-");
    let link = dir.join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(path, &link).unwrap();
    }
    link.display().to_string()
}

/// A containerd of the test's own.
struct Containerd {
    process: Running,
    ctr: std::path::PathBuf,
    socket: std::path::PathBuf,
}

impl Containerd {
    fn start(dir: &Path) -> Self {
        let upstream = upstream();
        let socket = dir.join("c.sock");
        let config = dir.join("containerd.toml");
        let text = format!(
            "version = 3\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = [\
             'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', \
             'io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{1}'\n",
            dir.display(),
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(upstream.join("containerd"));
        command
            .arg("--config")
            .arg(&config)
            .env("PATH", format!("{}:{path}", upstream.display()));
        Self {
            process: Running::start(command, dir.join("containerd.log")),
            ctr: upstream.join("ctr"),
            socket,
        }
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let own = ["--address".to_owned(), self.socket.display().to_string()];
        let args = args.iter().map(|a| (*a).to_owned());
        own.into_iter().chain(args).collect()
    }

    fn until_ready(&mut self) {
        let (ctr, args) = (self.ctr.clone(), self.args(&["version"]));
        self.process.until("containerd answers", || {
            outcome(&ctr, &args).status.success().then_some(())
        });
    }

    fn ctr(&self, args: &[&str]) -> String {
        run(&self.ctr, self.args(args))
    }
}

#[test]
fn the_same_programs_give_the_same_bytes() {
    let dir = folder();
    let saved = |name: &str| {
        let path = dir.path().join(name);
        let upstream = format!("--upstream-dir={}", upstream().display());
        let file = path.display().to_string();
        run(&k8sm(), ["images", "save", "pause", &file, &upstream]);
        std::fs::read(path).unwrap()
    };
    assert!(saved("first.tar") == saved("second.tar"));
}
