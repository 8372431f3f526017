//! A master, an agent and a framework for one test. Everything ends with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use devcluster::agent::cgroups;
use devcluster::agent::container;
use devcluster::master::{self, MasterConfig};
use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use mesos::pb;
use mesos::scheduler::{SchedulerConfig, SchedulerEvent, SchedulerHandle, spawn};
use pb::scheduler::call::{self, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long anything may take. The machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Whether this test may use cgroups and namespaces; says so when not.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped, it needs root");
    }
    root
}

/// The executor of the tests.
pub const EXECUTOR: &str = env!("CARGO_BIN_EXE_scripted-executor");

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub master: SocketAddr,
    master_stop: CancellationToken,
    agent: Option<Child>,
    pub agent_address: SocketAddr,
    flags: Vec<String>,
    pub cgroups_root: String,
}

impl Cluster {
    /// With an agent that has these further flags.
    pub async fn start(flags: &[&str]) -> Self {
        Self::start_with(|_| flags.iter().map(|f| (*f).to_owned()).collect()).await
    }

    /// With flags that depend on the directory of the test.
    pub async fn start_with(flags: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let master = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        // Free now; nobody else asks for a port of this kind in between.
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let agent_address = port.local_addr().unwrap();
        drop(port);
        let name = dir
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let flags = flags(dir.path());
        let mut cluster = Self {
            cgroups_root: format!("h3t-{}", name.trim_start_matches('.')),
            dir,
            master,
            master_stop: CancellationToken::new(),
            agent: None,
            agent_address,
            flags,
        };
        cluster.run_master(listener);
        cluster.start_agent();
        cluster
    }

    fn run_master(&mut self, listener: TcpListener) {
        self.master_stop = CancellationToken::new();
        let config = MasterConfig::new(self.master, self.dir.path().join("master"));
        let run = master::run_on(listener, config, self.master_stop.clone());
        tokio::spawn(async { run.await.unwrap() });
    }

    /// Ends the master and starts it again on the same port, with the same memory.
    pub async fn restart_master(&mut self) {
        self.master_stop.cancel();
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(self.master).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.run_master(listener);
    }

    pub fn work_dir(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// A name of the agent's own, unless the test gives it one.
    fn hostname_flag(&self) -> Option<&'static str> {
        let given = self.flags.iter().any(|f| f.starts_with("--hostname="));
        (!given).then_some("--hostname=agent1.test")
    }

    fn agent_command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesos-dev"));
        command
            .arg("agent")
            .arg(format!("--master={}", self.master))
            .arg(format!("--listen={}", self.agent_address))
            .arg(format!("--work-dir={}", self.work_dir().display()))
            .arg(format!("--cgroups-root={}", self.cgroups_root))
            .args(flags)
            .args(self.hostname_flag())
            .stdin(Stdio::null())
            .env("RUST_BACKTRACE", "0");
        command
    }

    pub fn start_agent(&mut self) {
        assert!(self.agent.is_none());
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .unwrap();
        let agent = self
            .agent_command(&["--resources=cpus:4;mem:2048;disk:1024;ports:[31000-31999]"])
            .args(&self.flags)
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    /// Runs an agent that is expected to end by itself.
    pub async fn run_agent(&self, flags: &[&str]) -> std::process::Output {
        let mut command = tokio::process::Command::from(self.agent_command(flags));
        let output = command.kill_on_drop(true).output();
        timeout(PATIENCE, output)
            .await
            .expect("it does not end")
            .unwrap()
    }

    /// SIGKILL: whatever the agent was about to do is not done.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// GET on the agent.
    pub async fn get(&self, path: &str) -> serde_json::Value {
        let url = format!("http://{}{path}", self.agent_address);
        let answer = client().get(url).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.master_stop.cancel();
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}", self.agent_log());
        }
        let runtime_dir = self.work_dir().join("run");
        let root = self.cgroups_root.clone();
        // Not within the test's own runtime, which may not block.
        let sweep = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    container::sweep(&runtime_dir, PATIENCE).await.unwrap();
                    if nix::unistd::geteuid().is_root() {
                        cgroups::sweep(&root, PATIENCE).await.unwrap();
                    }
                });
        });
        let swept = sweep.join();
        assert!(swept.is_ok() || std::thread::panicking());
    }
}

pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A framework, PARTITION_AWARE, in role `r1`.
pub struct Framework {
    pub handle: SchedulerHandle,
    events: mpsc::Receiver<SchedulerEvent>,
    pub id: pb::FrameworkId,
    /// Offers that were not used yet.
    offers: Vec<pb::Offer>,
}

impl Framework {
    pub async fn subscribe(cluster: &Cluster) -> Self {
        Self::with_checkpoint(cluster, true).await
    }

    pub async fn with_checkpoint(cluster: &Cluster, checkpoint: bool) -> Self {
        use pb::framework_info::capability::Type as Capability;
        let info = pb::FrameworkInfo {
            user: if nix::unistd::geteuid().is_root() {
                "root"
            } else {
                ""
            }
            .to_owned(),
            name: "test".into(),
            roles: vec!["r1".into()],
            checkpoint: Some(checkpoint),
            failover_timeout: Some(600.0),
            capabilities: [Capability::MultiRole, Capability::PartitionAware]
                .map(|c| pb::framework_info::Capability {
                    r#type: Some(c as i32),
                })
                .into(),
            ..Default::default()
        };
        let url = MasterUrl::parse(&cluster.master.to_string()).unwrap();
        let config = SchedulerConfig::new(url, info, ClientConfig::default());
        let (handle, events) = spawn(config).unwrap();
        let mut framework = Self {
            handle,
            events,
            id: pb::FrameworkId::default(),
            offers: Vec::new(),
        };
        framework.id = framework
            .wait("SUBSCRIBED", |e| e.subscribed)
            .await
            .framework_id;
        framework
    }

    /// The next event of which `pick` makes something. Offers are kept, others are passed over.
    pub async fn wait<T>(
        &mut self,
        what: &str,
        pick: impl Fn(pb::scheduler::Event) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = timeout(left, self.events.recv())
                .await
                .unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"));
            match event.expect("the scheduler client ended") {
                SchedulerEvent::Event(event) => {
                    if let Some(offers) = &event.offers {
                        self.offers.extend(offers.offers.iter().cloned());
                    }
                    if let Some(found) = pick(*event) {
                        return found;
                    }
                }
                SchedulerEvent::Fatal { error } => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// An offer with enough CPU for a test's task.
    pub async fn offer(&mut self) -> pb::Offer {
        loop {
            let big = |o: &pb::Offer| {
                let cpus = o.resources.iter().find(|r| r.name == "cpus");
                cpus.and_then(|r| r.scalar).is_some_and(|s| s.value >= 1.0)
            };
            if let Some(i) = self.offers.iter().position(big) {
                return self.offers.remove(i);
            }
            self.wait("offer", |e| e.offers).await;
        }
    }

    /// The next update, acknowledged.
    pub async fn update(&mut self) -> pb::TaskStatus {
        let status = self.wait("update", |e| e.update).await.status;
        self.acknowledge(&status).await;
        status
    }

    /// The next update of this state, acknowledged as all before it.
    pub async fn update_to(&mut self, state: pb::TaskState) -> pb::TaskStatus {
        loop {
            let status = self.update().await;
            if status.state() == state {
                return status;
            }
            assert!(
                !devcluster::agent::core::updates::is_terminal(status.state()),
                "waiting for {state:?}: {status:?}"
            );
        }
    }

    pub async fn acknowledge(&mut self, status: &pb::TaskStatus) {
        let Some(uuid) = status.uuid.clone() else {
            return;
        };
        let call = pb::scheduler::Call {
            r#type: Some(Type::Acknowledge as i32),
            acknowledge: Some(call::Acknowledge {
                agent_id: status.agent_id.clone().unwrap_or_default(),
                task_id: status.task_id.clone(),
                uuid,
            }),
            ..Default::default()
        };
        self.handle.call(call).await.unwrap();
    }

    pub async fn failure(&mut self) -> pb::scheduler::event::Failure {
        self.wait("failure", |e| e.failure).await
    }

    pub async fn launch(&mut self, mut task: pb::TaskInfo) {
        let offer = self.offer().await;
        task.agent_id = offer.agent_id.clone();
        if let Some(executor) = &mut task.executor {
            executor.framework_id = Some(self.id.clone());
        }
        let launch = pb::offer::Operation {
            r#type: Some(pb::offer::operation::Type::Launch as i32),
            launch: Some(pb::offer::operation::Launch {
                task_infos: vec![task],
            }),
            ..Default::default()
        };
        let call = pb::scheduler::Call {
            r#type: Some(Type::Accept as i32),
            accept: Some(call::Accept {
                offer_ids: vec![offer.id],
                operations: vec![launch],
                filters: Some(pb::Filters {
                    refuse_seconds: Some(0.0),
                }),
            }),
            ..Default::default()
        };
        self.handle.call(call).await.unwrap();
    }

    pub async fn kill(&mut self, task: &str) {
        let call = pb::scheduler::Call {
            r#type: Some(Type::Kill as i32),
            kill: Some(call::Kill {
                task_id: task_id(task),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.handle.call(call).await.unwrap();
    }

    pub async fn message(&mut self, to: &Target, text: &str) {
        let call = pb::scheduler::Call {
            r#type: Some(Type::Message as i32),
            message: Some(call::Message {
                agent_id: to.agent.clone(),
                executor_id: to.executor.clone(),
                data: text.as_bytes().to_vec(),
            }),
            ..Default::default()
        };
        self.handle.call(call).await.unwrap();
    }

    /// Sends a message that the executor answers.
    pub async fn ask(&mut self, to: &Target, text: &str) {
        self.message(to, text).await;
        let answer = self.wait("message", |e| e.message).await;
        assert_eq!(answer.data, b"echoed");
    }

    pub async fn shut_down_executor(&mut self, to: &Target) {
        let call = pb::scheduler::Call {
            r#type: Some(Type::Shutdown as i32),
            shutdown: Some(call::Shutdown {
                agent_id: to.agent.clone(),
                executor_id: to.executor.clone(),
            }),
            ..Default::default()
        };
        self.handle.call(call).await.unwrap();
    }
}

/// An executor on its agent.
#[derive(Debug, Clone)]
pub struct Target {
    pub agent: pb::AgentId,
    pub executor: pb::ExecutorId,
    pub container: String,
    pub pid: u32,
}

impl Target {
    /// The one that a running task is on.
    pub fn of(status: &pb::TaskStatus, executor: &str) -> Self {
        let container = status.container_status.clone().unwrap_or_default();
        Self {
            agent: status.agent_id.clone().unwrap_or_default(),
            executor: pb::ExecutorId {
                value: executor.to_owned(),
            },
            container: container.container_id.unwrap_or_default().value,
            pid: container.executor_pid.unwrap_or(0),
        }
    }
}

pub fn task_id(id: &str) -> pb::TaskId {
    pb::TaskId {
        value: id.to_owned(),
    }
}

fn scalar(name: &str, value: f64) -> pb::Resource {
    pb::Resource {
        name: name.to_owned(),
        scalar: Some(pb::value::Scalar { value }),
        ..Default::default()
    }
}

/// A task without anything to do.
fn task(id: &str) -> pb::TaskInfo {
    pb::TaskInfo {
        name: id.to_owned(),
        task_id: task_id(id),
        resources: vec![scalar("cpus", 0.1), scalar("mem", 64.0)],
        ..Default::default()
    }
}

/// A task that runs a shell command.
pub fn command_task(id: &str, command: &str) -> pb::TaskInfo {
    pb::TaskInfo {
        command: Some(pb::CommandInfo {
            value: Some(command.to_owned()),
            ..Default::default()
        }),
        ..task(id)
    }
}

/// A task of the scripted executor with these variables in its environment.
pub fn executor_task(id: &str, executor: &str, variables: &[(&str, &str)]) -> pb::TaskInfo {
    pb::TaskInfo {
        executor: Some(pb::ExecutorInfo {
            r#type: Some(pb::executor_info::Type::Custom as i32),
            executor_id: pb::ExecutorId {
                value: executor.to_owned(),
            },
            command: Some(pb::CommandInfo {
                shell: Some(false),
                value: Some(EXECUTOR.to_owned()),
                arguments: vec!["scripted-executor".to_owned()],
                environment: Some(pb::Environment {
                    variables: variables
                        .iter()
                        .map(|(name, value)| pb::environment::Variable {
                            name: (*name).to_owned(),
                            value: Some((*value).to_owned()),
                            ..Default::default()
                        })
                        .collect(),
                }),
                ..Default::default()
            }),
            resources: vec![scalar("cpus", 0.1), scalar("mem", 64.0)],
            ..Default::default()
        }),
        ..task(id)
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The one sandbox of an executor.
pub fn sandbox(cluster: &Cluster, executor: &str) -> PathBuf {
    fn find(dir: &Path, executor: &str) -> Option<PathBuf> {
        let own = dir.join("executors").join(executor).join("runs/latest");
        if own.exists() {
            return Some(own);
        }
        let entries = std::fs::read_dir(dir).ok()?.flatten();
        entries
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .find_map(|e| find(&e.path(), executor))
    }
    find(&cluster.work_dir().join("work/slaves"), executor).expect("no sandbox")
}
