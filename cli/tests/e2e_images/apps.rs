//! Apps of the control plane from their images: rendered as `k8sm install` renders them, posted to
//! devcluster's Marathon, run by its Mesos agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use packaging::marathon::{AgentHost, Artifact, EtcdStorage, Facts, PkiDelivery, render};
use packaging::options::Options;
use packaging::pki::{Component, Pki, Plan};
use serde_json::{Value, json};

use crate::registries::Registry;
use crate::support::{Running, build, curl, folder, free_port, k8sm, run};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A Mesos and a Marathon.
struct Site {
    marathon: Running,
    _agent: Running,
    _master: Running,
    url: String,
    agent: String,
    sandboxes: PathBuf,
}

impl Site {
    fn start(dir: &Path, agent_flags: &[String]) -> Self {
        let address = || format!("{HERE}:{}", free_port());
        let (master, agent, marathon) = (address(), address(), address());
        let part = |name: &str, args: &[String]| {
            let mut command = Command::new(k8sm());
            command.arg("dev").args(args);
            let work = format!("--work-dir={}", dir.join(name).display());
            command.arg(work);
            Running::start(command, dir.join(format!("{name}.log")))
        };
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut master_process = part(
            "master",
            &words(&["mesos", "master", &format!("--listen={master}")]),
        );
        let answers = |url: String| move || (curl(&[&url]).0 == 200).then_some(());
        master_process.until(
            "the master answers",
            answers(format!("http://{master}/health")),
        );
        let mut args = words(&[
            "mesos",
            "agent",
            &format!("--master={master}"),
            &format!("--listen={agent}"),
            &format!("--hostname={HERE}"),
            &format!("--cgroups-root=k8sm-img-{}", std::process::id()),
            "--resources=cpus:4;mem:8192;disk:20000;ports:[1024-65000]",
        ]);
        args.extend_from_slice(agent_flags);
        let mut agent_process = part("agent", &args);
        agent_process.until(
            "the agent answers",
            answers(format!("http://{agent}/health")),
        );
        let mut marathon_process = part(
            "marathon",
            &words(&[
                "marathon",
                &format!("--mesos={master}"),
                &format!("--listen={marathon}"),
            ]),
        );
        let url = format!("http://{marathon}");
        marathon_process.until("Marathon answers", answers(format!("{url}/v2/info")));
        Self {
            marathon: marathon_process,
            _agent: agent_process,
            _master: master_process,
            url,
            agent,
            sandboxes: dir.join("agent/work/slaves"),
        }
    }

    fn post(&self, app: &Value) {
        let (status, body) = curl(&[
            "-X",
            "POST",
            "-H",
            "Content-Type: application/json",
            "-d",
            &app.to_string(),
            &format!("{}/v2/apps", self.url),
        ]);
        assert_eq!(status, 201, "{body}");
    }

    fn app(&self, id: &str) -> Value {
        let url = format!("{}/v2/apps{id}?embed=app.lastTaskFailure", self.url);
        let (_, body) = curl(&[&url]);
        serde_json::from_str::<Value>(&body).unwrap_or_default()["app"].take()
    }

    fn until_healthy(&mut self, id: &str) {
        let (url, sandboxes) = (self.url.clone(), self.sandboxes.clone());
        let task = id.trim_start_matches('/').replace('/', "_");
        self.marathon.until(&format!("{id} is healthy"), || {
            let (_, body) = curl(&[&format!("{url}/v2/apps{id}?embed=app.lastTaskFailure")]);
            let app: Value = serde_json::from_str(&body).ok()?;
            let failure = &app["app"]["lastTaskFailure"];
            if !failure.is_null() {
                let sandbox = sandbox_of(&sandboxes, &task).unwrap_or_default();
                let said = std::fs::read_to_string(sandbox.join("stderr")).unwrap_or_default();
                panic!("{failure:#}\n{said}");
            }
            (app["app"]["tasksHealthy"] == 1).then_some(())
        });
    }

    /// Deletes an app and waits until no container is left.
    fn delete(&mut self, id: &str) {
        let url = format!("{}/v2/apps{id}?force=true", self.url);
        assert_eq!(curl(&["-X", "DELETE", &url]).0, 200);
        let containers = format!("http://{}/containers", self.agent);
        self.marathon.until("the containers go", || {
            (curl(&[&containers]).1 == "[]").then_some(())
        });
    }
}

/// The app of etcd's one member.
fn etcd(dir: &Path, runtime: &str, repository: &str) -> Value {
    let pki = Pki::new(dir.join("pki"));
    let here = IpAddr::V4(HERE);
    let plan = Plan {
        api_addresses: vec![here],
        api_names: Vec::new(),
        api_service_address: [10, 96, 0, 1].into(),
        dns_domain: "cluster.local".to_owned(),
        etcd_addresses: vec![here],
        konnectivity_addresses: vec![here],
    };
    pki.ensure(&plan.certificates(), SystemTime::now().into())
        .unwrap();
    let component = Component::Etcd(0);
    let bundles = Component::all(1)
        .into_iter()
        .map(|c| match c == component {
            true => (c, pki.bundle(c).unwrap().to_json()),
            // Apps that are not posted here.
            false => (c, "{}".to_owned()),
        })
        .collect::<BTreeMap<_, _>>();
    let mut options = Options::default();
    // The images' own user: the sandbox is the app's.
    options.service.user = "nobody".to_owned();
    options.etcd.count = 1;
    options.apiserver.instances = 1;
    options.etcd.host_path = dir.join("etcd").display().to_string();
    options.etcd.client_port = free_port();
    options.etcd.peer_port = free_port();
    options.etcd.metrics_port = free_port();
    options.images.runtime = runtime.to_owned();
    options.images.repository = repository.to_owned();
    let host = AgentHost {
        hostname: HERE.to_string(),
        address: HERE,
    };
    let artifact = Artifact {
        uri: "http://127.0.0.1/none".to_owned(),
        sha256: "0".repeat(64),
        size: 1,
    };
    let facts: Facts = serde_json::from_value(json!({
        "install_id": "20260101-test", "version": env!("CARGO_PKG_VERSION"),
        "kubernetes_version": "v1.37.1", "marathon_version": [1, 11],
        "mesos_master": "127.0.0.1:5050", "etcd_hosts": [host], "etcd_storage": EtcdStorage::HostPath,
        "api_hosts": [host], "pki": PkiDelivery::Env { bundles },
        "artifacts": {"k8sm-executor": artifact, "payload": artifact, "payload.tar": artifact},
    }))
    .unwrap();
    // What has a directory of the agent's needs it to be there, and its user's.
    let data = dir.join("etcd/kubernetes/etcd-0");
    std::fs::create_dir_all(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let apps = render(&options, &facts).unwrap();
    let app = apps
        .into_iter()
        .find(|a| a.id.to_string().ends_with("/etcd-0"));
    serde_json::to_value(app.unwrap()).unwrap()
}

/// The processes of a control plane component, as its agent sees them.
fn root_of(program: &str) -> Option<PathBuf> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes
        .map(|p| p.path())
        .find(|p| {
            let name = std::fs::read_to_string(p.join("comm")).unwrap_or_default();
            let root = p.join("root").join("k8sm").is_file();
            name.trim() == program && root
        })
        .map(|p| p.join("root"))
}

#[test]
fn etcd_runs_from_its_image_by_both_containerizers() {
    let dir = folder();
    let images = dir.path().join("images");
    let repository = "registry.example.org/k8sm";
    let flag = format!("--repository={repository}");
    build(&images, &["k8sm-control-plane"], &[&flag, "--no-compress"]);
    let flags = [
        format!("--docker-registry={}", images.display()),
        "--containerizers=mesos,docker".to_owned(),
    ];
    let mut site = Site::start(dir.path(), &flags);
    for runtime in ["mesos_image", "docker"] {
        let work = dir.path().join(runtime);
        std::fs::create_dir(&work).unwrap();
        let app = etcd(&work, runtime, repository);
        let id = app["id"].as_str().unwrap().to_owned();
        site.post(&app);
        site.until_healthy(&id);
        let root = root_of("etcd").expect("etcd runs in an image");
        assert!(!root.join("usr").exists(), "it sees the agent's files");
        let data = work.join("etcd/kubernetes/etcd-0/member");
        assert!(data.is_dir(), "its data are on the agent");
        site.delete(&id);
    }
}

#[test]
fn an_agent_pulls_an_image_from_a_registry_and_says_why_it_cannot() {
    let dir = folder();
    let registry = Registry::start(dir.path(), false);
    let images = dir.path().join("images").display().to_string();
    build(Path::new(&images), &["hello"], &[]);
    run(
        &k8sm(),
        [
            "images",
            "push",
            &images,
            &format!("--to={}/k8sm", registry.host),
        ],
    );
    let flag = format!("--docker-registry=http://{}", registry.host);
    let mut site = Site::start(dir.path(), &[flag]);
    let app = |id: &str, image: &str| {
        json!({
            "id": id, "instances": 1, "cpus": 0.1, "mem": 64, "user": "nobody",
            "args": ["get", "http://127.0.0.1:1/"], "backoffSeconds": 1,
            "container": {"type": "MESOS", "docker": {"image": image}},
        })
    };
    // It is run, asks nobody, and fails: in the words of its own.
    site.post(&app("/hello", "k8sm/hello:v0.1.0"));
    let failure = |site: &mut Site, id: &str| {
        let url = site.url.clone();
        let id = id.to_owned();
        site.marathon.until("a failure", || {
            let (_, body) = curl(&[&format!("{url}/v2/apps{id}?embed=app.lastTaskFailure")]);
            let app: Value = serde_json::from_str(&body).ok()?;
            let failure = app["app"]["lastTaskFailure"]["message"].as_str()?;
            Some(failure.to_owned())
        })
    };
    let words = failure(&mut site, "/hello");
    assert_eq!(words, "Command exited with status 1");
    site.post(&app("/gone", "k8sm/gone:1"));
    let words = failure(&mut site, "/gone");
    assert!(
        words.contains("Failed to pull image 'k8sm/gone:1'"),
        "{words}"
    );
    assert!(words.contains("the registry has no such image"), "{words}");
    assert!(site.app("/gone")["tasksRunning"] == 0);
    for id in ["/hello", "/gone"] {
        site.delete(id);
    }
    registry.stop();
}

/// What the latest task of an app printed to standard error, and its sandbox.
fn sandbox_of(dir: &Path, app: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let mut dirs: Vec<_> = entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect();
    // The latest first.
    dirs.sort_by_key(|d| std::cmp::Reverse(std::fs::metadata(d).and_then(|m| m.modified()).ok()));
    dirs.into_iter().find_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let latest = path.join("runs/latest");
        match name.starts_with(app) && latest.is_dir() {
            true => Some(latest),
            false => sandbox_of(&path, app),
        }
    })
}

#[test]
fn the_executor_leaves_its_image_for_the_agent_s_file_system_or_says_why_not() {
    let dir = folder();
    let images = dir.path().join("images");
    build(&images, &["k8sm-executor"], &["--no-compress"]);
    let flag = format!("--docker-registry={}", images.display());
    let mut site = Site::start(dir.path(), &[flag]);
    let image = format!(
        "k8s.mesosphere.io/k8sm-executor:{}",
        env!("CARGO_PKG_VERSION")
    );
    let app = |id: &str, user: &str| {
        json!({
            "id": id, "instances": 1, "cpus": 0.1, "mem": 64, "user": user,
            "args": ["--data-dir=/nowhere"],
            // It is no task's executor: this is what it misses, wherever it runs.
            "env": {"MESOS_AGENT_ENDPOINT": "", "MESOS_FRAMEWORK_ID": ""},
            "container": {"type": "MESOS", "docker": {"image": image}},
        })
    };
    let sandboxes = site.sandboxes.clone();
    let said = |site: &mut Site, app: &str| {
        let found = site.marathon.until("its last words", || {
            let sandbox = sandbox_of(&sandboxes, app)?;
            let text = std::fs::read_to_string(sandbox.join("stderr")).ok()?;
            text.contains("k8sm-executor: ").then_some((sandbox, text))
        });
        site.delete(&format!("/{app}"));
        found
    };
    site.post(&app("/left", "root"));
    let (sandbox, text) = said(&mut site, "left");
    assert!(sandbox.join("k8sm-executor").is_file(), "{text}");
    assert!(text.contains("MESOS_"), "it misses its agent: {text}");
    assert!(!text.contains("leave the image"), "{text}");
    site.post(&app("/stayed", "nobody"));
    let (sandbox, text) = said(&mut site, "stayed");
    assert!(!sandbox.join("k8sm-executor").exists());
    assert!(text.contains("it must be root there"), "{text}");
}
