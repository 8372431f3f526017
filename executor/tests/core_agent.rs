//! The executor as a process, against an agent that is a few lines of HTTP. Needs root (mount
//! namespace, cgroups); says so and does nothing without.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesos::pb;
use mesos::pb::executor::{Call, Event, event};
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Nothing here takes longer unless something is broken.
const DEADLINE: Duration = Duration::from_secs(60);
const NODE: &str = "node.n.00000001";

/// An agent with one executor.
struct Agent {
    dir: tempfile::TempDir,
    container: String,
    executor: Child,
    updates: mpsc::Receiver<pb::TaskStatus>,
    events: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
    subscribed: mpsc::Receiver<()>,
}

impl Agent {
    async fn start(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: the executor needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (updates_tx, updates) = mpsc::channel(64);
        let (subscribed_tx, subscribed) = mpsc::channel(8);
        let container = format!("test-agent-{name}-{}", std::process::id());
        let events = Arc::new(Mutex::new(None));
        let (id, slot) = (container.clone(), Arc::clone(&events));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = serve(
                    stream,
                    id.clone(),
                    Arc::clone(&slot),
                    updates_tx.clone(),
                    subscribed_tx.clone(),
                );
                tokio::spawn(served);
            }
        });
        let executor = Command::new(env!("CARGO_BIN_EXE_k8sm-executor"))
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .arg("--run-dir")
            .arg(dir.path().join("run"))
            .env_clear()
            .envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("MESOS_AGENT_ENDPOINT", &endpoint),
                ("MESOS_FRAMEWORK_ID", "f"),
                ("MESOS_EXECUTOR_ID", "e"),
                ("MESOS_CHECKPOINT", "1"),
                ("MESOS_RECOVERY_TIMEOUT", "1mins"),
                ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "10secs"),
            ])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut agent = Self {
            dir,
            container,
            executor,
            updates,
            events,
            subscribed,
        };
        agent.wait_subscribed().await;
        Some(agent)
    }

    async fn wait_subscribed(&mut self) {
        tokio::time::timeout(DEADLINE, self.subscribed.recv())
            .await
            .expect("SUBSCRIBE in time")
            .unwrap();
    }

    async fn send(&self, event: Event) {
        let sender = self.events.lock().unwrap().clone().expect("a subscription");
        sender.send(event).await.unwrap();
    }

    async fn launch(&self, task: pb::TaskInfo) {
        self.send(Event {
            r#type: Some(event::Type::Launch as i32),
            launch: Some(event::Launch { task }),
            ..Default::default()
        })
        .await;
    }

    async fn update(&mut self) -> (String, pb::TaskState, String) {
        let status = tokio::time::timeout(DEADLINE, self.updates.recv())
            .await
            .expect("an update in time")
            .unwrap();
        let message = status.message().to_owned();
        (status.task_id.value.clone(), status.state(), message)
    }

    async fn exit(&mut self) -> Option<i32> {
        tokio::time::timeout(DEADLINE, self.executor.wait())
            .await
            .expect("an end in time")
            .unwrap()
            .code()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.executor.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    /// Neither lists nor cgroups; the guard may still be at it.
    async fn clean(&self) {
        let lists = self.dir.path().join("data/cleanup");
        let setup = executor::cgroup::discover()
            .unwrap()
            .plan(&self.container)
            .unwrap();
        let bases = setup.dirs(&setup.base);
        let clean = async {
            loop {
                let listed = std::fs::read_dir(&lists).is_ok_and(|mut d| d.next().is_some());
                if !listed && bases.iter().all(|dir| !dir.exists()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, clean)
            .await
            .expect("everything removed in time");
    }
}

/// One connection: SUBSCRIBE is answered with a stream of events, anything else is accepted.
async fn serve(
    stream: TcpStream,
    container: String,
    events: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
    updates: mpsc::Sender<pb::TaskStatus>,
    subscribed: mpsc::Sender<()>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let call = Call::decode(body.as_slice()).ok()?;
        if call.r#type() == pb::executor::call::Type::Subscribe {
            let (tx, mut rx) = mpsc::channel(64);
            *events.lock().unwrap() = Some(tx);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            send(&mut stream, &greeting(&container)).await?;
            subscribed.send(()).await.ok()?;
            while let Some(event) = rx.recv().await {
                send(&mut stream, &event).await?;
            }
            return None;
        }
        stream
            .write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            .await
            .ok()?;
        if let Some(update) = call.update {
            let acknowledged = Event {
                r#type: Some(event::Type::Acknowledged as i32),
                acknowledged: Some(event::Acknowledged {
                    task_id: update.status.task_id.clone(),
                    uuid: update.status.uuid().to_vec(),
                }),
                ..Default::default()
            };
            updates.send(update.status).await.ok()?;
            let sender = events.lock().unwrap().clone()?;
            sender.send(acknowledged).await.ok()?;
        }
    }
}

async fn send(stream: &mut BufReader<TcpStream>, event: &Event) -> Option<()> {
    let frame = mesos::recordio::encode(&event.encode_to_vec());
    let mut chunk = format!("{:x}\r\n", frame.len()).into_bytes();
    chunk.extend_from_slice(&frame);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(&chunk).await.ok()?;
    stream.flush().await.ok()
}

fn greeting(container: &str) -> Event {
    let framework_id = pb::FrameworkId {
        value: "f".to_owned(),
    };
    Event {
        r#type: Some(event::Type::Subscribed as i32),
        subscribed: Some(event::Subscribed {
            executor_info: pb::ExecutorInfo {
                executor_id: pb::ExecutorId {
                    value: "e".to_owned(),
                },
                ..Default::default()
            },
            framework_info: pb::FrameworkInfo {
                id: Some(framework_id),
                ..Default::default()
            },
            agent_info: pb::AgentInfo {
                hostname: "n".to_owned(),
                ..Default::default()
            },
            container_id: Some(pb::ContainerId {
                value: container.to_owned(),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// A node whose payload nobody has.
fn node_task() -> pb::TaskInfo {
    let mut config = seam::testing::node_config();
    config.node_name = "n".to_owned();
    config.payload.urls = vec!["file:///nonexistent/payload.tar".to_owned()];
    config.payload.size = 1;
    pb::TaskInfo {
        name: "node.n".to_owned(),
        task_id: pb::TaskId {
            value: NODE.to_owned(),
        },
        data: Some(config.to_data()),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_payload_that_nobody_has_fails_the_node_with_its_place_and_leaves_nothing() {
    let Some(mut agent) = Agent::start("payload").await else {
        return;
    };
    agent.launch(node_task()).await;
    let (task, state, _) = agent.update().await;
    assert_eq!((task.as_str(), state), (NODE, pb::TaskState::TaskStarting));
    let (task, state, message) = agent.update().await;
    assert_eq!((task.as_str(), state), (NODE, pb::TaskState::TaskFailed));
    assert!(
        message.contains("payload") && message.contains("file:///nonexistent/payload.tar"),
        "{message}"
    );
    assert_eq!(agent.exit().await, Some(1));
    agent.clean().await;
}

#[tokio::test]
async fn an_executor_without_tasks_ends_at_shutdown_and_at_sigterm() {
    for shutdown in [true, false] {
        let Some(mut agent) = Agent::start("idle").await else {
            return;
        };
        if shutdown {
            agent
                .send(Event {
                    r#type: Some(event::Type::Shutdown as i32),
                    ..Default::default()
                })
                .await;
        } else {
            agent.signal(rustix::process::Signal::TERM);
        }
        assert_eq!(agent.exit().await, Some(0));
    }
}

#[tokio::test]
async fn an_executor_that_is_killed_while_its_node_comes_up_leaves_nothing() {
    let Some(mut agent) = Agent::start("killed").await else {
        return;
    };
    agent.launch(node_task()).await;
    let (_, state, _) = agent.update().await;
    assert_eq!(state, pb::TaskState::TaskStarting);
    let setup = executor::cgroup::discover()
        .unwrap()
        .plan(&agent.container)
        .unwrap();
    let guards = setup.dirs(&setup.guard);
    let watching = async {
        while !guards
            .iter()
            .all(|dir| executor::cgroup::kill::processes(dir).len() == 1)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, watching)
        .await
        .expect("a guard");
    agent.signal(rustix::process::Signal::KILL);
    agent.exit().await;
    agent.clean().await;
}

#[tokio::test]
async fn an_executor_that_replaces_itself_keeps_its_pid_and_subscribes_again() {
    let Some(mut agent) = Agent::start("replaced").await else {
        return;
    };
    let pid = agent.executor.id();
    agent.signal(rustix::process::Signal::HUP);
    agent.wait_subscribed().await;
    assert_eq!(agent.executor.id(), pid);
    // And again, by the successor.
    agent.signal(rustix::process::Signal::HUP);
    agent.wait_subscribed().await;
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.exit().await, Some(0));
}
