//! Debian's docker-registry: plain, and with TLS and a password.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::support::{Running, build, curl, folder, free_port, k8sm, outcome, run};

/// A user, and what bcrypt makes of the password: a vector of bcrypt's own tests.
const USER: &str = "tester";
const PASSWORD: &str = "U*U";
const HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// A registry.
pub struct Registry {
    process: Running,
    /// Host and port.
    pub host: String,
    pub authority: Option<PathBuf>,
}

impl Registry {
    /// Starts one, with TLS and a password or without.
    pub fn start(dir: &Path, secure: bool) -> Self {
        let host = format!("127.0.0.1:{}", free_port());
        let name = if secure { "secure" } else { "plain" };
        let home = dir.join(format!("registry-{name}"));
        std::fs::create_dir(&home).unwrap();
        let mut config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": home.join("data")}},
            "http": {"addr": host, "secret": "of this test"},
        });
        let authority = secure.then(|| {
            let [authority, certificate, key] = certificates(&home);
            config["http"]["tls"] = serde_json::json!({"certificate": certificate, "key": key});
            let passwords = home.join("htpasswd");
            std::fs::write(&passwords, format!("{USER}:{HASH}\n")).unwrap();
            config["auth"] = serde_json::json!({"htpasswd": {"realm": "test", "path": passwords}});
            authority
        });
        let path = home.join("config.yml");
        // YAML, which JSON is a part of.
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Running::start(command, home.join("log"));
        let scheme = if secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}/v2/");
        process.until("the registry answers", || {
            (curl(&["-k", &url]).0 > 0).then_some(())
        });
        Self {
            process,
            host,
            authority,
        }
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.process);
    }
}

/// An authority, and a certificate of it for 127.0.0.1 with its key.
fn certificates(dir: &Path) -> [PathBuf; 3] {
    let paths = ["ca.crt", "tls.crt", "tls.key"].map(|name| dir.join(name));
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    std::fs::write(&paths[0], pem).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(&paths[1], certificate.pem()).unwrap();
    std::fs::write(&paths[2], key.serialize_pem()).unwrap();
    paths
}

#[test]
fn images_go_to_a_registry_with_tls_and_a_password_and_come_back() {
    let dir = folder();
    let registry = Registry::start(dir.path(), true);
    let images = dir.path().join("images").display().to_string();
    build(Path::new(&images), &["pause", "hello"], &[]);
    let password = dir.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "not this one").unwrap();
    let to = format!("--to={}/k8sm", registry.host);
    let ca = format!("--ca={}", registry.authority.as_ref().unwrap().display());
    let user = format!("--user={USER}");
    let with = |path: &Path| format!("--password-file={}", path.display());
    let push = |args: &[&str]| {
        let mut all = vec!["images", "push", &images, &to];
        all.extend(args);
        outcome(&k8sm(), &all)
    };
    let refused = |args: &[&str], why: &str| {
        let output = push(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
        assert!(!said.contains("not this one"), "{said}");
    };
    refused(&[&ca], "the registry wants a user and a password");
    refused(
        &[&ca, &user, &with(&wrong)],
        "does not let `tester` do this",
    );
    // An authority that signed nothing here.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = format!("--ca={}", certificates(&other)[0].display());
    refused(&[&other, &user, &with(&password)], "certificate");

    let good = with(&password);
    let first = push(&[&ca, &user, &good]);
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    let second = push(&[&ca, &user, &good]);
    let table = String::from_utf8(second.stdout).unwrap();
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[2], "0", "a blob was sent again: {table}");
    }

    let name = format!("{}/k8sm/hello:v0.1.0", registry.host);
    let layout = dir.path().join("pulled").display().to_string();
    let pulled = run(
        &k8sm(),
        ["images", "pull", &name, &layout, &ca, &user, &good],
    );
    assert!(
        table.contains(pulled.split_whitespace().nth(1).unwrap()),
        "{pulled}"
    );
    // What others read there is what was built.
    let certs = dir.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    std::fs::copy(registry.authority.as_ref().unwrap(), certs.join("ca.crt")).unwrap();
    let creds = format!("{USER}:{PASSWORD}");
    let remote = run(
        Path::new("skopeo"),
        [
            "inspect",
            "--config",
            "--creds",
            &creds,
            "--cert-dir",
            &certs.display().to_string(),
            &format!("docker://{name}"),
        ],
    );
    let local = run(
        Path::new("skopeo"),
        ["inspect", "--config", &format!("oci:{layout}")],
    );
    assert_eq!(remote, local);
    registry.stop();
}

#[test]
fn a_layout_keeps_its_digest_on_a_registry_when_that_is_wanted() {
    let dir = folder();
    let registry = Registry::start(dir.path(), false);
    let images = dir.path().join("images").display().to_string();
    let repository = format!("--repository={}/k8sm", registry.host);
    build(Path::new(&images), &["pause"], &[&repository]);
    // By its own name, in OCI's words.
    run(&k8sm(), ["images", "push", &images, "--format=oci"]);
    let list = std::fs::read(Path::new(&images).join("images.json")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    let digest = list["images"][0]["digest"].as_str().unwrap();
    let name = format!("docker://{}/k8sm/pause@{digest}", registry.host);
    let shown = run(
        Path::new("skopeo"),
        ["inspect", "--tls-verify=false", &name],
    );
    assert!(shown.contains(digest), "{shown}");
    registry.stop();
}
