//! The loops around the core: Kubernetes' watches and Mesos' events in, effects out.
//!
//! The order at start matters: first the election, so that two instances never act together;
//! then the framework's id, stored before it is used; then nodes and pods, so that the first
//! status update finds what it is about; only then the subscription.

mod calls;
mod mesos_loop;
mod namesakes;
mod objects;
mod rolling;
pub mod setup;
mod status;
mod tokens;
mod view;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kube::Client;
use mesos::Refusal;
use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use mesos::scheduler::{self, SchedulerConfig, SchedulerEvent};
use packaging::install::rolling::Progress;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::core::ids::Time;
use crate::core::{CoreConfig, Effect, Event, State};
use crate::kube::events::Recorder;
use crate::metrics::Metrics;
use crate::resources::Accounting;
use crate::wire::{self, FrameworkDescription, NodeSettings};
use objects::{Context, Workers};
use status::Board;
use tokens::Tokens;
use view::Viewer;

/// Events that wait for the core; watches and workers wait when it is full.
const EVENTS: usize = 8192;
/// Effects that wait for the Mesos master.
const CALLS: usize = 65_536;
/// Events that are taken in before effects are computed.
const BATCH: usize = 1024;
/// How often the bootstrap tokens are looked over.
const TOKEN_SWEEP: Duration = Duration::from_secs(30);

/// What a leading instance needs.
#[derive(Clone)]
pub struct Leader {
    /// API client.
    pub client: Client,
    /// Mesos masters.
    pub master: MasterUrl,
    /// How masters are reached.
    pub mesos_client: ClientConfig,
    /// FrameworkInfo but for the id.
    pub framework: FrameworkDescription,
    /// The framework's id, stored.
    pub framework_id: String,
    /// What node tasks carry.
    pub settings: NodeSettings,
    /// The core's choices.
    pub core: CoreConfig,
    /// `spec.schedulerName`.
    pub scheduler_name: String,
    /// How pods are counted.
    pub accounting: Accounting,
    /// Events for people.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Status page.
    pub board: Arc<Board>,
}

/// Why a leading instance stopped.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Mesos removed the framework. Going on under this id is impossible, and a new one would
    /// leave the old one's nodes behind, so an operator decides.
    #[error(
        "Mesos has removed the framework `{id}` (torn down, or away longer than its failover timeout): {message}. \
         Its tasks are killed. To begin anew: kubectl delete nodes -l k8s.mesosphere.io/managed=true; \
         kubectl -n kube-system delete configmap {config_map}; then start this program again"
    )]
    Removed {
        /// The id.
        id: String,
        /// The master's words.
        message: String,
        /// Where the id is stored.
        config_map: String,
    },
    /// Another instance subscribed with our id.
    #[error("another instance has taken the framework over: {0}")]
    TakenOver(String),
    /// The master does not accept the framework.
    #[error("the Mesos master refuses this framework: {0}")]
    Refused(mesos::Error),
    /// The client for Mesos could not be made.
    #[error("client of the Mesos master: {0}")]
    Client(#[from] mesos::http::ConfigError),
    /// A task of this process ended that never should.
    #[error("the {0} ended unexpectedly")]
    Ended(&'static str),
}

/// Times for the core: wall-clock time at the start, monotonic from then on.
#[derive(Debug, Clone, Copy)]
struct Clock {
    wall: u64,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            wall: u64::try_from(wall.as_millis()).unwrap_or(0),
            start: Instant::now(),
        }
    }

    fn now(&self) -> Time {
        Time(self.wall) + self.start.elapsed()
    }

    fn until(&self, at: Time) -> Duration {
        at.since(self.now())
    }
}

/// Runs the framework until `stop`, or until Mesos ends it. Tasks go on in both cases.
pub async fn lead(leader: Leader, stop: CancellationToken) -> Result<(), LeaderError> {
    // Whatever ends this function ends everything that it started.
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let clock = Clock::new();
    let (events, inbox) = mpsc::channel(EVENTS);
    let (tokens, known_nodes) = Tokens::new();
    let context = Context {
        client: leader.client.clone(),
        events: events.clone(),
        recorder: leader.recorder.clone(),
        tokens: tokens.clone(),
        framework_id: leader.framework_id.as_str().into(),
        metrics: leader.metrics.clone(),
    };
    let workers = Workers::spawn(&context);
    let (written, mut decisions) = mpsc::channel(64);
    tokio::spawn(crate::kube::approver::run(
        leader.client.clone(),
        known_nodes,
        written,
        stop.clone(),
    ));
    let metrics = leader.metrics.clone();
    tokio::spawn(async move {
        while let Some(written) = decisions.recv().await {
            let approved = matches!(written.decision, crate::kube::csr::Decision::Approve { .. });
            metrics.certificate(approved);
        }
    });
    // Before any node is asked: it may be that none is to be.
    let Some(order) = rolling::first(&leader.client, &leader.framework.name, &stop).await else {
        return Ok(());
    };
    let (progress, told) = tokio::sync::watch::channel(None);
    tokio::spawn(rolling::run(
        leader.client.clone(),
        leader.framework.name.clone(),
        order.clone(),
        told,
        events.clone(),
        stop.clone(),
    ));
    let mut main = Main {
        state: State::new(leader.core.clone(), rand::random(), clock.now()),
        clock,
        inbox,
        workers,
        tokens,
        client: leader.client.clone(),
        metrics: leader.metrics.clone(),
        board: leader.board.clone(),
        recorder: leader.recorder.clone(),
        poll: Arc::new(Notify::new()),
        poll_ports: Arc::new(Notify::new()),
        batch: Vec::new(),
        status_due: Instant::now(),
        sweep_due: Instant::now() + TOKEN_SWEEP,
        progress,
    };
    main.state.handle(Event::Rollout(order), clock.now());
    // Nodes before pods: a bound pod is ours if its node is.
    tokio::spawn(watch::nodes(
        leader.client.clone(),
        main.tokens.clone(),
        events.clone(),
        stop.clone(),
    ));
    main.until_listed(&stop, |event| matches!(event, Event::NodesListed(_)))
        .await?;
    let viewer = Viewer::new(
        &leader.scheduler_name,
        &leader.framework.roles,
        leader.accounting,
    );
    tokio::spawn(watch::pods(
        leader.client.clone(),
        viewer,
        events.clone(),
        stop.clone(),
    ));
    main.until_listed(&stop, |event| matches!(event, Event::PodsListed(_)))
        .await?;
    tokio::spawn(mesos_loop::poll_agents(
        leader.master.clone(),
        leader.mesos_client.clone(),
        leader.framework.roles.clone(),
        main.poll.clone(),
        events.clone(),
        stop.clone(),
    ));
    tokio::spawn(mesos_loop::poll_ports(
        leader.master.clone(),
        leader.mesos_client.clone(),
        leader.framework_id.clone(),
        main.poll_ports.clone(),
        events.clone(),
        stop.clone(),
    ));
    tokio::spawn(namesakes::run(
        leader.master.clone(),
        leader.mesos_client.clone(),
        namesakes::Ours {
            name: leader.framework.name.clone(),
            id: leader.framework_id.clone(),
        },
        leader.board.clone(),
        leader.metrics.clone(),
        stop.clone(),
    ));
    if stop.is_cancelled() {
        return Ok(());
    }
    let info = wire::framework_info(&leader.framework, &leader.framework_id);
    let config = SchedulerConfig::new(leader.master.clone(), info, leader.mesos_client.clone());
    let (handle, mesos_events) = scheduler::spawn(config)?;
    let (calls, outbox) = mpsc::channel(CALLS);
    tokio::spawn(calls::run(
        handle.clone(),
        leader.settings.clone(),
        outbox,
        events,
        leader.metrics.clone(),
    ));
    let result = main.run(mesos_events, calls, &leader, &stop).await;
    // Closes the stream; never a TEARDOWN.
    handle.shutdown();
    result
}

struct Main {
    state: State,
    clock: Clock,
    inbox: mpsc::Receiver<Event>,
    workers: Workers,
    tokens: Arc<Tokens>,
    client: Client,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    recorder: Recorder,
    poll: Arc<Notify>,
    poll_ports: Arc<Notify>,
    batch: Vec<Event>,
    status_due: Instant,
    sweep_due: Instant,
    /// How far the nodes' roll-out is.
    progress: tokio::sync::watch::Sender<Option<Progress>>,
}

impl Main {
    /// Takes events in until a listing is complete. Effects of that time wait for the subscription
    /// or concern objects only.
    async fn until_listed(
        &mut self,
        stop: &CancellationToken,
        complete: impl Fn(&Event) -> bool,
    ) -> Result<(), LeaderError> {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = self.inbox.recv() => event.ok_or(LeaderError::Ended("watch"))?,
            };
            let done = complete(&event);
            self.state.handle(event, self.clock.now());
            self.board.beat();
            if done {
                return Ok(());
            }
        }
    }

    async fn run(
        &mut self,
        mut mesos: mpsc::Receiver<SchedulerEvent>,
        calls: mpsc::Sender<Effect>,
        leader: &Leader,
        stop: &CancellationToken,
    ) -> Result<(), LeaderError> {
        loop {
            // At least once a second for the status page and the watchdog behind /healthz.
            let wait = self
                .state
                .next_wake()
                .map_or(Duration::from_secs(1), |at| self.clock.until(at))
                .min(Duration::from_secs(1));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = mesos.recv() => {
                    let event = event.ok_or(LeaderError::Ended("Mesos subscription"))?;
                    self.mesos_event(event, leader)?;
                    // What has come meanwhile belongs into the same decision.
                    for _ in 0..BATCH {
                        match mesos.try_recv() {
                            Ok(event) => self.mesos_event(event, leader)?,
                            Err(_) => break,
                        }
                    }
                }
                count = self.inbox.recv_many(&mut self.batch, BATCH) => {
                    if count == 0 {
                        return Err(LeaderError::Ended("watches"));
                    }
                    let now = self.clock.now();
                    for event in self.batch.drain(..) {
                        self.state.handle(event, now);
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            let began = Instant::now();
            let effects = self.state.step(self.clock.now());
            if !effects.is_empty() {
                self.metrics.pass(began.elapsed());
            }
            for effect in effects {
                self.dispatch(effect, &calls)?;
            }
            self.keep_status();
        }
    }

    fn dispatch(
        &mut self,
        effect: Effect,
        calls: &mpsc::Sender<Effect>,
    ) -> Result<(), LeaderError> {
        match effect {
            Effect::Accept { .. }
            | Effect::Decline { .. }
            | Effect::AnswerInverse { .. }
            | Effect::Suppress
            | Effect::Revive
            | Effect::Kill { .. }
            | Effect::Shutdown { .. }
            | Effect::Greet { .. }
            | Effect::Revise { .. }
            | Effect::Acknowledge { .. }
            | Effect::Reconcile { .. } => match calls.try_send(effect) {
                Ok(()) => Ok(()),
                // Waiting here could wait for ever, since calls' outcomes come back through this
                // loop. Whatever is lost is asked for again: a launch by its silence.
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::error!("too many calls wait for the Mesos master: one is dropped");
                    Ok(())
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    Err(LeaderError::Ended("sender of calls"))
                }
            },
            Effect::PollAgents => {
                self.poll.notify_one();
                Ok(())
            }
            Effect::PollPorts => {
                self.poll_ports.notify_one();
                Ok(())
            }
            effect => {
                if matches!(effect, Effect::Problem { .. }) {
                    self.metrics.problem();
                }
                self.workers.submit(effect);
                Ok(())
            }
        }
    }

    fn mesos_event(&mut self, event: SchedulerEvent, leader: &Leader) -> Result<(), LeaderError> {
        let now = self.clock.now();
        match event {
            SchedulerEvent::Connected { master } => {
                tracing::info!(master, "subscribed with the Mesos master");
                self.board.master(Some(master));
            }
            SchedulerEvent::Disconnected { error, retry_in } => {
                tracing::warn!(%error, ?retry_in, "no subscription with the Mesos master");
                self.board.problem(Some(error.to_string()));
                self.board.master(None);
                self.state.handle(Event::Disconnected, now);
            }
            SchedulerEvent::Fatal { error } => {
                return Err(fatal(error, &leader.framework_id, &leader.framework.name));
            }
            SchedulerEvent::Event(event) => {
                if event.subscribed.is_some() {
                    self.board.problem(None);
                }
                if let Some(event) = mesos_loop::read(*event, &self.metrics) {
                    self.state.handle(event, now);
                }
            }
        }
        Ok(())
    }

    fn keep_status(&mut self) {
        self.board.beat();
        let now = Instant::now();
        if now < self.status_due {
            return;
        }
        // Walks over everything: not at every event.
        self.status_due = now + Duration::from_secs(1);
        let summary = self.state.summary();
        self.board.show(&summary);
        self.progress.send_if_modified(|told| {
            let news = *told != summary.rolling;
            told.clone_from(&summary.rolling);
            news
        });
        status::show(&self.metrics, &self.state);
        for launch in self.state.take_launch_times() {
            let kind = if launch.node { "node" } else { "pod" };
            self.metrics.started(kind, launch.took);
        }
        self.metrics.events_dropped(self.recorder.dropped());
        self.tokens.nodes(
            self.state.node_addresses().map(|(n, ip)| (n.as_str(), ip)),
            self.state.ready_nodes().map(|n| n.as_str()),
        );
        if now >= self.sweep_due {
            self.sweep_due = now + TOKEN_SWEEP;
            let (tokens, client) = (self.tokens.clone(), self.client.clone());
            tokio::spawn(async move { tokens.sweep(&client).await });
        }
    }
}

fn fatal(error: mesos::Error, id: &str, name: &str) -> LeaderError {
    match &error {
        mesos::Error::Refused { refusal, message } => match refusal {
            Refusal::Removed => LeaderError::Removed {
                id: id.to_owned(),
                message: message.clone(),
                config_map: crate::kube::framework_id::object_name(name),
            },
            Refusal::FailedOver => LeaderError::TakenOver(message.clone()),
            Refusal::Unauthorized | Refusal::Invalid => LeaderError::Refused(error),
        },
        _ => LeaderError::Refused(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_framework_says_how_to_begin_anew() {
        let error = mesos::Error::Refused {
            refusal: Refusal::Removed,
            message: "Framework has been removed".to_owned(),
        };
        let text = fatal(error, "k8sm-1", "kubernetes").to_string();
        insta::assert_snapshot!(text, @"Mesos has removed the framework `k8sm-1` (torn down, or away longer than its failover timeout): Framework has been removed. Its tasks are killed. To begin anew: kubectl delete nodes -l k8s.mesosphere.io/managed=true; kubectl -n kube-system delete configmap k8sm-kubernetes; then start this program again");
    }

    #[test]
    fn only_a_removed_framework_waits_for_an_operator() {
        for refusal in [Refusal::FailedOver, Refusal::Unauthorized, Refusal::Invalid] {
            let error = mesos::Error::Refused {
                refusal,
                message: "no".to_owned(),
            };
            let ended = fatal(error, "k8sm-1", "kubernetes");
            assert!(!matches!(ended, LeaderError::Removed { .. }), "{ended}");
        }
    }

    #[test]
    fn the_core_s_time_never_runs_backwards() {
        let clock = Clock::new();
        let (one, two) = (clock.now(), clock.now());
        assert!(one <= two);
        assert_eq!(clock.until(Time(0)), Duration::ZERO);
    }
}
