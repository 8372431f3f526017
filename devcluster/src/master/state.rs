//! The master's state and its clock work: everything that it knows, and what is due when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mesos::pb;
use mesos::pb::master::response::get_frameworks;

use super::event::{Answer, Effect, Event, Outcome, StreamId};
use super::registry::Registry;
use crate::allocator::{Allocator, AllocatorConfig};
use crate::clock::Time;
use crate::ids::{AgentId, ExecutorId, FrameworkId, OfferId, TaskId};
use crate::protocol::to_agent;
use crate::resources::Resources;

/// Time between two HEARTBEATs on a stream, as in Mesos.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// The version that the master reports: the one whose behaviour it implements.
pub const VERSION: &str = "1.12.0";

/// What decides how the master behaves; defaults are those of Mesos' flags.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--agent_ping_timeout`, 15 s.
    pub agent_ping_timeout: Duration,
    /// `--max_agent_ping_timeouts`, 5.
    pub max_agent_ping_timeouts: u32,
    /// `--agent_reregister_timeout`, 10 min: how long after a restart agents may take.
    pub agent_reregister_timeout: Duration,
    /// `--offer_timeout`, none.
    pub offer_timeout: Option<Duration>,
    /// `--max_completed_frameworks`, 50.
    pub max_completed_frameworks: usize,
    /// `--max_completed_tasks_per_framework`, 1000.
    pub max_completed_tasks: usize,
    /// `--max_unreachable_tasks_per_framework`, 1000.
    pub max_unreachable_tasks: usize,
    /// `--roles`: the only roles that frameworks may have. Empty: any.
    pub roles: BTreeSet<String>,
    /// `--acls`.
    pub acls: super::auth::Acls,
    /// Fair sharing.
    pub allocator: AllocatorConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agent_ping_timeout: Duration::from_secs(15),
            max_agent_ping_timeouts: 5,
            agent_reregister_timeout: Duration::from_secs(600),
            offer_timeout: None,
            max_completed_frameworks: 50,
            max_completed_tasks: 1000,
            max_unreachable_tasks: 1000,
            roles: BTreeSet::new(),
            acls: super::auth::Acls::default(),
            allocator: AllocatorConfig::default(),
        }
    }
}

/// What a framework can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Capabilities {
    pub multi_role: bool,
    pub reservation_refinement: bool,
    pub partition_aware: bool,
    pub gpu: bool,
    pub region: bool,
    pub revocable: bool,
}

/// A framework that is not completed.
#[derive(Debug)]
pub(super) struct Framework {
    pub info: pb::FrameworkInfo,
    pub capabilities: Capabilities,
    pub roles: BTreeSet<String>,
    pub offer_constraints: Option<pb::scheduler::OfferConstraints>,
    /// Its response stream while it is connected.
    pub stream: Option<StreamId>,
    /// Known only from agents since the master started.
    pub recovered: bool,
    pub registered: Time,
    pub reregistered: Time,
    pub unregistered: Time,
    /// When it is removed unless it comes back.
    pub failover_deadline: Option<Time>,
    pub tasks: BTreeMap<TaskId, Task>,
    /// Oldest first.
    pub unreachable: VecDeque<pb::Task>,
    /// Oldest first.
    pub completed: VecDeque<pb::Task>,
    pub offers: BTreeSet<OfferId>,
}

/// A task whose end is not acknowledged yet.
#[derive(Debug)]
pub(super) struct Task {
    pub pb: pb::Task,
    /// What it uses, each with its allocation; nothing once it has ended.
    pub resources: Resources,
}

/// An executor that the master knows of.
#[derive(Debug)]
pub(super) struct Executor {
    pub info: pb::ExecutorInfo,
    pub resources: Resources,
}

/// An agent that is registered, connected or not.
#[derive(Debug)]
pub(super) struct Agent {
    pub info: pb::AgentInfo,
    pub ip: String,
    pub version: String,
    pub capabilities: Vec<pb::agent_info::Capability>,
    pub checkpoint: bool,
    pub total: Resources,
    pub stream: Option<StreamId>,
    /// An operator took it out of use; the same as the registry has.
    pub deactivated: bool,
    pub registered: Time,
    pub reregistered: Option<Time>,
    pub tasks: BTreeSet<(FrameworkId, TaskId)>,
    pub executors: BTreeMap<(FrameworkId, ExecutorId), Executor>,
    pub offers: BTreeSet<OfferId>,
    /// Tasks that were to be killed while it was away.
    pub kills: BTreeSet<(FrameworkId, TaskId)>,
    pub pinged: bool,
    pub missed_pings: u32,
    pub next_ping: Time,
}

impl Agent {
    pub fn port(&self) -> u16 {
        self.info
            .port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(5051)
    }

    pub fn pid(&self) -> String {
        format!("slave(1)@{}:{}", self.ip, self.port())
    }

    pub fn active(&self) -> bool {
        self.stream.is_some() && !self.deactivated
    }
}

/// An offer that a framework holds.
#[derive(Debug)]
pub(super) struct Offer {
    pub framework: FrameworkId,
    pub agent: AgentId,
    pub role: String,
    /// Allocated to the role.
    pub resources: Resources,
    pub deadline: Option<Time>,
}

/// Whose stream it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Framework(FrameworkId),
    Agent(AgentId),
    Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Allocation,
    Heartbeat(StreamId),
    Ping(AgentId),
    Failover(FrameworkId),
    Offer(OfferId),
    InverseOffer(OfferId),
    Reregistration,
    /// The status of an operation is not acknowledged.
    Operation(u64),
}

/// Which agents are to be looked at by the allocator after this event.
#[derive(Debug, Default)]
pub(super) enum Pending {
    #[default]
    None,
    Some(BTreeSet<AgentId>),
    All,
}

/// See the [module](super).
#[derive(Debug)]
pub struct MasterState {
    pub(super) settings: Settings,
    pub(super) info: pb::MasterInfo,
    pub(super) now: Time,
    pub(super) started: Time,
    pub(super) frameworks: BTreeMap<FrameworkId, Framework>,
    /// Oldest first.
    pub(super) completed: VecDeque<(FrameworkId, get_frameworks::Framework, Vec<pb::Task>)>,
    pub(super) agents: BTreeMap<AgentId, Agent>,
    /// Known from before the restart and not back yet.
    pub(super) recovered: BTreeMap<AgentId, pb::AgentInfo>,
    pub(super) registry: Registry,
    pub(super) offers: BTreeMap<OfferId, Offer>,
    pub(super) inverse: super::maintenance::InverseOffers,
    pub(super) streams: BTreeMap<StreamId, Owner>,
    pub(super) operators: BTreeSet<StreamId>,
    pub(super) allocator: Allocator,
    pub(super) pending: Pending,
    pub(super) timers: BTreeSet<(Time, Timer)>,
    pub(super) next_framework: u64,
    pub(super) next_agent: u64,
    pub(super) next_offer: u64,
    pub(super) next_operation: u64,
    /// Operations whose feedback is wanted and not acknowledged.
    pub(super) operations: BTreeMap<u64, super::operations::Operation>,
    pub(super) metrics: BTreeMap<&'static str, u64>,
    pub(super) effects: Vec<Effect>,
}

impl MasterState {
    /// A master that starts now, with what was remembered. `info.id` must be new at each start.
    pub fn new(settings: Settings, info: pb::MasterInfo, registry: Registry, now: Time) -> Self {
        let mut timers = BTreeSet::new();
        timers.insert((now + settings.allocator.interval, Timer::Allocation));
        if !registry.admitted.is_empty() {
            timers.insert((
                now + settings.agent_reregister_timeout,
                Timer::Reregistration,
            ));
        }
        let mut allocator = Allocator::new(settings.allocator.clone());
        for (role, weight) in &registry.weights {
            allocator.set_weight(role, *weight);
        }
        for (role, quota) in &registry.quotas {
            allocator.set_quota(role, quota.clone());
        }
        Self {
            allocator,
            recovered: registry.admitted.clone(),
            settings,
            info,
            now,
            started: now,
            frameworks: BTreeMap::new(),
            completed: VecDeque::new(),
            agents: BTreeMap::new(),
            registry,
            offers: BTreeMap::new(),
            inverse: super::maintenance::InverseOffers::default(),
            streams: BTreeMap::new(),
            operators: BTreeSet::new(),
            pending: Pending::None,
            timers,
            next_framework: 0,
            next_agent: 0,
            next_offer: 0,
            next_operation: 0,
            operations: BTreeMap::new(),
            metrics: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// When [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Time {
        self.timers.first().map_or(Time::NEVER, |(at, _)| *at)
    }

    /// Handles one event. `now` never goes back.
    pub fn handle(&mut self, now: Time, event: Event) -> Outcome {
        self.now = self.now.max(now);
        let answer = match event {
            Event::Tick => {
                self.tick();
                Answer::Ok
            }
            Event::FrameworkSubscribe { stream, subscribe } => {
                self.subscribe_framework(stream, *subscribe)
            }
            Event::FrameworkCall { stream, call } => self.framework_call(stream, *call),
            Event::Disconnected { stream } => {
                self.disconnected(stream);
                Answer::Ok
            }
            Event::AgentSubscribe {
                stream,
                peer,
                subscribe,
            } => self.subscribe_agent(stream, peer, *subscribe),
            Event::AgentCall { stream, message } => self.agent_call(stream, *message),
            Event::OperatorSubscribe { stream } => self.subscribe_operator(stream),
            Event::OperatorCall(call) => self.operator_call(*call),
        };
        self.look_for_drained();
        self.allocate_pending();
        Outcome {
            answer,
            effects: std::mem::take(&mut self.effects),
        }
    }

    fn tick(&mut self) {
        while let Some((at, _)) = self.timers.first() {
            if *at > self.now {
                break;
            }
            let Some((at, timer)) = self.timers.pop_first() else {
                break;
            };
            match timer {
                Timer::Allocation => {
                    self.pending = Pending::All;
                    // Rounds that could not be held are not made up for.
                    let next = (at + self.settings.allocator.interval).max(self.now);
                    self.timers.insert((next, Timer::Allocation));
                }
                Timer::Heartbeat(stream) => self.heartbeat(stream, at),
                Timer::Ping(agent) => self.ping_due(&agent, at),
                Timer::Failover(id) => {
                    let due = self.frameworks.get(&id).and_then(|f| f.failover_deadline);
                    if due == Some(at) {
                        tracing::info!(framework = %id, "failover timeout is over");
                        self.remove_framework(&id);
                    }
                }
                Timer::Offer(id) => {
                    if self.offers.get(&id).and_then(|o| o.deadline) == Some(at) {
                        self.rescind(&id);
                    }
                }
                Timer::InverseOffer(id) => self.inverse_offer_due(&id, at),
                Timer::Reregistration => self.reregistration_over(),
                Timer::Operation(serial) => self.tell_operation(serial),
            }
        }
    }

    /// Sends a HEARTBEAT and sets the time of the next, counted from `at` so that they do
    /// not drift.
    pub(super) fn heartbeat(&mut self, stream: StreamId, at: Time) {
        match self.streams.get(&stream) {
            Some(Owner::Framework(_)) => {
                self.effects.push(Effect::ToScheduler {
                    stream,
                    event: Box::new(pb::scheduler::Event {
                        r#type: Some(pb::scheduler::event::Type::Heartbeat as i32),
                        ..Default::default()
                    }),
                });
            }
            Some(Owner::Operator) => {
                self.effects.push(Effect::ToOperator {
                    stream,
                    event: Box::new(pb::master::Event {
                        r#type: Some(pb::master::event::Type::Heartbeat as i32),
                        ..Default::default()
                    }),
                });
            }
            Some(Owner::Agent(_)) | None => return,
        }
        let next = (at + HEARTBEAT).max(self.now);
        self.timers.insert((next, Timer::Heartbeat(stream)));
    }

    fn disconnected(&mut self, stream: StreamId) {
        match self.streams.get(&stream).cloned() {
            Some(Owner::Framework(id)) => self.framework_disconnected(&id, stream),
            Some(Owner::Agent(id)) => self.agent_disconnected(&id),
            Some(Owner::Operator) => {
                self.streams.remove(&stream);
                self.operators.remove(&stream);
            }
            // Closed by us before.
            None => {}
        }
    }

    /// The allocator shall look at this agent after the event.
    pub(super) fn allocate_agent(&mut self, id: &AgentId) {
        match &mut self.pending {
            Pending::None => self.pending = Pending::Some([id.clone()].into()),
            Pending::Some(ids) => {
                ids.insert(id.clone());
            }
            Pending::All => {}
        }
    }

    /// The allocator shall look at all agents after the event.
    pub(super) fn allocate_all(&mut self) {
        self.pending = Pending::All;
    }

    /// Sends to a framework if it is connected.
    pub(super) fn tell_scheduler(&mut self, id: &FrameworkId, event: pb::scheduler::Event) {
        match self.frameworks.get(id).and_then(|f| f.stream) {
            Some(stream) => self.effects.push(Effect::ToScheduler {
                stream,
                event: Box::new(event),
            }),
            None => tracing::debug!(framework = %id, "not connected: an event is dropped"),
        }
    }

    /// Sends to an agent if it is connected.
    pub(super) fn tell_agent(&mut self, id: &AgentId, message: to_agent::Message) {
        match self.agents.get(id).and_then(|a| a.stream) {
            Some(stream) => self.effects.push(Effect::ToAgent {
                stream,
                message: Box::new(message),
            }),
            None => tracing::debug!(agent = %id, "not connected: a message is dropped"),
        }
    }

    /// Tells every operator that listens.
    pub(super) fn tell_operators(&mut self, event: impl FnOnce(&Self) -> pb::master::Event) {
        if self.operators.is_empty() {
            return;
        }
        let event = event(self);
        for stream in &self.operators {
            self.effects.push(Effect::ToOperator {
                stream: *stream,
                event: Box::new(event.clone()),
            });
        }
    }

    /// Ends a stream from our side.
    pub(super) fn close(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.effects.push(Effect::Close(stream));
    }

    /// What must be on disk after [`Effect::SaveRegistry`].
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Keeps the registry on disk before anything of this event is told to anybody.
    pub(super) fn save(&mut self) {
        self.registry.trim();
        if !self.effects.contains(&Effect::SaveRegistry) {
            self.effects.insert(0, Effect::SaveRegistry);
        }
    }

    /// Counts something for the metrics.
    pub(super) fn count(&mut self, metric: &'static str) {
        *self.metrics.entry(metric).or_default() += 1;
    }

    /// The principal of a framework.
    pub fn principal_of(&self, id: &FrameworkId) -> Option<String> {
        self.frameworks.get(id)?.info.principal.clone()
    }

    /// The master's own id.
    pub fn id(&self) -> &str {
        &self.info.id
    }

    pub(super) fn is_completed(&self, id: &FrameworkId) -> bool {
        self.completed.iter().any(|(completed, ..)| completed == id)
    }
}

/// Whether a task in this state has ended for good.
pub(crate) fn is_terminal(state: i32) -> bool {
    use pb::TaskState as S;
    matches!(
        S::try_from(state),
        Ok(S::TaskFinished
            | S::TaskFailed
            | S::TaskKilled
            | S::TaskError
            | S::TaskLost
            | S::TaskDropped
            | S::TaskGone
            | S::TaskGoneByOperator)
    )
}
