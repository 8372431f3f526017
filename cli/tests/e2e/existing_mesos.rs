//! A cluster on a Mesos that is there already, found through ZooKeeper: two masters, an agent, a
//! password. The leader dies, the other takes over, and what ran goes on. Mesos itself outlives the
//! cluster and has nothing of it left.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Cluster, Running, mesos_state_of, tasks_in};
use crate::zookeeper::ZooKeeper;

const PASSWORD: &str = "s3cret-of-zookeeper";

#[test]
fn a_cluster_on_a_mesos_that_zookeeper_names_outlives_the_leader() {
    let Some(zookeeper) = ZooKeeper::start() else {
        return;
    };
    let url = format!("zk://mesos:{PASSWORD}@{}/mesos", zookeeper.address());
    let address = cli::preflight::facts::own_address().expect("the machine has an address");
    let mut cluster = Cluster::prepare(&["--timeout=180"]);
    cluster.up_with(&format!(
        "--framework-arg=--executor-arg=--data-dir={}",
        cluster.dir().join("node").display()
    ));
    cluster.set("K8SM_MESOS", &url);
    let mut mesos = Mesos::start(&cluster, &url, address);
    cluster.up_again();
    let pods = cluster.containers("app=hello");
    assert!(!pods.is_empty());
    let tasks = mesos.tasks();
    assert!(tasks.len() > pods.len(), "pods and the node: {tasks:?}");
    no_password_is_seen(&cluster);
    the_leader_dies(&cluster, &mut mesos, &tasks, &pods);
    the_cluster_goes_and_mesos_stays(&cluster, &mesos);
    drop(mesos);
    drop(zookeeper);
    cluster.finish();
}

/// Masters and an agent that are no part of the instance.
struct Mesos {
    masters: Vec<Master>,
    _agent: Running,
    cgroups: String,
}

struct Master {
    process: Running,
    port: u16,
    address: IpAddr,
    program: PathBuf,
    args: Vec<String>,
}

impl Mesos {
    fn start(cluster: &Cluster, url: &str, address: IpAddr) -> Self {
        // Not among the arguments, where every user of the machine sees it.
        let file = cluster.dir().join("zk-url");
        std::fs::write(&file, url).unwrap();
        let url = format!("file://{}", file.display());
        let dir = |name: &str| cluster.dir().join(name).display().to_string();
        let ports = free_ports(address);
        let masters = ports[..2]
            .iter()
            .map(|port| {
                let args = vec![
                    "master".to_owned(),
                    format!("--zk={url}"),
                    format!("--listen={address}:{port}"),
                    // Shared, as the replicated log would be.
                    format!("--work-dir={}", dir("mesos-masters")),
                ];
                Master {
                    process: spawn(cluster.program(), &args, cluster.dir()),
                    port: *port,
                    address,
                    program: cluster.program(),
                    args,
                }
            })
            .collect();
        let cgroups = format!("mesos-e2e-{}", std::process::id());
        let args = vec![
            "agent".to_owned(),
            format!("--master={url}"),
            format!("--listen={address}:{}", ports[2]),
            format!("--work-dir={}", dir("mesos-agent")),
            format!("--cgroups-root={cgroups}"),
        ];
        Self {
            masters,
            _agent: spawn(cluster.program(), &args, cluster.dir()),
            cgroups,
        }
    }

    /// Number of the master that serves, once there is one.
    fn leader(&self) -> Option<usize> {
        // A master that follows redirects.
        self.masters.iter().position(|it| {
            mesos_state_of(&it.url(), false)["leader"]
                .as_str()
                .is_some_and(|leader| leader.ends_with(&format!(":{}", it.port)))
        })
    }

    fn state(&self) -> Value {
        self.leader().map_or(Value::Null, |leader| {
            mesos_state_of(&self.masters[leader].url(), false)
        })
    }

    fn tasks(&self) -> Vec<String> {
        tasks_in(&self.state())
    }
}

impl Drop for Mesos {
    fn drop(&mut self) {
        // Its own processes end with it; what agents leave in the cgroups are empty groups.
        let _ = self._agent.0.kill();
        let _ = self._agent.0.wait();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            remove_groups(&hierarchy.path().join(&self.cgroups));
        }
        remove_groups(&Path::new("/sys/fs/cgroup").join(&self.cgroups));
    }
}

fn remove_groups(group: &Path) {
    for below in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if below.path().is_dir() {
            remove_groups(&below.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

impl Master {
    fn url(&self) -> String {
        format!("http://{}:{}", self.address, self.port)
    }

    fn start_again(&mut self, dir: &Path) {
        self.process = spawn(self.program.clone(), &self.args, dir);
    }
}

fn spawn(program: PathBuf, args: &[String], dir: &Path) -> Running {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("mesos-{}.log", args[0])))
        .unwrap();
    let child = Command::new(program)
        .args(["dev", "mesos"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Running(child)
}

fn free_ports(address: IpAddr) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind((address, 0)).unwrap())
        .collect();
    held.iter()
        .map(|it| it.local_addr().unwrap().port())
        .collect()
}

fn no_password_is_seen(cluster: &Cluster) {
    for process in cluster.processes() {
        assert!(!process.line.contains(PASSWORD), "{}", process.line);
    }
    let settings = cluster.settings().to_string();
    assert!(settings.contains("zk://"), "{settings}");
    assert!(!settings.contains(PASSWORD), "{settings}");
    let logs = Command::new("grep")
        .args(["-rl", PASSWORD])
        .arg(cluster.dir().join("state/logs"))
        .output()
        .unwrap();
    assert!(logs.stdout.is_empty(), "in logs: {logs:?}");
    let status = cluster.k8sm(&["status"]);
    assert!(
        status.contains("zk://") && !status.contains(PASSWORD),
        "{status}"
    );
}

fn the_leader_dies(
    cluster: &Cluster,
    mesos: &mut Mesos,
    tasks: &[String],
    pods: &[(String, String)],
) {
    let old = mesos.leader().expect("somebody leads");
    let _ = mesos.masters[old].process.0.kill();
    let _ = mesos.masters[old].process.0.wait();
    // ZooKeeper waits for the dead one's session, 10 s; then agent and framework find the new one.
    cluster.wait("the other master leads and knows every task", 60, || {
        mesos.leader().is_some_and(|it| it != old) && mesos.tasks() == tasks
    });
    cluster.kubectl(&["scale", "deployment", "hello", "--replicas=3"]);
    mesos.masters[old].start_again(cluster.dir());
    cluster.wait("hello grows", 90, || cluster.ready("app=hello") == 3);
    let now = cluster.containers("app=hello");
    for pod in pods {
        assert!(now.contains(pod), "{pod:?} is not among {now:?}");
    }
    // The old leader follows now, and says whom.
    let leader = mesos.leader().expect("somebody leads");
    assert_ne!(leader, old);
    cluster.wait("the old leader redirects to the new one", 30, || {
        let state = mesos_state_of(&mesos.masters[old].url(), true);
        let port = mesos.masters[leader].port;
        state["leader"]
            .as_str()
            .is_some_and(|it| it.ends_with(&format!(":{port}")))
    });
}

fn the_cluster_goes_and_mesos_stays(cluster: &Cluster, mesos: &Mesos) {
    cluster.k8sm(&["down"]);
    cluster.wait("Mesos has no task and no framework any more", 90, || {
        let state = mesos.state();
        state["frameworks"].as_array().is_some_and(Vec::is_empty)
            && state["slaves"].as_array().is_some_and(|it| it.len() == 1)
    });
    // The agent ends the executor, and its guard cleans up.
    cluster.wait("no process of the node is left", 90, || {
        cluster
            .processes()
            .iter()
            .all(|it| it.line.contains(" dev mesos "))
    });
}
