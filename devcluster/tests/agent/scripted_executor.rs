//! The executor of the tests: it does what its tasks' data and its framework's messages say.
//!
//! A task's data: `silent` sends no update, anything else TASK_STARTING and TASK_RUNNING.
//! Messages: `echo`, `exit <code>`, `update <task> <TASK_STATE>`, `fork` (starts a process that
//! leaves its session and ignores every signal it can), `leak <MiB>`, `deaf` (ignore SHUTDOWN),
//! `gone` (never subscribe again).
//!
//! `look WHAT..` on its command line says what it sees, and does nothing else.
//!
//! In its environment: `SUBSCRIBE_AFTER` delays the first subscription by so many milliseconds,
//! `NEVER_SUBSCRIBE` does what it says.

use std::os::unix::process::CommandExt;
use std::time::Duration;

use mesos::executor::{ExecutorConfig, ExecutorEvent, ExecutorHandle, Ledger, new_update, spawn};
use mesos::http::ClientConfig;
use mesos::pb;
use pb::executor::call::{Type, Update};
use pb::executor::event::Type as Event;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "look") {
        return look(&words[1..]);
    }
    if let Ok(delay) = std::env::var("SUBSCRIBE_AFTER") {
        tokio::time::sleep(Duration::from_millis(delay.parse().unwrap())).await;
    }
    if std::env::var_os("NEVER_SUBSCRIBE").is_some() {
        std::future::pending::<()>().await;
    }
    let config = ExecutorConfig::from_env(ClientConfig::default()).unwrap();
    let (handle, mut events) = spawn(config).unwrap();
    let mut executor = Executor {
        handle,
        ledger: Ledger::default(),
        live: Vec::new(),
        deaf: false,
        leaked: Vec::new(),
        forked: Vec::new(),
    };
    while let Some(event) = events.recv().await {
        match event {
            ExecutorEvent::Event(event) => executor.on_event(*event).await,
            ExecutorEvent::Disconnected { error } => eprintln!("disconnected: {error}"),
            ExecutorEvent::RecoveryTimeout => break,
        }
    }
}

/// Says what a command of a container sees: the program that images of the tests run.
fn look(words: &[String]) {
    for word in words {
        let (what, of) = word.split_once('=').unwrap_or((word, ""));
        let seen = match what {
            "cwd" => Ok(std::env::current_dir().unwrap().display().to_string()),
            "env" => Ok(std::env::var(of).unwrap_or_default()),
            "cat" => std::fs::read_to_string(of),
            "write" => std::fs::write(of, "written").map(|()| "ok".to_owned()),
            "ls" => std::fs::read_dir(of).map(|entries| {
                let mut names: Vec<_> = entries.flatten().map(|e| e.file_name()).collect();
                names.sort();
                let names: Vec<_> = names.iter().map(|n| n.to_string_lossy()).collect();
                names.join(" ")
            }),
            "id" => std::fs::read_to_string("/proc/self/status").map(|text| {
                let line = |name: &str| text.lines().find_map(|l| l.strip_prefix(name));
                let first = |name| line(name).and_then(|l| l.split_whitespace().next());
                format!("{}:{}", first("Uid:").unwrap(), first("Gid:").unwrap())
            }),
            "exit" => std::process::exit(of.parse().unwrap()),
            "wait" => loop {
                std::thread::park();
            },
            other => panic!("{other}"),
        };
        match seen {
            Ok(seen) => println!("{word}: {}", seen.trim()),
            Err(error) => println!("{word}: {}", error.kind()),
        }
    }
}

struct Executor {
    handle: ExecutorHandle,
    ledger: Ledger,
    live: Vec<pb::TaskId>,
    deaf: bool,
    leaked: Vec<Vec<u8>>,
    /// Never waited for: they end with the container.
    forked: Vec<std::process::Child>,
}

impl Executor {
    async fn on_event(&mut self, event: pb::executor::Event) {
        match event.r#type() {
            Event::Subscribed => {
                for update in self.ledger.unacknowledged().1 {
                    self.send(update).await;
                }
            }
            Event::Launch => {
                let task = event.launch.unwrap().task;
                self.ledger.launched(task.clone());
                self.tell_ledger();
                self.live.push(task.task_id.clone());
                if task.data() != b"silent" {
                    self.update(&task.task_id, pb::TaskState::TaskStarting, None)
                        .await;
                    self.update(&task.task_id, pb::TaskState::TaskRunning, Some("up"))
                        .await;
                }
            }
            Event::Kill => {
                let task = event.kill.unwrap().task_id;
                self.update(&task, pb::TaskState::TaskKilled, Some("killed by executor"))
                    .await;
            }
            Event::Acknowledged => {
                let ack = event.acknowledged.unwrap();
                self.ledger.acknowledged(&ack.task_id, &ack.uuid);
                self.tell_ledger();
            }
            Event::Message => {
                let data = event.message.unwrap().data;
                self.on_message(&String::from_utf8(data).unwrap()).await;
            }
            Event::Shutdown if !self.deaf => {
                for task in self.live.clone() {
                    let words = Some("executor shutting down");
                    self.update(&task, pb::TaskState::TaskKilled, words).await;
                }
                std::process::exit(0);
            }
            _ => {}
        }
    }

    async fn on_message(&mut self, text: &str) {
        let words: Vec<_> = text.split(' ').collect();
        match words.as_slice() {
            ["echo"] => {
                let call = pb::executor::Call {
                    r#type: Some(Type::Message as i32),
                    message: Some(pb::executor::call::Message {
                        data: b"echoed".to_vec(),
                    }),
                    ..Default::default()
                };
                self.handle.call(call).await.unwrap();
            }
            ["exit", code] => std::process::exit(code.parse().unwrap()),
            ["update", task, state] => {
                let task = pb::TaskId {
                    value: (*task).to_owned(),
                };
                let state = pb::TaskState::from_str_name(state).unwrap();
                self.update(&task, state, None).await;
            }
            ["fork"] => {
                // `setsid` makes a session of its own, the trap leaves only SIGKILL.
                let forked = std::process::Command::new("setsid")
                    .args([
                        "sh",
                        "-c",
                        "trap '' TERM INT HUP; while :; do sleep 1; done",
                    ])
                    .process_group(0)
                    .spawn()
                    .unwrap();
                self.forked.push(forked);
                self.on_echo().await;
            }
            ["leak", mib] => {
                let mib: usize = mib.parse().unwrap();
                for _ in 0..mib {
                    // Written to, so that it is really there.
                    self.leaked.push(vec![1; 1 << 20]);
                }
                self.on_echo().await;
            }
            ["deaf"] => {
                self.deaf = true;
                self.on_echo().await;
            }
            ["gone"] => {
                self.on_echo().await;
                self.handle.shutdown();
                std::future::pending::<()>().await;
            }
            _ => eprintln!("not understood: {text}"),
        }
    }

    async fn on_echo(&mut self) {
        Box::pin(self.on_message("echo")).await;
    }

    async fn update(&mut self, task: &pb::TaskId, state: pb::TaskState, message: Option<&str>) {
        let mut update = new_update(task.clone(), state);
        update.status.message = message.map(str::to_owned);
        self.ledger.sent(update.clone());
        self.tell_ledger();
        self.send(update).await;
    }

    async fn send(&self, update: Update) {
        let call = pb::executor::Call {
            r#type: Some(Type::Update as i32),
            update: Some(update),
            ..Default::default()
        };
        if let Err(error) = self.handle.call(call).await {
            eprintln!("an update waits for the agent: {error}");
        }
    }

    fn tell_ledger(&self) {
        let (tasks, updates) = self.ledger.unacknowledged();
        self.handle.set_unacknowledged(tasks, updates);
    }
}
