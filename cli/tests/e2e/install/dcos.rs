//! The package of DC/OS: added, installed, hurt, changed and removed by the calls of the `dcos`
//! command, through devcluster's Cosmos. As on DC/OS Enterprise the package is a service account,
//! with just the permissions that the documentation names, and keys are in the secret store.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::nothing_is_left;
use super::site::{LITTLE, PORTS, Site, finished, free_ports, kubectl_with, ready_container};
use crate::support::{Cluster, Running};

/// Seconds. From a call to everything that follows from it.
const PATIENCE: u64 = 240;

/// Who operates DC/OS, and who the package is.
const ACCOUNTS: [&str; 2] = ["operator", "kubernetes"];
/// What the latter may do with secrets.
const PERMISSIONS: [&str; 2] = [
    "dcos:secrets:default:/kubernetes/* full",
    "dcos:secrets:default:/kubernetes-cp/* full",
];

/// DC/OS before a site, and a server of the package.
struct Dcos<'a> {
    cluster: &'a Cluster,
    url: String,
    /// The operator's.
    token: String,
    repository: String,
    _processes: Vec<Running>,
}

impl<'a> Dcos<'a> {
    fn start(cluster: &'a Cluster, site: &Site) -> Self {
        let artifacts = cluster.dir().join("artifacts").display().to_string();
        let build = ["artifacts", "build", &artifacts];
        finished(cluster.command(&build), &build);
        let ports = free_ports(2);
        let at = |port: u16| format!("{}:{port}", site.address);
        let work_dir = cluster.dir().join("dcos").display().to_string();
        let url = format!("http://{}", at(ports[0]));
        let key = accounts(cluster, &url);
        let file = |name: &str| cluster.dir().join(name).display().to_string();
        let start = |name: &str, args: &[&str]| {
            let log = std::fs::File::create(cluster.dir().join(format!("{name}.log"))).unwrap();
            let mut command = cluster.command(args);
            Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
        };
        let dcos = start(
            "dcos",
            &[
                "dev",
                "dcos",
                &format!("--marathon={}", site.marathon),
                &format!("--mesos=http://{}", site.master),
                &format!("--listen={}", at(ports[0])),
                &format!("--work-dir={work_dir}"),
                &format!("--service-accounts={}", file("accounts.json")),
                &format!("--secret-permissions={}", file("permissions.json")),
                &format!("--secrets-dir={}", secrets(cluster).display()),
                "--uninstall-poll=500",
            ],
        );
        let package = start(
            "package",
            &[
                "package",
                "serve",
                &format!("--artifacts={artifacts}"),
                &format!("--listen={}", at(ports[1])),
            ],
        );
        let mut here = Self {
            cluster,
            url,
            token: String::new(),
            repository: format!("http://{}/repo", at(ports[1])),
            _processes: vec![dcos, package],
        };
        let operator = account(ACCOUNTS[0], &key, &here.url);
        cluster.wait("DC/OS lets the operator in", 60, || {
            let operator = cli::service_account::Account::parse(&operator);
            let login = async { operator.unwrap().unwrap().login().await };
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let token = runtime.block_on(login).map(|token| token.value);
            here.token = token.unwrap_or_default();
            !here.token.is_empty()
        });
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
            .arg(format!("-HContent-Type: {}", kind("request")))
            .arg(format!("-HAccept: {}", kind("response")))
            .arg(format!("-HAuthorization: token={}", self.token))
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

    fn package(&self, name: &str, body: &Value) -> Value {
        self.call("package", name, body)
            .unwrap_or_else(|error| panic!("package/{name}: {error}"))
    }

    /// `dcos kubernetes ...`.
    fn plugin(&self, args: &[&str]) -> Result<String, String> {
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
    fn runs(&self, what: &str) {
        let mut said = String::new();
        self.cluster.wait(what, PATIENCE, || {
            said = self.plugin(&["status"]).unwrap_or_else(|error| error);
            said.starts_with("everything runs") && said.contains("nodes")
        });
    }
}

/// Where the secret store and the agent have the secrets.
fn secrets(cluster: &Cluster) -> PathBuf {
    cluster.dir().join("secrets")
}

/// Paths of the secrets that there are.
fn stored(dir: &Path) -> Vec<String> {
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

/// Makes the service accounts and the package's secret; returns the key that all of them have.
fn accounts(cluster: &Cluster, url: &str) -> String {
    let openssl = |args: &[&str], input: &str| {
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let bits = "rsa_keygen_bits:2048";
    let key = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", bits], "");
    let public = openssl(&["rsa", "-pubout"], &key);
    let write = |name: &str, content: Value| {
        std::fs::write(cluster.dir().join(name), content.to_string()).unwrap();
    };
    let keys: serde_json::Map<String, Value> = ACCOUNTS
        .iter()
        .map(|name| ((*name).to_owned(), json!(public)))
        .collect();
    write("accounts.json", keys.into());
    write("permissions.json", json!({ACCOUNTS[1]: PERMISSIONS}));
    let own = secrets(cluster).join("kubernetes");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("sa"), account(ACCOUNTS[1], &key, url)).unwrap();
    key
}

/// The secret of a service account.
fn account(uid: &str, key: &str, url: &str) -> String {
    let endpoint = format!("{url}/acs/api/v1/auth/login");
    json!({"uid": uid, "scheme": "RS256", "private_key": key, "login_endpoint": endpoint})
        .to_string()
}

/// Whoever reads Marathon's apps and Mesos' state learns no key.
fn no_key_is_shown(cluster: &Cluster, site: &Site) {
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
    let site = Site::start_offering(&cluster, &ports, &images);
    let dcos = Dcos::start(&cluster, &site);
    let mut options: Vec<(String, Value)> = PORTS
        .iter()
        .zip(&ports)
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
        (
            "marathon.url".to_owned(),
            json!(format!("{}/marathon", dcos.url)),
        ),
        ("service.principal".to_owned(), json!("kubernetes")),
        ("service.secret_name".to_owned(), json!("kubernetes/sa")),
        ("mesos.master".to_owned(), json!(site.master)),
        ("images.executor".to_owned(), json!("image")),
        ("images.repository".to_owned(), json!("k8s.mesosphere.io")),
    ]);

    let repository = json!({"name": "k8sm", "uri": dcos.repository, "index": 0});
    dcos.package("repository/add", &repository);
    let found = dcos.package("search", &json!({"query": "kube"}));
    assert_eq!(found["packages"][0]["name"], "kubernetes", "{found}");
    let wrong = json!({"packageName": "kubernetes", "options": {"etcd": {"count": 2}}});
    let refused = dcos.call("package", "install", &wrong).unwrap_err();
    assert!(refused.contains("count"), "{refused}");
    assert!(site.apps().is_empty(), "nothing is half installed");
    let install = json!({"packageName": "kubernetes", "options": nested(&options)});
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

    let file = cluster.dir().join("kubeconfig-of-dcos");
    dcos.plugin(&["kubeconfig", "--path", file.to_str().unwrap()])
        .unwrap();
    let kubectl = |args: &[&str]| kubectl_with(&file, args);
    let image = format!("--image={}", cli::cluster::prepare::PAUSE_IMAGE);
    // The controller manager may not have made the namespace's account yet.
    cluster.wait("the API takes a pod", 60, || {
        kubectl(&["run", "stays", &image]).is_ok()
    });
    let container = || ready_container(&kubectl(&["get", "pod", "stays", "-o", "json"]).ok()?);
    cluster.wait("the pod is ready", PATIENCE, || container().is_some());
    let pod = container();

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

    let snapshots = cluster.dir().join("etcd/kubernetes/snapshots");
    assert!(!snapshots.exists(), "nothing was changed before");
    let change = cluster.dir().join("change.json");
    let wanted = json!({
        "controller_manager": {"mem": 600}, "apiserver": {"names": ["api.example.org"]},
    });
    let serves = || std::fs::read_to_string(secrets(&cluster).join("kubernetes-cp/pki-apiserver"));
    let before = serves().unwrap();
    std::fs::write(&change, wanted.to_string()).unwrap();
    dcos.plugin(&["update", "--options", change.to_str().unwrap()])
        .unwrap();
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
    assert_eq!(stored(&secrets(&cluster)), ["kubernetes/sa"]);
    assert!(!cluster.dir().join("etcd/kubernetes").exists());
    drop(dcos);
    drop(site);
    cluster.finish();
}
