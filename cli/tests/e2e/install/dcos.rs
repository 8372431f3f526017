//! The package of DC/OS in strict mode: added, installed, hurt, changed and removed by the calls of
//! the `dcos` command, through devcluster's Cosmos, with tokens that end many times meanwhile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devcluster::jwt;
use serde_json::{Value, json};

use super::installed::{LITTLE, PORTS, finished, free_ports, kubectl_with, ready_container};
use super::nothing_is_left;
use super::site::Site;
use super::strict;
use crate::support::{Cluster, Running};

/// Seconds. From a call to everything that follows from it.
pub const PATIENCE: u64 = 240;

/// DC/OS before a site, as an operator sees it, and a server of the package.
pub struct Dcos<'a> {
    cluster: &'a Cluster,
    url: String,
    token: String,
    repository: String,
    _package: Running,
}

impl<'a> Dcos<'a> {
    pub fn start(cluster: &'a Cluster, site: &Site) -> Self {
        let artifacts = cluster.dir().join("artifacts").display().to_string();
        let build = ["artifacts", "build", &artifacts];
        finished(cluster.command(&build), &build);
        let listen = format!("{}:{}", site.address, free_ports(1)[0]);
        let start = |name: &str, args: &[&str]| {
            let log = std::fs::File::create(cluster.dir().join(format!("{name}.log"))).unwrap();
            let mut command = cluster.command(args);
            Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
        };
        let package = start(
            "package",
            &[
                "package",
                "serve",
                &format!("--artifacts={artifacts}"),
                &format!("--listen={listen}"),
            ],
        );
        let here = Self {
            cluster,
            url: site.dcos.clone(),
            token: site.strict.as_ref().expect("strict mode").operator(),
            repository: format!("http://{listen}/repo"),
            _package: package,
        };
        cluster.wait("DC/OS answers", 60, || {
            here.call("package", "repository/list", &json!({})).is_ok()
        });
        here
    }

    /// A call of the `dcos` command.
    fn call(&self, family: &str, name: &str, body: &Value) -> Result<Value, String> {
        let kind = |what: &str| {
            let name = name.replace('/', ".");
            format!("application/vnd.dcos.{family}.{name}-{what}+json;charset=utf-8;version=v1")
        };
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "30", "-w", "\n%{http_code}"])
            .arg(format!("-HAuthorization: token={}", self.token))
            .arg(format!("-HContent-Type: {}", kind("request")))
            .arg(format!("-HAccept: {}", kind("response")))
            .arg(format!("-d{body}"))
            .arg(format!("{}/{family}/{name}", self.url))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.rsplit_once('\n') {
            Some((body, "200")) => Ok(serde_json::from_str(body).unwrap_or_default()),
            _ => Err(text),
        }
    }

    pub fn package(&self, name: &str, body: &Value) -> Value {
        self.call("package", name, body)
            .unwrap_or_else(|error| panic!("package/{name}: {error}"))
    }

    /// `dcos kubernetes ...`.
    pub fn plugin(&self, args: &[&str]) -> Result<String, String> {
        let mut all = vec!["kubernetes"];
        all.extend(args);
        let output = self
            .cluster
            .command(&all)
            .env("DCOS_URL", &self.url)
            .env("DCOS_ACS_TOKEN", &self.token)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Waits until the framework itself says that everything runs.
    pub fn runs(&self, what: &str) {
        self.cluster
            .wait(what, PATIENCE, || self.says_that_it_runs());
    }

    /// Whether it says so now.
    pub fn says_that_it_runs(&self) -> bool {
        let said = self.plugin(&["status"]).unwrap_or_default();
        said.starts_with("everything runs") && said.contains("nodes")
    }

    /// Makes the package known.
    pub fn add_repository(&self) {
        let repository = json!({"name": "k8sm", "uri": self.repository, "index": 0});
        self.package("repository/add", &repository);
    }

    /// `dcos kubernetes kubeconfig`; returns the file.
    pub fn kubeconfig(&self) -> PathBuf {
        let file = self.cluster.dir().join("kubeconfig-of-dcos");
        self.plugin(&["kubeconfig", "--path", file.to_str().unwrap()])
            .unwrap();
        file
    }

    /// Runs the pod that is to keep its container; returns that, once it is ready.
    pub fn run_pod(&self, kubeconfig: &Path) -> Option<(String, u64)> {
        let image = format!("--image={}", cli::cluster::prepare::PAUSE_IMAGE);
        // The controller manager may not have made the namespace's account yet.
        self.cluster.wait("the API takes a pod", 60, || {
            kubectl_with(kubeconfig, &["run", "stays", &image]).is_ok()
        });
        let found = || pod_that_stays(kubeconfig);
        self.cluster
            .wait("the pod is ready", PATIENCE, || found().is_some());
        found()
    }

    /// `dcos kubernetes update`.
    pub fn update(&self, wanted: &Value) {
        let change = self.cluster.dir().join("change.json");
        std::fs::write(&change, wanted.to_string()).unwrap();
        self.plugin(&["update", "--options", change.to_str().unwrap()])
            .unwrap();
    }
}

/// The container of [`Dcos::run_pod`]'s pod, and its restarts.
pub fn pod_that_stays(kubeconfig: &Path) -> Option<(String, u64)> {
    let pod = kubectl_with(kubeconfig, &["get", "pod", "stays", "-o", "json"]);
    ready_container(&pod.ok()?)
}

/// DC/OS without the package, and the options that this machine wants.
pub struct Begun {
    pub site: Site,
    pub options: Value,
}

impl Begun {
    pub fn new(cluster: &Cluster) -> Self {
        let ports = free_ports(PORTS.len());
        let images = cluster.dir().join("images");
        let build = [
            "images",
            "build",
            images.to_str().unwrap(),
            "k8sm-executor",
            "--no-compress",
        ];
        finished(cluster.command(&build), &build);
        let site = Site::start_offering(cluster, &ports, &images);
        let options = nested(&options(cluster, &site, &ports));
        Self { site, options }
    }
}

fn options(cluster: &Cluster, site: &Site, ports: &[u16]) -> Vec<(String, Value)> {
    let mut options: Vec<(String, Value)> = PORTS
        .iter()
        .zip(ports)
        .map(|(name, port)| ((*name).to_owned(), json!(port)))
        .collect();
    options.extend(LITTLE.map(|option| (option.to_owned(), json!(0.1))));
    let dir = |name: &str| json!(cluster.dir().join(name));
    options.extend([
        ("etcd.count".to_owned(), json!(1)),
        ("apiserver.instances".to_owned(), json!(1)),
        ("apiserver.shutdown_delay".to_owned(), json!(2)),
        ("etcd.host_path".to_owned(), dir("etcd")),
        ("nodes.data_dir".to_owned(), dir("node")),
        ("nodes.run_dir".to_owned(), dir("run")),
        ("nodes.min".to_owned(), json!(1)),
        ("marathon.backoff".to_owned(), json!(1)),
        ("marathon.url".to_owned(), json!(site.marathon)),
        ("mesos.master".to_owned(), json!(site.master)),
        ("service.principal".to_owned(), json!("kubernetes")),
        ("service.secret_name".to_owned(), json!(strict::SECRET)),
        ("images.executor".to_owned(), json!("image")),
        ("images.repository".to_owned(), json!("k8s.mesosphere.io")),
    ]);
    options
}

/// Where the secret store and the agent have the secrets.
pub fn secrets(cluster: &Cluster) -> PathBuf {
    cluster.dir().join("secrets")
}

/// Paths of the secrets that there are.
pub fn stored(dir: &Path) -> Vec<String> {
    let output = Command::new("find")
        .args(["-type", "f", "-printf", "%P\\n"])
        .current_dir(dir)
        .output()
        .unwrap();
    let mut all: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    all.sort();
    all
}

/// Whoever reads Marathon's apps and Mesos' state learns no key.
pub fn no_key_is_shown(cluster: &Cluster, site: &Site) {
    let kept = site.get("/v2/apps/kubernetes-cp/state");
    let packed = kept["app"]["env"]["K8SM_STATE"].as_str().unwrap();
    std::fs::write(cluster.dir().join("state.packed"), packed).unwrap();
    let unpacked = Command::new("sh")
        .args(["-c", "base64 -d state.packed | gunzip"])
        .current_dir(cluster.dir())
        .output()
        .unwrap();
    let unpacked = String::from_utf8(unpacked.stdout).unwrap();
    assert!(unpacked.contains("etcd_hosts"), "the record: {unpacked}");
    for (what, text) in [
        ("apps", site.get("/v2/apps").to_string()),
        ("the state app", unpacked),
        ("Mesos' state", site.state().to_string()),
        ("Mesos' executors", site.executors()),
    ] {
        for secret in ["PRIVATE KEY", "client-key-data", "secretbox"] {
            assert!(!text.contains(secret), "{what} show {secret}");
        }
    }
    let stored = secrets(cluster).join("kubernetes-cp/pki-apiserver");
    let keys = std::fs::read_to_string(stored).unwrap();
    assert!(keys.contains("PRIVATE KEY") && keys.contains("secretbox"));
}

/// A change has left one, of the cluster as it was, which nobody else can read.
fn one_snapshot(dir: &Path) {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir), 0o700);
    let entries = std::fs::read_dir(dir).unwrap();
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else {
        panic!("{files:?}");
    };
    assert_eq!(mode(file), 0o600, "{}", file.display());
    let content = std::fs::read(file).unwrap();
    let key = b"/registry/pods/default/stays";
    assert!(content.windows(key.len()).any(|window| window == key));
    let programs = PathBuf::from(std::env::var_os("K8SM_UPSTREAM_BIN").unwrap_or_default());
    let status = Command::new(programs.join("etcdutl"))
        .args(["snapshot", "status"])
        .arg(file)
        .status();
    assert!(status.unwrap().success(), "etcdutl reads it");
}

/// `a.b=c` as `{"a": {"b": "c"}}`.
fn nested(options: &[(String, Value)]) -> Value {
    let mut all = json!({});
    for (name, value) in options {
        let place = name.split('.').fold(&mut all, |at, part| {
            if at.is_null() {
                *at = json!({});
            }
            &mut at[part]
        });
        *place = value.clone();
    }
    all
}

#[test]
fn the_package_is_installed_hurt_changed_and_removed_through_cosmos() {
    let cluster = Cluster::prepare(&[]);
    let Begun { mut site, options } = Begun::new(&cluster);
    let strict = site.strict.as_ref().expect("strict mode");
    strict.shut(&site.master, &site.marathon);
    let dcos = Dcos::start(&cluster, &site);

    dcos.add_repository();
    let found = dcos.package("search", &json!({"query": "kube"}));
    assert_eq!(found["packages"][0]["name"], "kubernetes", "{found}");
    let wrong = json!({"packageName": "kubernetes", "options": {"etcd": {"count": 2}}});
    let refused = dcos.call("package", "install", &wrong).unwrap_err();
    assert!(refused.contains("count"), "{refused}");
    assert!(site.apps().is_empty(), "nothing is half installed");
    let install = json!({"packageName": "kubernetes", "options": options});
    dcos.package("install", &install);
    dcos.runs("the package's cluster runs");

    assert!(
        dcos.plugin(&["status"])
            .unwrap()
            .contains("in DC/OS' secret store")
    );
    no_key_is_shown(&cluster, &site);
    let keys = stored(&secrets(&cluster));
    assert_eq!(
        keys.join(" "),
        "kubernetes-cp/pki-apiserver kubernetes-cp/pki-controller-manager \
         kubernetes-cp/pki-etcd-0 kubernetes-cp/pki-proxy \
         kubernetes/k8sm-kubeconfig kubernetes/k8sm-state kubernetes/sa"
    );

    let file = dcos.kubeconfig();
    let kubectl = |args: &[&str]| kubectl_with(&file, args);
    let container = || pod_that_stays(&file);
    let pod = dcos.run_pod(&file);

    let executors = site.executors();
    assert!(
        executors.contains("k8s.mesosphere.io/k8sm-executor:"),
        "the node's executor: {executors}"
    );

    // The one app is killed: it finds its siblings as they are and takes the framework up again.
    let others = || {
        let mut apps = site.apps();
        apps.retain(|app, _| !app.ends_with("/state"));
        apps
    };
    let apps = others();
    let task = site.kill("/kubernetes", "k8sm-framework");
    cluster.wait("Marathon has started the app again", PATIENCE, || {
        let tasks = site.tasks("/kubernetes");
        !tasks.is_empty() && !tasks.contains(&task)
    });
    dcos.runs("the framework runs again");
    assert_eq!(others(), apps, "no app was changed");
    assert_eq!(container(), pod);

    // The master comes back without its streams. After its first token has ended, the very same task
    // subscribes anew.
    let task = site.tasks("/kubernetes");
    let token = || {
        let (_, sandbox) = site.processes(&task[0], "k8sm").pop()?;
        std::fs::read_to_string(sandbox.join("installation/account-token")).ok()
    };
    let first = token().expect("a token");
    let ended = || strict::key(&cluster).claims(&first, jwt::now()).is_err();
    cluster.wait("the first token has ended", 60, ended);
    let now = token().expect("a token");
    assert!(now != first, "it was renewed");
    site.restart_master(&cluster);
    cluster.wait("both frameworks are back", PATIENCE, || {
        let mut frameworks = site.frameworks();
        frameworks.sort();
        frameworks == ["kubernetes", "marathon"]
    });
    dcos.runs("the framework runs with the new master");
    assert_eq!(site.tasks("/kubernetes"), task);
    assert_eq!(container(), pod);

    let snapshots = cluster.dir().join("etcd/kubernetes/snapshots");
    assert!(!snapshots.exists(), "nothing was changed before");
    let wanted = json!({
        "controller_manager": {"mem": 600}, "apiserver": {"names": ["api.example.org"]},
    });
    let serves = || std::fs::read_to_string(secrets(&cluster).join("kubernetes-cp/pki-apiserver"));
    let before = serves().unwrap();
    dcos.update(&wanted);
    cluster.wait("the controller manager has its memory", PATIENCE, || {
        let app = site.get("/v2/apps/kubernetes-cp/controller-manager");
        app["app"]["mem"] == 600.0 && app["app"]["tasksHealthy"] == 1
    });
    dcos.runs("the changed cluster runs");
    assert_eq!(container(), pod);
    one_snapshot(&snapshots);
    assert_ne!(serves().unwrap(), before, "a certificate for the new name");
    let other = "--tls-server-name=api.example.org";
    let named = kubectl(&["get", "--raw=/readyz", other]);
    assert!(named.is_ok(), "the API server has got it: {named:?}");
    no_key_is_shown(&cluster, &site);

    dcos.package("uninstall", &json!({"packageName": "kubernetes"}));
    // DC/OS deletes the app when its plan is complete; its task ends after that.
    cluster.wait("the package has removed itself", PATIENCE, || {
        site.apps().is_empty() && site.held().is_empty()
    });
    nothing_is_left(&site);
    assert_eq!(stored(&secrets(&cluster)), [strict::SECRET]);
    assert!(!cluster.dir().join("etcd/kubernetes").exists());
    drop(dcos);
    drop(site);
    cluster.finish();
}
