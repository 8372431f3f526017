//! Connects the state machine ([`crate::core`]) to the Mesos agent, to the node half and to the
//! machine: a loop that turns what happens into events and carries out effects.

mod replace;
mod revise;
mod runtime;
pub mod startup;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesos::executor::{ExecutorConfig, ExecutorEvent, ExecutorHandle};
use mesos::pb;
use seam::message::{ToExecutor, ToFramework};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

use crate::cgroup::{self, CgroupError};
use crate::core::task::TaskId;
use crate::core::{Core, Effect, Event, HandoverError, Millis, NodeState, PodLimits};
use crate::layout::Paths;
use crate::payload::Payload;
use crate::report::{NodeCommand, NodeEvent};
use crate::supervise::Backoff;
use revise::Fetched;
use runtime::{Prepared, Runtime};

pub use replace::{CHECK_HANDOVER, check_handover, resume_bytes};

/// How often time is told to the state machine.
const TICK: Duration = Duration::from_secs(1);
/// How often ending pods' cgroups are looked at, while there are such.
const EMPTY_EVERY: Duration = Duration::from_millis(100);
/// How often memory is let go of that is not needed while nothing much happens.
const SLIM_EVERY: Duration = Duration::from_secs(60);
/// What the node half may have to say before the loop has time for it.
const NODE_EVENTS: usize = 256;
/// Calls to the agent that may be under way at once.
const CALLS: usize = 16;

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// Directories.
    pub paths: Paths,
    /// The state of the predecessor that this executor replaced by `exec`.
    pub resume: Option<Vec<u8>>,
}

/// Why the executor could not run.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The agent's environment or the connection's configuration.
    #[error("connecting to the Mesos agent: {0}")]
    Config(#[from] mesos::http::ConfigError),
    /// The predecessor's state.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// A system call.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// What the loop's own tasks tell it.
enum Internal {
    /// Everything is ready for the node half.
    Prepared(Box<Prepared>),
    /// The guard could be started anew.
    Guard(OwnedFd),
    /// The guard is gone.
    GuardGone,
    /// Every process of the node has ended.
    NodeStopped,
    /// A delayed start of the node half is due.
    StartNode(Box<seam::node::NodeConfig>),
    /// What a revision needs is here, or why it is not.
    Fetched(Result<Fetched, String>),
}

struct Loop {
    core: Core,
    paths: Paths,
    handle: ExecutorHandle,
    grace: Duration,
    container_id: Option<String>,
    runtime: Option<Runtime>,
    starts: Backoff,
    started: bool,
    limits: Option<PodLimits>,
    limits_due: bool,
    limits_complained: bool,
    emptying: HashSet<String>,
    calls: Arc<Semaphore>,
    /// Each call that is under way, or waits for its turn, holds a clone.
    under_way: Arc<()>,
    /// Of the node half that is current; an earlier one speaks into the void.
    node_events: mpsc::Sender<NodeEvent>,
    node_rx: mpsc::Receiver<NodeEvent>,
    reports: mpsc::Sender<ToFramework>,
    internal: mpsc::Sender<Internal>,
    subscribed: bool,
    replacement_wanted: bool,
    /// A program for the executor that was fetched, and is not in its place yet.
    program: Option<PathBuf>,
    /// Keeps what the node was before, and what it will be, from being removed.
    payloads: Vec<Payload>,
    exit: Option<bool>,
}

/// Runs the executor to its end. `Ok(true)`: the node could not be brought up.
pub async fn run(options: Options) -> Result<bool, LoopError> {
    let io = |action| move |source| LoopError::Io { action, source };
    let swept = crate::sweep::sweep(&options.paths.manifests());
    for list in &swept.cleaned {
        tracing::info!("cleaned up after an earlier executor: {}", list.display());
    }
    for what in &swept.remaining {
        tracing::warn!("an earlier executor left what cannot be removed: {what}");
    }
    let mut config = ExecutorConfig::from_env(mesos::http::ClientConfig::default())?;
    let grace = config.shutdown_grace_period;
    let core = match &options.resume {
        Some(bytes) => Core::resume(rand::random(), bytes)?,
        None => Core::new(rand::random()),
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(io("handling SIGTERM"))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(io("handling SIGHUP"))?;
    // Before the first SUBSCRIBE can go out: tasks that it does not list are TASK_DROPPED.
    let (unacknowledged_tasks, unacknowledged_updates) = core.unacknowledged();
    config.unacknowledged = mesos::pb::executor::call::Subscribe {
        unacknowledged_tasks,
        unacknowledged_updates,
    };
    let (handle, mut agent) = mesos::executor::spawn(config)?;
    let (node_events, node_rx) = mpsc::channel(NODE_EVENTS);
    let (reports, mut reports_rx) = mpsc::channel(64);
    let (internal, mut internal_rx) = mpsc::channel(16);
    let mut state = Loop {
        core,
        paths: options.paths,
        handle,
        grace,
        container_id: None,
        runtime: None,
        starts: Backoff::default(),
        started: false,
        limits: None,
        limits_due: false,
        limits_complained: false,
        emptying: HashSet::new(),
        calls: Arc::new(Semaphore::new(CALLS)),
        under_way: Arc::new(()),
        node_events,
        node_rx,
        reports,
        internal,
        subscribed: false,
        replacement_wanted: false,
        program: None,
        payloads: Vec::new(),
        exit: None,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut slim = tokio::time::interval(SLIM_EVERY);
    slim.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    slim.reset();
    let mut agent_gone = false;
    loop {
        tokio::select! {
            event = agent.recv(), if !agent_gone => match event {
                Some(event) => state.agent(event),
                None => {
                    agent_gone = true;
                    state.event(Event::Shutdown);
                }
            },
            Some(event) = state.node_rx.recv() => state.event(Event::Node(event)),
            Some(report) = reports_rx.recv() => state.tell(&report),
            Some(internal) = internal_rx.recv() => state.internal(internal),
            _ = tick.tick() => {
                state.follow_grant();
                state.apply_limits();
                state.event(Event::Tick);
            }
            _ = slim.tick() => crate::slim::slim(),
            () = tokio::time::sleep(EMPTY_EVERY), if !state.emptying.is_empty() => state.look_for_empty(),
            _ = received(&mut terminate) => {
                tracing::info!("SIGTERM: ending the node");
                state.event(Event::Shutdown);
            }
            _ = received(&mut hang_up) => {
                tracing::info!("SIGHUP: replacing the executor as soon as that is safe");
                state.replacement_wanted = true;
            }
        }
        if let Some(failed) = state.exit {
            return Ok(failed);
        }
        state.replace_when_safe();
    }
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Milliseconds since boot, suspended time included: goes on over `exec`.
fn now() -> Millis {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Millis(seconds * 1000 + nanos / 1_000_000)
}

impl Loop {
    fn event(&mut self, event: Event) {
        let effects = self.core.handle(now(), event);
        if effects.iter().any(|e| matches!(e, Effect::Send(_))) {
            self.hand_unacknowledged();
        }
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn hand_unacknowledged(&self) {
        let (tasks, updates) = self.core.unacknowledged();
        self.handle.set_unacknowledged(tasks, updates);
    }

    fn agent(&mut self, event: ExecutorEvent) {
        match event {
            ExecutorEvent::Event(event) => self.agent_event(*event),
            ExecutorEvent::Disconnected { error } => {
                self.subscribed = false;
                tracing::warn!("the agent is away: {error}");
                self.event(Event::Disconnected);
            }
            ExecutorEvent::RecoveryTimeout => {
                self.subscribed = false;
                tracing::error!("the agent has given this executor up");
                self.event(Event::Shutdown);
            }
        }
    }

    fn agent_event(&mut self, event: pb::executor::Event) {
        use pb::executor::event::Type;
        match event.r#type() {
            Type::Subscribed => {
                if let Some(subscribed) = event.subscribed {
                    self.container_id = subscribed.container_id.map(|id| id.value);
                }
                tracing::info!(container = self.container_id, "subscribed");
                self.subscribed = true;
                self.event(Event::Subscribed);
                self.hand_unacknowledged();
                self.resume_node();
            }
            Type::Launch => {
                if let Some(launch) = event.launch {
                    self.launch(launch.task);
                }
            }
            Type::LaunchGroup => {
                for task in event
                    .launch_group
                    .map(|group| group.task_group.tasks)
                    .unwrap_or_default()
                {
                    self.launch(task);
                }
            }
            Type::Kill => {
                if let Some(kill) = event.kill {
                    let grace = kill
                        .kill_policy
                        .and_then(|policy| policy.grace_period)
                        .and_then(|grace| u64::try_from(grace.nanoseconds).ok())
                        .map(Duration::from_nanos);
                    tracing::info!(task = kill.task_id.value, "KILL");
                    self.event(Event::Kill {
                        task: TaskId(kill.task_id.value),
                        grace,
                    });
                }
            }
            Type::Acknowledged => {
                if let Some(acknowledged) = event.acknowledged {
                    self.event(Event::Acknowledged {
                        task: TaskId(acknowledged.task_id.value),
                        uuid: acknowledged.uuid,
                    });
                    self.hand_unacknowledged();
                }
            }
            Type::Message => {
                let data = event
                    .message
                    .map(|message| message.data)
                    .unwrap_or_default();
                match serde_json::from_slice(&data) {
                    Ok(ToExecutor::ApiServers { servers }) => {
                        self.event(Event::ApiServers(servers));
                    }
                    Ok(ToExecutor::Revise { digest, revision }) => {
                        self.event(Event::Revise { digest, revision });
                    }
                    // Of a newer framework; messages are never needed.
                    Err(error) => tracing::warn!("a message that cannot be read: {error}"),
                }
            }
            Type::Shutdown => {
                tracing::info!("the agent says SHUTDOWN");
                self.event(Event::Shutdown);
            }
            Type::Error => {
                let message = event.error.map(|error| error.message).unwrap_or_default();
                tracing::error!("the agent refuses this executor: {message}");
                self.event(Event::Shutdown);
            }
            Type::Heartbeat | Type::Unknown => {}
        }
    }

    fn launch(&mut self, task: pb::TaskInfo) {
        tracing::info!(task = task.task_id.value, name = task.name, "LAUNCH");
        self.event(Event::Launch(Box::new(task)));
    }

    fn internal(&mut self, internal: Internal) {
        match internal {
            Internal::Prepared(prepared) => self.prepared(*prepared),
            Internal::Guard(fd) => self.watch_guard(fd),
            Internal::GuardGone => self.guard_gone(),
            Internal::NodeStopped => self.event(Event::NodeStopped),
            Internal::StartNode(config) => self.start_node(*config),
            Internal::Fetched(outcome) => self.revision_fetched(outcome),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(update) => {
                let state = update.status.state().as_str_name();
                tracing::info!(
                    task = update.status.task_id.value,
                    state,
                    message = update.status.message,
                    "update"
                );
                self.call(pb::executor::Call {
                    r#type: Some(pb::executor::call::Type::Update as i32),
                    update: Some(*update),
                    ..Default::default()
                });
            }
            Effect::StartNode(config) => {
                if std::mem::replace(&mut self.started, true) {
                    let delay = self.starts.next(Duration::ZERO, rand::random());
                    let internal = self.internal.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        let _ = internal.send(Internal::StartNode(config)).await;
                    });
                } else {
                    self.start_node(*config);
                }
            }
            Effect::Fetch(revision) => self.fetch_revision(*revision),
            Effect::ReplaceExecutor => self.replacement_wanted = true,
            Effect::RestartNode(config) => self.restart_node(*config),
            Effect::ForgetFormer => self.forget_former(),
            Effect::Limits(limits) => {
                self.limits = Some(limits);
                self.limits_due = true;
                self.apply_limits();
            }
            Effect::RemovePod {
                pod,
                removal,
                grace,
            } => {
                tracing::info!(
                    pod = pod.name,
                    namespace = pod.namespace,
                    ?removal,
                    "ending the pod"
                );
                self.command(NodeCommand::RemovePod {
                    pod,
                    removal,
                    grace,
                });
            }
            Effect::AwaitEmpty { uid } => {
                self.emptying.insert(uid);
            }
            Effect::ApiServers(servers) => self.command(NodeCommand::ApiServers(servers)),
            Effect::Tell(message) => self.tell(&message),
            Effect::StopNode { give_up } => self.stop_node(give_up),
            Effect::Exit { failed } => self.exit = Some(failed),
        }
    }

    fn call(&self, call: pb::executor::Call) {
        let handle = self.handle.clone();
        let calls = Arc::clone(&self.calls);
        let under_way = Arc::clone(&self.under_way);
        tokio::spawn(async move {
            let _under_way = under_way;
            let Ok(_permit) = calls.acquire().await else {
                return;
            };
            if let Err(error) = handle.call(call).await {
                // An update is sent again; a message need not arrive.
                tracing::warn!("calling the agent: {error}");
            }
        });
    }

    fn tell(&self, message: &ToFramework) {
        match serde_json::to_vec(message) {
            Ok(data) => self.call(pb::executor::Call {
                r#type: Some(pb::executor::call::Type::Message as i32),
                message: Some(pb::executor::call::Message { data }),
                ..Default::default()
            }),
            Err(error) => tracing::error!("a message that has no JSON form: {error}"),
        }
    }

    fn command(&self, command: NodeCommand) {
        let Some(commands) = self.runtime.as_ref().and_then(|r| r.commands.as_ref()) else {
            return;
        };
        if commands.try_send(command).is_err() {
            // Deletions are repeated; addresses are also in the API.
            tracing::warn!("the node half is busy; a command is dropped");
        }
    }

    fn look_for_empty(&mut self) {
        let setup = self.runtime.as_ref().map(|runtime| &runtime.cgroups);
        let empty: Vec<String> = self
            .emptying
            .iter()
            .filter(|uid| setup.is_none_or(|setup| setup.pod_is_empty(uid)))
            .cloned()
            .collect();
        for uid in empty {
            self.emptying.remove(&uid);
            self.event(Event::Emptied { uid });
        }
    }

    fn apply_limits(&mut self) {
        let (Some(limits), Some(runtime), true) = (self.limits, &self.runtime, self.limits_due)
        else {
            return;
        };
        match cgroup::apply(&runtime.cgroups, &limits) {
            Ok(()) => {
                self.limits_due = false;
                self.limits_complained = false;
            }
            Err(error) => self.complain(&error),
        }
    }

    /// On cgroup v2: the CPU that Mesos lets the container have.
    fn follow_grant(&mut self) {
        let mirror = self.runtime.as_mut().and_then(|r| r.mirror.as_mut());
        if let Some(Err(error)) = mirror.map(cgroup::Mirror::update) {
            self.complain(&error);
        }
    }

    fn complain(&mut self, error: &CgroupError) {
        // Lowering may take until the kernel has reclaimed; it is tried again each tick.
        if !error.retryable() && !std::mem::replace(&mut self.limits_complained, true) {
            tracing::warn!("limits of the node: {error}");
        }
    }

    /// After `exec` the node half starts again and takes over what runs.
    fn resume_node(&mut self) {
        if self.started || self.core.node_state() != NodeState::Up {
            return;
        }
        if let Some(config) = self.core.node_config().cloned() {
            self.started = true;
            self.start_node(config);
        }
    }
}
