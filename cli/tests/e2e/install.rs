//! A cluster that is installed by way of Marathon, on devcluster's Mesos and Marathon: installed,
//! installed again, hurt, changed, stopped, started, saved and removed; then nothing is left.

use std::net::{IpAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, Running, mesos_state_of};

/// Mesos and Marathon that are no part of the cluster.
struct Site {
    _agent: Running,
    _marathon: Running,
    _master: Running,
    master: String,
    marathon: String,
    cgroups: String,
}

impl Site {
    fn start(cluster: &Cluster, address: IpAddr) -> Self {
        let ports = free_ports(address, 3);
        let dir = |name: &str| cluster.dir().join(name).display().to_string();
        let master = format!("{address}:{}", ports[0]);
        let marathon = format!("{address}:{}", ports[2]);
        let cgroups = format!("mesos-e2e-{}", std::process::id());
        let run = |name: &str, args: &[String]| {
            let log = std::fs::File::create(cluster.dir().join(format!("{name}.log"))).unwrap();
            let child = std::process::Command::new(cluster.program())
                .arg("dev")
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            Running(child)
        };
        let own = |words: &[&str], rest: &[String]| -> Vec<String> {
            words
                .iter()
                .map(|w| (*w).to_owned())
                .chain(rest.iter().cloned())
                .collect()
        };
        let site = Self {
            _master: run(
                "master",
                &own(
                    &["mesos", "master"],
                    &[
                        format!("--listen={master}"),
                        format!("--work-dir={}", dir("mesos-master")),
                    ],
                ),
            ),
            _agent: run(
                "agent",
                &own(
                    &["mesos", "agent"],
                    &[
                        format!("--master={master}"),
                        format!("--listen={address}:{}", ports[1]),
                        format!("--work-dir={}", dir("mesos-agent")),
                        format!("--cgroups-root={cgroups}"),
                    ],
                ),
            ),
            _marathon: run(
                "marathon",
                &own(
                    &["marathon"],
                    &[
                        format!("--mesos={master}"),
                        format!("--listen={marathon}"),
                        format!("--work-dir={}", dir("marathon")),
                    ],
                ),
            ),
            master,
            marathon: format!("http://{marathon}"),
            cgroups,
        };
        cluster.wait("Marathon answers", 60, || !site.get("/v2/info").is_null());
        cluster.wait("an agent registers", 60, || {
            let state = mesos_state_of(&format!("http://{}", site.master), true);
            state["activated_slaves"].as_f64() == Some(1.0)
        });
        site
    }

    /// What Marathon answers; null when it does not.
    fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.marathon);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(async {
                let client = cli::http::client(None, Duration::from_secs(5)).ok()?;
                client.get(url).send().await.ok()?.json().await.ok()
            })
            .unwrap_or(Value::Null)
    }

    /// Ids and versions of apps.
    fn apps(&self) -> Vec<(String, String)> {
        let apps = self.get("/v2/apps");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        apps["apps"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|app| (text(&app["id"]), text(&app["version"])))
            .collect()
    }

    fn frameworks(&self) -> Vec<String> {
        let state = mesos_state_of(&format!("http://{}", self.master), true);
        let frameworks = state["frameworks"].as_array().cloned().unwrap_or_default();
        frameworks
            .iter()
            .filter_map(|f| f["name"].as_str().map(str::to_owned))
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What the agent's executors leave is the agent's: its cgroup goes with the test.
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = std::fs::remove_dir(hierarchy.path().join(&self.cgroups));
        }
    }
}

fn free_ports(address: IpAddr, count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((address, 0)).unwrap())
        .collect();
    held.iter()
        .map(|l| l.local_addr().unwrap().port())
        .collect()
}

/// Options of a small cluster on ports of its own.
fn options(cluster: &Cluster, address: IpAddr) -> Vec<String> {
    let ports = free_ports(address, 13);
    let dir = |name: &str| cluster.dir().join(name).display().to_string();
    let names = [
        "etcd.client_port",
        "etcd.peer_port",
        "etcd.metrics_port",
        "apiserver.port",
        "apiserver.konnectivity_port",
        "apiserver.konnectivity_admin_port",
        "apiserver.konnectivity_health_port",
        "controller_manager.port",
        "proxy.port",
        "proxy.http_port",
        "proxy.metrics_port",
        "framework.port",
    ];
    let mut sets: Vec<String> = names
        .iter()
        .zip(&ports)
        .map(|(name, port)| format!("--set={name}={port}"))
        .collect();
    sets.push(format!("--serve-listen={address}:{}", ports[12]));
    for set in [
        "marathon.require_ports=false".to_owned(),
        "etcd.count=1".to_owned(),
        "apiserver.instances=1".to_owned(),
        "nodes.min=1".to_owned(),
        format!("etcd.host_path={}", dir("etcd")),
        format!("nodes.data_dir={}", dir("node")),
        format!("nodes.run_dir={}", dir("run")),
    ] {
        sets.push(format!("--set={set}"));
    }
    sets
}

#[test]
fn a_cluster_installed_by_marathon_is_changed_stopped_and_removed_without_a_trace() {
    let cluster = Cluster::prepare(&[]);
    let address = cli::preflight::facts::own_address().expect("the machine has an address");
    let site = Site::start(&cluster, address);
    let mut install = vec![
        "install".to_owned(),
        format!("--marathon={}", site.marathon),
        "--serve".to_owned(),
        "--yes".to_owned(),
    ];
    install.extend(options(&cluster, address));
    let install: Vec<&str> = install.iter().map(String::as_str).collect();

    let mut dry = install.clone();
    dry.push("--dry-run");
    let plan = cluster.k8sm(&dry);
    assert!(plan.contains("+ create /kubernetes-cp/etcd-0"), "{plan}");
    assert!(site.apps().is_empty(), "a dry run changes nothing");

    cluster.k8sm(&install);
    let apps = site.apps();
    assert_eq!(apps.len(), 5, "{apps:?}");
    cluster.k8sm(&install);
    assert_eq!(site.apps(), apps, "installed again, nothing changes");
    let status: Value = serde_json::from_str(&cluster.k8sm(&["status", "-o", "json"])).unwrap();
    assert_eq!(status["healthy"], true, "{status:#}");
    assert_eq!(status["nodes"][0], 1, "{status:#}");

    cluster.k8sm(&["upgrade", "--yes", "--set=controller_manager.mem=600"]);
    let changed: Vec<String> = site
        .apps()
        .into_iter()
        .filter(|app| !apps.contains(app))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(changed, ["/kubernetes-cp/controller-manager"]);
    let refused = cluster.k8sm_fails(&["upgrade", "--yes", "--set=etcd.count=3"], 1);
    assert!(refused.contains("etcd.count"), "{refused}");

    cluster.k8sm(&["stop", "--yes"]);
    assert_eq!(site.frameworks(), ["marathon"]);
    cluster.k8sm(&["start"]);
    let status: Value = serde_json::from_str(&cluster.k8sm(&["status", "-o", "json"])).unwrap();
    assert_eq!(status["healthy"], true, "{status:#}");

    let archive = cluster.dir().join("backup.tar.gz");
    cluster.k8sm(&["backup", archive.to_str().unwrap()]);
    assert!(std::fs::metadata(&archive).unwrap().len() > 10_000);

    cluster.k8sm(&["uninstall", "--yes"]);
    assert_eq!(site.apps(), []);
    assert_eq!(site.frameworks(), ["marathon"]);
    assert!(
        !cluster.dir().join("etcd/kubernetes").exists(),
        "no data are left"
    );
    drop(site);
    cluster.finish();
}
