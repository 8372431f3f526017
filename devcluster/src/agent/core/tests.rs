//! The core's rules, without any I/O: what each event leads to, in order.

use super::*;
use crate::agent::container::{Cause, ContainerId, Termination};
use model::StreamId;
use pb::executor::call::Subscribe;
use pb::executor::event::Type as Told;

struct Fixture {
    core: Core,
    now: Time,
    streams: u64,
}

const FRAMEWORK: &str = "F";

fn framework() -> FrameworkId {
    FRAMEWORK.into()
}

fn scalar(name: &str, value: f64) -> pb::Resource {
    pb::Resource {
        name: name.into(),
        scalar: Some(pb::value::Scalar { value }),
        ..Default::default()
    }
}

fn config() -> CoreConfig {
    CoreConfig {
        layout: Layout::below(std::path::Path::new("/w")),
        ip: "10.0.0.1".parse().unwrap(),
        registration_timeout: Duration::from_secs(60),
        reregistration_timeout: Duration::from_secs(2),
        shutdown_grace_period: Duration::from_secs(5),
        command_executor: vec!["/bin/k8sm".into(), "command-executor".into()],
    }
}

fn counter() -> Box<dyn FnMut() -> uuid::Uuid + Send> {
    let mut next = 0u128;
    Box::new(move || {
        next += 1;
        uuid::Builder::from_u128(next)
            .with_version(uuid::Version::Random)
            .into_uuid()
    })
}

impl Fixture {
    fn new() -> Self {
        let info = pb::AgentInfo {
            hostname: "h".into(),
            ..Default::default()
        };
        let mut fixture = Self {
            core: Core::new(config(), info, counter()),
            now: Time::from_secs(1000),
            streams: 0,
        };
        fixture.register(&[]);
        fixture
    }

    fn register(&mut self, reconcile: &[&str]) {
        let registered = protocol::Registered {
            agent_id: AgentId::from("S0").to_pb(),
            reconcile: reconcile
                .iter()
                .map(|task| protocol::ReconcileTask {
                    framework_id: framework().to_pb(),
                    task_id: TaskId::from(*task).to_pb(),
                    partition_aware: true,
                })
                .collect(),
            ..Default::default()
        };
        self.master(to_agent::Message::Registered(registered));
    }

    fn master(&mut self, message: to_agent::Message) {
        self.core.from_master(self.now, message);
    }

    fn run(&mut self, task: &str, executor: Option<&str>, launch_executor: bool) {
        let executor = executor.map(|id| pb::ExecutorInfo {
            executor_id: ExecutorId::from(id).to_pb(),
            framework_id: Some(framework().to_pb()),
            resources: vec![scalar("cpus", 0.1), scalar("mem", 64.0)],
            ..Default::default()
        });
        let command = executor.is_none().then(|| pb::CommandInfo {
            value: Some("sleep 1".into()),
            ..Default::default()
        });
        let partition_aware = pb::framework_info::Capability {
            r#type: Some(pb::framework_info::capability::Type::PartitionAware as i32),
        };
        self.master(to_agent::Message::RunTask(protocol::RunTask {
            framework: pb::FrameworkInfo {
                id: Some(framework().to_pb()),
                checkpoint: Some(true),
                capabilities: vec![partition_aware],
                ..Default::default()
            },
            task: pb::TaskInfo {
                task_id: TaskId::from(task).to_pb(),
                executor,
                command,
                resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
                ..Default::default()
            },
            launch_executor,
        }));
    }

    fn subscribe(&mut self, executor: &str, known: &[&str]) -> Result<(), Refusal> {
        self.streams += 1;
        let call = Subscribe {
            unacknowledged_tasks: known
                .iter()
                .map(|id| pb::TaskInfo {
                    task_id: TaskId::from(*id).to_pb(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let stream = StreamId(self.streams);
        self.core
            .subscribe(self.now, &framework(), &executor.into(), stream, &call)
    }

    fn update(&mut self, executor: &str, task: &str, state: pb::TaskState, uuid: u8) {
        let status = pb::TaskStatus {
            task_id: TaskId::from(task).to_pb(),
            state: state as i32,
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        };
        self.core
            .update(self.now, &framework(), &executor.into(), status)
            .unwrap();
    }

    fn acknowledge(&mut self, task: &str, uuid: Vec<u8>) {
        self.master(to_agent::Message::Acknowledge(protocol::Acknowledge {
            framework_id: framework().to_pb(),
            task_id: TaskId::from(task).to_pb(),
            uuid,
        }));
    }

    fn container(&self, executor: &str) -> ContainerId {
        self.core.frameworks[&framework()].executors[&ExecutorId::from(executor)]
            .container
            .clone()
    }

    /// The effects so far, one line each. Updates of containers succeed at once.
    fn seen(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            let effects = self.core.take_effects();
            if effects.is_empty() {
                return out;
            }
            for effect in effects {
                if let Some(line) = self.line(effect) {
                    out.push(line);
                }
            }
        }
    }

    fn line(&mut self, effect: Effect) -> Option<String> {
        Some(match effect {
            Effect::Send(message) => match *message {
                from_agent::Message::OperationApplied(applied) => {
                    format!("operation {} is done", applied.serial)
                }
                from_agent::Message::Update(u) => format!(
                    "send {} {} {:?}{}",
                    u.status.task_id.value,
                    u.status.state().as_str_name(),
                    u.status.message(),
                    u.status.reason.map_or_else(String::new, |_| format!(
                        " {}",
                        u.status.reason().as_str_name()
                    )),
                ),
                from_agent::Message::ExitedExecutor(e) => {
                    format!("send exited {} {}", e.executor_id.value, e.status)
                }
                from_agent::Message::Pong(_) => "send pong".into(),
                from_agent::Message::ExecutorMessage(_) => "send message".into(),
                from_agent::Message::Unregister(_) => "send unregister".into(),
            },
            Effect::Tell(stream, event) => {
                let what = match event.r#type() {
                    Told::Launch => event.launch.unwrap().task.task_id.value,
                    Told::Kill => event.kill.unwrap().task_id.value,
                    Told::Acknowledged => {
                        let ack = event.acknowledged.unwrap();
                        format!("{} {}", ack.task_id.value, ack.uuid[0])
                    }
                    _ => String::new(),
                };
                let told = format!("tell {} {:?} {what}", stream.0, event_name(event.r#type));
                told.trim_end().to_owned()
            }
            Effect::Close(stream) => format!("close {}", stream.0),
            Effect::Remember(record) => match *record {
                Record::Agent(_) => "remember agent".into(),
                Record::Resources(list) => format!("remember {} resources", list.len()),
                Record::Framework(_) => "remember framework".into(),
                Record::Executor { info, .. } => {
                    format!("remember executor {}", info.executor_id.value)
                }
                Record::Task { task, .. } => format!("remember task {}", task.task_id.value),
                Record::Updates {
                    task,
                    pending,
                    done,
                    ..
                } => format!(
                    "remember updates of {task}: {} wait, done: {done}",
                    pending.len()
                ),
                Record::ExecutorDone(run) => format!("remember the end of {}", run.executor),
            },
            Effect::Launch(launch) => format!("launch {}", launch.executor.executor_id.value),
            Effect::Update {
                container,
                grant,
                then,
                ..
            } => {
                let line = format!("grant {:?} cpus {:?} mem", grant.cpus, grant.mem);
                self.core.updated(&container, then, Ok(()));
                line
            }
            Effect::CreateVolume(volume) => format!("make volume {}/{}", volume.role, volume.id),
            Effect::RemoveVolume(volume) => format!("remove volume {}/{}", volume.role, volume.id),
            Effect::Destroy(_) => "destroy".into(),
            Effect::Abandon(run) => format!("abandon {}", run.executor),
            Effect::Exit(why) => format!("exit {why}"),
        })
    }

    fn running(executor: &str) -> Self {
        let mut f = Self::new();
        f.run("t1", Some(executor), true);
        let container = f.container(executor);
        f.core.launched(&container, 42);
        f.subscribe(executor, &[]).unwrap();
        // Delivered now.
        f.seen();
        f.update(executor, "t1", pb::TaskState::TaskRunning, 1);
        f.seen();
        f
    }

    fn ended(&mut self, container: &ContainerId, status: Option<i32>, cause: Option<Cause>) {
        let termination = Termination { status, cause };
        self.core.terminated(self.now, container, &termination);
    }
}

fn event_name(kind: Option<i32>) -> Told {
    kind.and_then(|k| Told::try_from(k).ok())
        .unwrap_or(Told::Unknown)
}

#[test]
fn a_task_goes_from_its_launch_to_its_acknowledged_end() {
    let mut f = Fixture::new();
    assert_eq!(f.seen(), ["remember agent"]);
    f.run("t1", Some("e1"), true);
    // Remembered before anything is started.
    assert_eq!(
        f.seen(),
        ["remember framework", "remember executor e1", "launch e1"]
    );
    let container = f.container("e1");
    f.core.launched(&container, 42);
    assert_eq!(f.seen(), [""; 0]);
    f.subscribe("e1", &[]).unwrap();
    assert_eq!(
        f.seen(),
        [
            "tell 1 Subscribed",
            "grant Some(0.2) cpus Some(96.0) mem",
            "remember task t1",
            "tell 1 Launch t1",
        ]
    );
    f.update("e1", "t1", pb::TaskState::TaskRunning, 1);
    // On disk before the executor is told, and before the master is.
    assert_eq!(
        f.seen(),
        [
            "remember updates of t1: 1 wait, done: false",
            "send t1 TASK_RUNNING \"\"",
            "tell 1 Acknowledged t1 1",
        ]
    );
    f.acknowledge("t1", vec![1; 16]);
    assert_eq!(f.seen(), ["remember updates of t1: 0 wait, done: false"]);
    f.update("e1", "t1", pb::TaskState::TaskFinished, 2);
    f.seen();
    f.acknowledge("t1", vec![2; 16]);
    assert_eq!(f.seen(), ["remember updates of t1: 0 wait, done: true"]);
    f.ended(&container, Some(0), None);
    assert_eq!(
        f.seen(),
        [
            "close 1",
            "send exited e1 0",
            "remember the end of e1",
            "abandon e1"
        ]
    );
    assert!(f.core.frameworks.is_empty());
}

#[test]
fn an_executor_is_reported_before_its_tasks_and_stays_until_they_are_acknowledged() {
    let mut f = Fixture::running("e1");
    f.run("t2", Some("e1"), false);
    f.seen();
    let container = f.container("e1");
    f.ended(&container, Some(768), None);
    let seen = f.seen();
    assert_eq!(seen[..2], ["close 1", "send exited e1 768"]);
    // The first update of `t1` still waits, so its end waits behind it.
    assert!(seen.contains(
        &"send t2 TASK_FAILED \"Executor terminated\" REASON_EXECUTOR_TERMINATED".to_owned()
    ));
    assert!(!seen.iter().any(|l| l.starts_with("send t1")));
    f.acknowledge("t1", vec![1; 16]);
    assert!(
        f.seen()
            .iter()
            .any(|l| l.starts_with("send t1 TASK_FAILED"))
    );
}

#[test]
fn out_of_memory_names_the_limit() {
    let mut f = Fixture::running("e1");
    f.acknowledge("t1", vec![1; 16]);
    f.seen();
    let container = f.container("e1");
    let cause = Cause::Memory {
        message: "Memory limit exceeded".into(),
        limit_mib: 96.0,
    };
    f.ended(&container, Some(9), Some(cause));
    assert!(
        f.seen().contains(
            &"send t1 TASK_FAILED \"Memory limit exceeded\" REASON_CONTAINER_LIMITATION_MEMORY"
                .to_owned()
        )
    );
}

#[test]
fn a_kill_before_delivery_ends_the_task_and_then_the_unused_executor() {
    let mut f = Fixture::new();
    f.run("t1", Some("e1"), true);
    f.seen();
    f.master(to_agent::Message::KillTask(protocol::KillTask {
        framework_id: framework().to_pb(),
        task_id: TaskId::from("t1").to_pb(),
        kill_policy: None,
    }));
    assert_eq!(
        f.seen()[2..],
        [
            "send t1 TASK_KILLED \"Killed before delivery to the executor\" REASON_TASK_KILLED_DURING_LAUNCH"
        ]
    );
    let container = f.container("e1");
    f.core.launched(&container, 42);
    f.subscribe("e1", &[]).unwrap();
    assert_eq!(f.seen(), ["tell 1 Shutdown"]);
    // It has its grace, then it is ended.
    f.now += Duration::from_secs(5);
    f.core.tick(f.now);
    assert_eq!(f.seen(), ["destroy"]);
}

#[test]
fn an_executor_that_does_not_register_is_ended_and_its_tasks_say_why() {
    let mut f = Fixture::new();
    f.run("t1", Some("e1"), true);
    f.seen();
    assert_eq!(f.core.deadline(), Some(f.now + Duration::from_secs(60)));
    f.now += Duration::from_secs(60);
    f.core.tick(f.now);
    assert_eq!(f.seen(), ["destroy"]);
    let container = f.container("e1");
    f.ended(&container, Some(9), None);
    assert!(f.seen().contains(
        &"send t1 TASK_FAILED \"Executor did not register within 1mins\" REASON_EXECUTOR_REGISTRATION_TIMEOUT"
            .to_owned()
    ));
}

#[test]
fn a_second_subscription_ends_the_first_and_unknown_tasks_are_dropped() {
    let mut f = Fixture::running("e1");
    f.run("t2", Some("e1"), false);
    f.seen();
    // `t2` was sent and never heard of, and the executor does not list it.
    f.subscribe("e1", &[]).unwrap();
    let seen = f.seen();
    assert_eq!(seen[0], "close 1");
    assert!(
        seen.contains(
            &"send t2 TASK_DROPPED \"Task launched during agent restart\" REASON_AGENT_RESTARTED"
                .to_owned()
        )
    );
    assert!(seen.contains(&"tell 2 Subscribed".to_owned()));
    // The end of the first stream is no event in the executor's life.
    f.core.stream_closed(StreamId(1));
    f.core.stream_closed(StreamId(2));
    assert_eq!(f.seen(), [""; 0]);
}

#[test]
fn what_master_and_agent_disagree_on_drops_the_task_with_the_reason() {
    let mut f = Fixture::running("e1");
    f.run("t2", Some("e1"), true);
    let words = "Master wants to launch executor, but one already exists";
    assert!(f.seen().iter().any(|l| l.contains(words)));
    f.run("t3", Some("e2"), false);
    let words = "No executor is expected to launch and there is none running";
    assert!(f.seen().iter().any(|l| l.contains(words)));
    f.run("c1", None, true);
    f.seen();
    f.run("c1", None, true);
    let words = "Cannot reuse an already existing executor for a command task";
    assert!(f.seen().iter().any(|l| l.contains(words)));
}

#[test]
fn an_executor_that_ended_before_it_was_launched_again_is_reported_again() {
    let mut f = Fixture::running("e1");
    let container = f.container("e1");
    f.ended(&container, Some(0), None);
    f.seen();
    // The first update of `t1` still waits, so the executor is remembered.
    f.run("t2", Some("e1"), true);
    let seen = f.seen();
    assert!(
        seen.iter().any(|l| l.starts_with("send t2 TASK_DROPPED")),
        "{seen:?}"
    );
    assert!(seen.contains(&"send exited e1 -1".to_owned()), "{seen:?}");
}

#[test]
fn calls_of_strangers_are_refused_in_mesos_words() {
    let mut f = Fixture::running("e1");
    assert_eq!(f.subscribe("e9", &[]), Err(Refusal::NoExecutor));
    let unknown = f.core.check_caller(&"G".into(), &"e1".into());
    assert_eq!(unknown, Err(Refusal::NoFramework));
    f.run("t2", Some("e2"), true);
    let early = f.core.message(&framework(), &"e2".into(), Vec::new());
    assert_eq!(early.unwrap_err().to_string(), "Executor is not subscribed");
}

#[test]
fn tasks_that_only_the_master_knows_are_dropped_at_registration() {
    let mut f = Fixture::running("e1");
    f.core.disconnected();
    f.register(&["t1", "lost"]);
    let seen = f.seen();
    // What waited is sent again at once.
    assert_eq!(seen[0], "send t1 TASK_RUNNING \"\"");
    assert!(
        seen[1].starts_with("send lost TASK_DROPPED \"Task is unknown to the agent\""),
        "{seen:?}"
    );
}

#[test]
fn a_framework_that_is_shut_down_leaves_nothing_and_says_nothing() {
    let mut f = Fixture::running("e1");
    f.master(to_agent::Message::ShutdownFramework(
        protocol::ShutdownFramework {
            framework_id: framework().to_pb(),
        },
    ));
    assert_eq!(f.seen(), ["tell 1 Shutdown"]);
    f.update("e1", "t1", pb::TaskState::TaskKilled, 2);
    assert_eq!(f.seen(), [""; 0]);
    let container = f.container("e1");
    f.ended(&container, Some(0), None);
    assert_eq!(
        f.seen(),
        [
            "close 1",
            "send exited e1 0",
            "remember the end of e1",
            "abandon e1"
        ]
    );
    assert!(f.core.frameworks.is_empty());
}

fn recovered(state: pb::TaskState) -> Fixture {
    let status = pb::TaskStatus {
        task_id: TaskId::from("t1").to_pb(),
        state: state as i32,
        source: Some(pb::task_status::Source::Executor as i32),
        uuid: Some(vec![1; 16]),
        ..Default::default()
    };
    let task = pb::Task {
        task_id: TaskId::from("t1").to_pb(),
        state: pb::TaskState::TaskStaging as i32,
        statuses: vec![status.clone()],
        ..Default::default()
    };
    let recovered = RecoveredState {
        resources: None,
        info: pb::AgentInfo {
            id: Some(AgentId::from("S0").to_pb()),
            ..Default::default()
        },
        frameworks: vec![(
            pb::FrameworkInfo {
                id: Some(framework().to_pb()),
                checkpoint: Some(true),
                ..Default::default()
            },
            vec![RecoveredExecutor {
                info: pb::ExecutorInfo {
                    executor_id: ExecutorId::from("e1").to_pb(),
                    ..Default::default()
                },
                container: "c1".into(),
                command_task: false,
                process: None,
                tasks: vec![RecoveredTask {
                    task,
                    pending: vec![status],
                    acknowledged: Vec::new(),
                    done: false,
                }],
            }],
        )],
    };
    let now = Time::from_secs(1000);
    Fixture {
        core: Core::recover(config(), recovered, now, counter()),
        now,
        streams: 0,
    }
}

#[test]
fn after_a_restart_executors_have_a_short_while_to_come_back() {
    let mut f = recovered(pb::TaskState::TaskRunning);
    assert!(f.core.is_recovering());
    let early = f.core.check_caller(&framework(), &"e1".into());
    assert_eq!(early, Err(Refusal::Recovering));
    f.subscribe("e1", &[]).unwrap();
    assert_eq!(f.seen()[0], "tell 1 Subscribed");
    f.now += Duration::from_secs(2);
    f.core.tick(f.now);
    assert!(!f.core.is_recovering());
    assert_eq!(f.seen(), [""; 0]);
    // The update that waited goes out with the registration.
    f.register(&[]);
    assert_eq!(f.seen(), ["send t1 TASK_RUNNING \"\""]);
    let introduction = f.core.introduce("1.12.0", true);
    assert_eq!(introduction.executors.len(), 1);
    assert_eq!(introduction.tasks[0].state(), pb::TaskState::TaskRunning);
}

#[test]
fn an_executor_that_does_not_come_back_is_ended_and_its_tasks_are_gone() {
    let mut f = recovered(pb::TaskState::TaskRunning);
    f.now += Duration::from_secs(2);
    f.core.tick(f.now);
    assert_eq!(f.seen(), ["destroy"]);
    f.register(&[]);
    f.seen();
    f.ended(&"c1".into(), Some(9), None);
    assert_eq!(f.seen()[0], "send exited e1 9");
    f.acknowledge("t1", vec![1; 16]);
    // Not PARTITION_AWARE: LOST instead of GONE.
    let seen = f.seen();
    let words = "send t1 TASK_LOST \"Executor did not reregister within 2secs\" REASON_EXECUTOR_REREGISTRATION_TIMEOUT";
    assert!(seen.contains(&words.to_owned()), "{seen:?}");
}

#[test]
fn a_draining_agent_kills_its_tasks_and_says_why_they_ended() {
    let drain = |grace: Option<i64>, mark_gone| {
        let config = pb::DrainConfig {
            max_grace_period: grace.map(|nanoseconds| pb::DurationInfo { nanoseconds }),
            mark_gone: Some(mark_gone),
        };
        to_agent::Message::Drain(protocol::Drain { config })
    };
    let last = |f: &mut Fixture| {
        f.seen()
            .into_iter()
            .rfind(|line| line.starts_with("send t1"))
    };
    let mut f = Fixture::running("e1");
    f.acknowledge("t1", vec![1; 16]);
    f.seen();
    f.master(drain(Some(3), false));
    assert_eq!(f.seen(), ["tell 1 Kill t1"]);
    f.master(drain(Some(3), false));
    assert_eq!(f.seen(), ["tell 1 Kill t1"], "it is safe to repeat");
    f.update("e1", "t1", pb::TaskState::TaskKilled, 2);
    assert_eq!(
        last(&mut f).unwrap(),
        r#"send t1 TASK_KILLED "" REASON_AGENT_DRAINING"#
    );

    // One that failed by itself says nothing of a drain.
    let mut f = Fixture::running("e1");
    f.acknowledge("t1", vec![1; 16]);
    f.master(drain(None, true));
    f.update("e1", "t1", pb::TaskState::TaskFailed, 2);
    assert_eq!(last(&mut f).unwrap(), r#"send t1 TASK_FAILED """#);
}

#[test]
fn an_agent_that_registers_again_drains_only_if_it_is_told_to_again() {
    let mut f = Fixture::running("e1");
    f.acknowledge("t1", vec![1; 16]);
    let config = pb::DrainConfig::default();
    f.master(to_agent::Message::Drain(protocol::Drain { config }));
    f.register(&[]);
    f.seen();
    f.update("e1", "t1", pb::TaskState::TaskKilled, 2);
    assert!(!f.seen().concat().contains("DRAINING"));
}
