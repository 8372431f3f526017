//! One etcd and one kube-apiserver, on ports of their own, gone with the test.

use std::fs::File;
use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use framework::kube::client;
use kube::Client;
use packaging::kubeconfig::{Kubeconfig, Source};
use seam::testing::free_port;
use serde_json::Value;
use tempfile::TempDir;

use crate::pki::{Authority, Pair};

/// How long anything may take. The machine may be busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(90);
const FRAMEWORK_NAME: &str = "kubernetes";

/// A process that ends with its handle.
struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    fn start(name: &'static str, binaries: &Path, directory: &Path, args: &[String]) -> Self {
        let log = File::create(directory.join(format!("{name}.log"))).unwrap();
        let program = binaries.join(name);
        let spawn = |command: &mut Command| {
            command
                .args(args)
                .current_dir(directory)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log.try_clone().unwrap())
                .spawn()
        };
        // It must also end when this process is killed and drops nothing.
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL", "--"]).arg(&program);
        let child = match spawn(&mut bound) {
            Err(error) if error.kind() == ErrorKind::NotFound => spawn(&mut Command::new(&program)),
            other => other,
        };
        let child = child.unwrap_or_else(|e| panic!("start {name}: {e}"));
        Self { name, child }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cluster.
pub struct Cluster {
    // In this order they end.
    processes: Vec<Process>,
    authority: Authority,
    server: String,
    directory: TempDir,
    binaries: PathBuf,
    /// May do everything.
    pub admin: Client,
    /// The framework's identity, with the roles of `packaging::rbac`.
    pub framework: Client,
}

/// A kubeconfig and the files that it names.
pub struct UserFiles {
    pub kubeconfig: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A cluster, or `None` (and a word why) where there are no upstream binaries.
pub async fn start() -> Option<Cluster> {
    let Some(binaries) = std::env::var_os("K8SM_UPSTREAM_BIN").map(PathBuf::from) else {
        eprintln!(
            "skipped: K8SM_UPSTREAM_BIN does not name a directory with etcd and kube-apiserver"
        );
        return None;
    };
    for attempt in 1.. {
        match try_start(&binaries).await {
            Ok(cluster) => return Some(cluster),
            // Most likely somebody took one of the ports in between.
            Err(why) if attempt < 3 => eprintln!("starting again: {why}"),
            Err(why) => panic!("{why}"),
        }
    }
    None
}

async fn try_start(binaries: &Path) -> Result<Cluster, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let authority = Authority::new(path);
    authority.issue_files("api", "kube-apiserver");
    let (sa_key, sa_public) = service_account_keys();
    std::fs::write(path.join("sa.key"), sa_key).unwrap();
    std::fs::write(path.join("sa.pub"), sa_public).unwrap();

    let [etcd_port, peer_port, api_port] = [(); 3].map(|()| free_port());
    let (etcd_url, peer_url) = (loopback("http", etcd_port), loopback("http", peer_port));
    let etcd = Process::start(
        "etcd",
        binaries,
        path,
        &args(&[
            ("data-dir", "etcd"),
            ("listen-client-urls", &etcd_url),
            ("advertise-client-urls", &etcd_url),
            ("listen-peer-urls", &peer_url),
            ("initial-advertise-peer-urls", &peer_url),
            ("initial-cluster", &format!("default={peer_url}")),
            ("unsafe-no-fsync", "true"),
            ("log-level", "warn"),
        ]),
    );
    let api = Process::start(
        "kube-apiserver",
        binaries,
        path,
        &args(&[
            ("etcd-servers", &etcd_url),
            ("bind-address", "127.0.0.1"),
            ("advertise-address", "127.0.0.1"),
            ("secure-port", &api_port.to_string()),
            ("tls-cert-file", "api.crt"),
            ("tls-private-key-file", "api.key"),
            ("client-ca-file", "ca.crt"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-cluster-ip-range", "10.96.0.0/16"),
            ("authorization-mode", "Node,RBAC"),
            ("enable-bootstrap-token-auth", "true"),
            ("enable-admission-plugins", "NodeRestriction"),
            // There is no controller that makes service accounts.
            ("disable-admission-plugins", "ServiceAccount"),
            ("endpoint-reconciler-type", "none"),
        ]),
    );
    let server = loopback("https", api_port);
    let admin = connect(
        path,
        &server,
        &authority,
        "admin",
        &authority.issue("admin", Some("system:masters")),
    )
    .await;
    let user = seam::names::FRAMEWORK_USER;
    let framework = connect(
        path,
        &server,
        &authority,
        "framework",
        &authority.issue(user, None),
    )
    .await;
    let mut cluster = Cluster {
        processes: vec![api, etcd],
        authority,
        server,
        directory,
        binaries: binaries.to_owned(),
        admin,
        framework,
    };
    cluster.become_ready().await?;
    cluster.grant().await;
    Ok(cluster)
}

impl Cluster {
    async fn become_ready(&mut self) -> Result<(), String> {
        let end = Instant::now() + DEADLINE;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            if self.admin.request_text(request).await.is_ok() {
                return Ok(());
            }
            if let Some(ended) = self
                .processes
                .iter_mut()
                .find_map(|p| p.has_ended().then_some(p.name))
            {
                let log = self.directory.path().join(format!("{ended}.log"));
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(5).collect();
                return Err(format!("{ended} ended: {}", tail.join(" | ")));
            }
            if Instant::now() > end {
                return Err("kube-apiserver did not become ready".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Applies the roles, and waits until the API server's authorizer has seen them.
    async fn grant(&self) {
        for object in packaging::rbac::manifests(FRAMEWORK_NAME) {
            self.create(&object).await;
        }
        eventually("the roles are in force", async || {
            self.may("kube-system", "", "secrets", "", "create")
                .await
                .then_some(())
        })
        .await;
    }

    /// Starts the controller that signs certificates.
    pub fn start_signer(&mut self) {
        let pair = self.authority.issue("signer", Some("system:masters"));
        let kubeconfig = write_kubeconfig(self.directory.path(), &self.server, "signer", &pair);
        let kubeconfig = kubeconfig.to_str().unwrap();
        let arguments = args(&[
            ("kubeconfig", kubeconfig),
            (
                "controllers",
                "certificatesigningrequest-signing-controller",
            ),
            ("cluster-signing-cert-file", "ca.crt"),
            ("cluster-signing-key-file", "ca.key"),
            ("leader-elect", "false"),
            ("secure-port", "0"),
        ]);
        let path = self.directory.path();
        let process = Process::start("kube-controller-manager", &self.binaries, path, &arguments);
        self.processes.insert(0, process);
    }

    /// A client with a certificate.
    pub async fn client_with(&self, name: &str, pair: &Pair) -> Client {
        connect(
            self.directory.path(),
            &self.server,
            &self.authority,
            name,
            pair,
        )
        .await
    }

    /// A certificate for a user.
    pub fn issue(&self, user: &str) -> Pair {
        self.authority.issue(user, None)
    }

    /// A kubeconfig that names a user's certificate and key as files.
    pub fn user_files(&self, name: &str, user: &str) -> UserFiles {
        self.authority.issue_files(name, user);
        let path = self.directory.path();
        let files = UserFiles {
            kubeconfig: path.join(format!("{name}.kubeconfig")),
            certificate: path.join(format!("{name}.crt")),
            key: path.join(format!("{name}.key")),
        };
        let kubeconfig = Kubeconfig {
            cluster: "test".to_owned(),
            server: self.server.clone(),
            server_name: None,
            authority: Source::File(path.join("ca.crt")),
            user: name.to_owned(),
            certificate: Source::File(files.certificate.clone()),
            key: Source::File(files.key.clone()),
        };
        std::fs::write(&files.kubeconfig, kubeconfig.render()).unwrap();
        files
    }

    /// A client with a bearer token.
    pub fn client_with_token(&self, token: &str) -> Client {
        let mut config = kube::Config::new(self.server.parse().unwrap());
        let authority = pem::parse(self.authority.certificate()).unwrap();
        config.root_cert = Some(vec![authority.into_contents()]);
        config.auth_info.token = Some(token.to_owned().into());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    /// Creates any object as the administrator.
    pub async fn create(&self, object: &Value) -> Value {
        let text = |member: &str| object[member].as_str().unwrap();
        let kind = text("kind").to_lowercase();
        let plural = match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{kind}s"),
        };
        let root = match text("apiVersion") {
            "v1" => "/api/v1".to_owned(),
            group => format!("/apis/{group}"),
        };
        let namespace = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("/namespaces/{namespace}"),
            None => String::new(),
        };
        let url = format!("{root}{namespace}/{plural}");
        let body = serde_json::to_vec(object).unwrap();
        let request = http::Request::post(&url)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let created = self.admin.request(request).await;
        created.unwrap_or_else(|e| panic!("create {}: {e}", object["metadata"]["name"]))
    }

    /// Whether the framework may do something, as the API server's authorizer says.
    pub async fn may(
        &self,
        namespace: &str,
        group: &str,
        resource: &str,
        name: &str,
        verb: &str,
    ) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "namespace": namespace, "group": group, "resource": resource,
                "subresource": subresource, "name": name, "verb": verb,
            }},
        });
        let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&review).unwrap())
            .unwrap();
        let answer: Value = self.framework.request(request).await.unwrap();
        answer["status"]["allowed"] == true
    }
}

/// Looks until there is a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn args(list: &[(&str, &str)]) -> Vec<String> {
    list.iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

fn loopback(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

fn service_account_keys() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    (key.serialize_pem(), key.public_key_pem())
}

fn write_kubeconfig(directory: &Path, server: &str, name: &str, pair: &Pair) -> PathBuf {
    let kubeconfig = Kubeconfig {
        cluster: "test".to_owned(),
        server: server.to_owned(),
        server_name: None,
        authority: Source::File(directory.join("ca.crt")),
        user: name.to_owned(),
        certificate: Source::Inline(pair.certificate.clone().into_bytes()),
        key: Source::Inline(pair.key.clone().into_bytes()),
    };
    let path = directory.join(format!("{name}.kubeconfig"));
    std::fs::write(&path, kubeconfig.render()).unwrap();
    path
}

async fn connect(directory: &Path, server: &str, _: &Authority, name: &str, pair: &Pair) -> Client {
    let path = write_kubeconfig(directory, server, name, pair);
    client::from_kubeconfig(&path, None).await.unwrap()
}
