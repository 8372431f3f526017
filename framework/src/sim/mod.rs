//! A whole cluster in one process without sockets or clocks, around the real decision core.
//!
//! [`mesos`] stands in for master, agents and executors, [`api`] for the API server with its
//! controllers and for the kubelets. Everything that travels takes a random time, in order per
//! connection; [`Faults`] says how often things go wrong. The seed decides all of it, so that a bug
//! found once is found again. What must never happen is checked when it would happen, and ends up in
//! [`Simulation::violations`].

pub mod api;
pub mod mesos;
mod rolling;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::core::ids::{AgentId, NodeName, OfferId, PodUid, TaskId, Time};
use crate::core::pool::Amounts;
use crate::core::{CoreConfig, Effect, Event, State};
use api::Api;
use mesos::Mesos;
use rolling::Rolling;

/// How often things go wrong: probabilities, and mean times between faults.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The framework is killed and started again.
    pub restart: Option<Duration>,
    /// An executor dies with all its pods.
    pub executor_death: Option<Duration>,
    /// An agent is lost to the master for a while, its executor goes on.
    pub partition: Option<Duration>,
    /// The master restarts: the subscription breaks, offers are void.
    pub disconnect: Option<Duration>,
    /// An offer is rescinded.
    pub rescind: Option<Duration>,
    /// An operator or a controller deletes a pod.
    pub delete_pod: Option<Duration>,
    /// An operator deletes a Node object.
    pub delete_node: Option<Duration>,
    /// Somebody creates a pod that names its node itself.
    pub own_node: Option<Duration>,
    /// The outcome of a Binding is lost, half of the time after it happened.
    pub bind_lost: f64,
    /// A KILL is lost.
    pub kill_lost: f64,
    /// An update arrives twice.
    pub duplicate: f64,
    /// A node fails to start.
    pub start_failure: f64,
    /// An operator announces maintenance of an agent, and withdraws it later.
    pub maintenance: Option<Duration>,
    /// An operator drains an agent, and brings it back later.
    pub drain: Option<Duration>,
    /// A disruption budget refuses an eviction.
    pub budget: f64,
    /// An operator pauses the roll-out of the nodes' revision, or lets it go on.
    pub order: Option<Duration>,
    /// A framework that is started again wants another revision.
    pub revision: f64,
    /// A node cannot be brought to a revision.
    pub revision_failure: f64,
    /// A message between framework and executor is lost.
    pub message_lost: f64,
}

impl Faults {
    /// Everything goes wrong all the time.
    pub fn hell() -> Self {
        let seconds = |s| Some(Duration::from_secs(s));
        Self {
            restart: seconds(60),
            executor_death: seconds(40),
            partition: seconds(50),
            disconnect: seconds(45),
            rescind: seconds(5),
            delete_pod: seconds(4),
            delete_node: seconds(80),
            own_node: seconds(20),
            bind_lost: 0.1,
            kill_lost: 0.3,
            duplicate: 0.2,
            start_failure: 0.1,
            maintenance: seconds(60),
            drain: seconds(90),
            budget: 0.5,
            ..Self::default()
        }
    }

    /// The same, while nodes are brought from revision to revision.
    pub fn hell_of_revisions() -> Self {
        Self {
            order: Some(Duration::from_secs(45)),
            revision: 0.3,
            revision_failure: 0.05,
            message_lost: 0.2,
            ..Self::hell()
        }
    }
}

/// What happens when its time has come.
#[derive(Debug)]
pub(crate) enum Action {
    /// The framework hears something, if it is still this incarnation and connection.
    Hear {
        incarnation: u32,
        connection: Option<u32>,
        event: Box<Event>,
    },
    /// The framework's own timer.
    Wake { incarnation: u32 },
    /// A call reaches the master.
    Call {
        connection: u32,
        effect: Box<Effect>,
    },
    /// A request reaches the API server.
    Request {
        incarnation: u32,
        effect: Box<Effect>,
    },
    /// Something inside Mesos.
    Mesos(mesos::Inside),
    /// Something inside Kubernetes.
    Api(api::Inside),
    /// A fault strikes.
    Fault(Fault),
    /// The framework is started.
    Start,
    /// The framework subscribes.
    Subscribe { incarnation: u32 },
}

/// Kinds of faults that come by themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Restart,
    ExecutorDeath,
    Partition,
    Disconnect,
    Rescind,
    DeletePod,
    DeleteNode,
    OwnNode,
    Maintenance,
    Drain,
    Order,
}

struct Entry {
    at: Time,
    number: u64,
    action: Action,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Everything that the parts share: time, randomness, what is on its way.
pub struct World {
    /// The present.
    pub now: Time,
    pub(crate) rng: StdRng,
    heap: BinaryHeap<Reverse<Entry>>,
    number: u64,
    /// When the last message of each stream to the framework arrives: none overtakes it.
    streams: [Time; 4],
    pub(crate) incarnation: u32,
    pub(crate) connection: u32,
    pub(crate) connected: bool,
    pub(crate) faults: Faults,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

/// Streams of messages that keep their order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Mesos = 0,
    Pods = 1,
    Nodes = 2,
    Calls = 3,
}

impl World {
    pub(crate) fn at(&mut self, after: Duration, action: Action) {
        self.number += 1;
        self.heap.push(Reverse(Entry {
            at: self.now + after,
            number: self.number,
            action,
        }));
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    fn in_order(&mut self, stream: Stream, range: std::ops::Range<u64>) -> Duration {
        let delay = self.millis(range);
        let last = &mut self.streams[stream as usize];
        let at = (self.now + delay).max(*last);
        *last = at;
        at.since(self.now)
    }

    /// The master tells the framework something.
    pub(crate) fn tell(&mut self, event: Event) {
        if !self.connected {
            return;
        }
        let after = self.in_order(Stream::Mesos, 1..5);
        let action = Action::Hear {
            incarnation: self.incarnation,
            connection: Some(self.connection),
            event: Box::new(event),
        };
        self.at(after, action);
    }

    /// A watch tells the framework something.
    pub(crate) fn watch(&mut self, stream: Stream, event: Event) {
        let after = self.in_order(stream, 1..20);
        let action = Action::Hear {
            incarnation: self.incarnation,
            connection: None,
            event: Box::new(event),
        };
        self.at(after, action);
    }

    /// The outcome of a request.
    pub(crate) fn outcome(&mut self, event: Event) {
        let after = self.millis(1..10);
        let action = Action::Hear {
            incarnation: self.incarnation,
            connection: None,
            event: Box::new(event),
        };
        self.at(after, action);
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }

    pub(crate) fn violation(&mut self, text: String) {
        let at = self.now.0 as f64 / 1000.0;
        self.violations.push(format!("at {at:.3} s: {text}"));
    }

    fn schedule_fault(&mut self, fault: Fault, mean: Option<Duration>) {
        if let Some(mean) = mean {
            let after = mean.mul_f64(self.rng.random_range(0.2..1.8));
            self.at(after, Action::Fault(fault));
        }
    }
}

/// A cluster.
pub struct Simulation {
    /// Shared parts.
    pub world: World,
    /// Master, agents, executors.
    pub mesos: Mesos,
    /// API server, controllers, kubelets.
    pub api: Api,
    /// The real core, while the framework runs.
    pub framework: Option<State>,
    config: CoreConfig,
    /// The roll-out of the nodes' revision.
    rolling: Rolling,
    /// When the core is woken next.
    wake: Option<Time>,
    /// CPU time that the core has used.
    pub core_time: Duration,
    /// Print what happens.
    pub trace: bool,
    /// Events that the core took in.
    pub heard: u64,
    /// Whether to keep the digest of all effects.
    pub digest: bool,
    /// A digest of all effects, in order.
    pub sent: u64,
}

impl Simulation {
    /// A cluster of equal agents.
    pub fn new(
        seed: u64,
        agents: usize,
        size: Amounts,
        config: CoreConfig,
        faults: Faults,
    ) -> Self {
        let world = World {
            now: Time(1_000_000),
            rng: StdRng::seed_from_u64(seed),
            heap: BinaryHeap::new(),
            number: 0,
            streams: [Time(0); 4],
            incarnation: 0,
            connection: 0,
            connected: false,
            faults,
            violations: Vec::new(),
        };
        let mut simulation = Self {
            world,
            mesos: Mesos::new(agents, size),
            api: Api::default(),
            framework: None,
            config,
            rolling: Rolling::default(),
            wake: None,
            core_time: Duration::ZERO,
            trace: false,
            heard: 0,
            digest: false,
            sent: 0,
        };
        let world = &mut simulation.world;
        world.at(Duration::ZERO, Action::Start);
        world.at(
            Duration::from_secs(1),
            Action::Mesos(mesos::Inside::Allocate),
        );
        world.at(Duration::from_secs(1), Action::Api(api::Inside::Control));
        simulation.start_faults();
        simulation
    }

    fn start_faults(&mut self) {
        for fault in [
            Fault::Restart,
            Fault::ExecutorDeath,
            Fault::Partition,
            Fault::Disconnect,
            Fault::Rescind,
            Fault::DeletePod,
            Fault::DeleteNode,
            Fault::OwnNode,
            Fault::Maintenance,
            Fault::Drain,
            Fault::Order,
        ] {
            let mean = self.mean(fault);
            self.world.schedule_fault(fault, mean);
        }
    }

    fn mean(&self, fault: Fault) -> Option<Duration> {
        let faults = &self.world.faults;
        match fault {
            Fault::Restart => faults.restart,
            Fault::ExecutorDeath => faults.executor_death,
            Fault::Partition => faults.partition,
            Fault::Disconnect => faults.disconnect,
            Fault::Rescind => faults.rescind,
            Fault::DeletePod => faults.delete_pod,
            Fault::DeleteNode => faults.delete_node,
            Fault::OwnNode => faults.own_node,
            Fault::Maintenance => faults.maintenance,
            Fault::Drain => faults.drain,
            Fault::Order => faults.order,
        }
    }

    /// No more faults; what is broken heals.
    pub fn calm(&mut self) {
        self.world.faults = Faults::default();
        self.mesos.heal(&mut self.world);
        if self.rolling.order.paused_since.is_some() {
            self.order(false);
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.world.now + time;
        while let Some(Reverse(entry)) = self.world.heap.peek() {
            if entry.at > until {
                break;
            }
            let Some(Reverse(entry)) = self.world.heap.pop() else {
                break;
            };
            self.world.now = entry.at;
            self.act(entry.action);
        }
        self.world.now = until;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Hear {
                incarnation,
                connection,
                event,
            } => {
                let current = incarnation == self.world.incarnation
                    && connection
                        .is_none_or(|c| self.world.connected && c == self.world.connection);
                if current {
                    self.hear(*event);
                }
            }
            Action::Wake { incarnation } => {
                if incarnation == self.world.incarnation && self.wake == Some(self.world.now) {
                    self.wake = None;
                    self.hear(Event::Tick);
                }
            }
            Action::Call { connection, effect } => {
                if self.world.connected && connection == self.world.connection {
                    self.mesos.call(&mut self.world, &mut self.api, *effect);
                }
            }
            Action::Request {
                incarnation,
                effect,
            } => {
                // A request that was sent arrives, whatever becomes of its sender.
                let _ = incarnation;
                self.api.request(&mut self.world, *effect);
            }
            Action::Mesos(inside) => self.mesos.inside(&mut self.world, &mut self.api, inside),
            Action::Api(inside) => self.api.inside(&mut self.world, &mut self.mesos, inside),
            Action::Fault(fault) => self.fault(fault),
            Action::Start => self.start(),
            Action::Subscribe { incarnation } => {
                if incarnation == self.world.incarnation {
                    self.subscribe();
                }
            }
        }
    }

    fn start(&mut self) {
        self.world.incarnation += 1;
        let seed = self.world.rng.random();
        self.wake = None;
        self.another_revision();
        self.framework = Some(State::new(self.config.clone(), seed, self.world.now));
        self.rolling.begun.clear();
        self.hear(Event::Rollout(self.rolling.order.clone()));
        self.api.list(&mut self.world);
        let after = self.world.millis(100..2000);
        let incarnation = self.world.incarnation;
        self.world.at(after, Action::Subscribe { incarnation });
    }

    fn subscribe(&mut self) {
        self.world.connection += 1;
        self.world.connected = true;
        self.mesos.subscribed(&mut self.world);
    }

    fn hear(&mut self, event: Event) {
        let Some(state) = &mut self.framework else {
            return;
        };
        if self.trace {
            println!("{:>10.3} > {event:?}", self.world.now.0 as f64 / 1000.0);
        }
        self.heard += 1;
        if let Event::Rollout(order) = &event {
            self.rolling.heard = order.clone();
        }
        let began = std::time::Instant::now();
        let effects = state.apply(event, self.world.now);
        self.core_time += began.elapsed();
        let wake = state.next_wake();
        for effect in effects {
            if self.trace {
                println!("{:>10.3} < {effect:?}", self.world.now.0 as f64 / 1000.0);
            }
            self.send(effect);
        }
        if let Some(at) = wake {
            let incarnation = self.world.incarnation;
            let after = at.since(self.world.now).max(Duration::from_millis(1));
            let at = self.world.now + after;
            if self.wake.is_none_or(|set| at < set || set < self.world.now) {
                self.wake = Some(at);
                self.world.at(after, Action::Wake { incarnation });
            }
        }
    }

    fn send(&mut self, effect: Effect) {
        if self.digest {
            let mut hasher = DefaultHasher::new();
            (self.sent, format!("{effect:?}")).hash(&mut hasher);
            self.sent = hasher.finish();
        }
        if let Effect::Revise { agent, .. } = &effect {
            self.revises(agent.clone());
        }
        match &effect {
            Effect::Accept { .. }
            | Effect::Decline { .. }
            | Effect::AnswerInverse { .. }
            | Effect::Suppress
            | Effect::Revive
            | Effect::Kill { .. }
            | Effect::Shutdown { .. }
            | Effect::Revise { .. }
            | Effect::Acknowledge { .. }
            | Effect::Reconcile { .. }
            | Effect::PollAgents
            | Effect::PollPorts => {
                let after = self.world.in_order(Stream::Calls, 1..5);
                let connection = self.world.connection;
                let effect = Box::new(effect);
                self.world.at(after, Action::Call { connection, effect });
            }
            _ => {
                let after = self.world.millis(1..30);
                let incarnation = self.world.incarnation;
                let effect = Box::new(effect);
                self.world.at(
                    after,
                    Action::Request {
                        incarnation,
                        effect,
                    },
                );
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        let mean = self.mean(fault);
        if mean.is_none() {
            return;
        }
        self.world.schedule_fault(fault, mean);
        match fault {
            Fault::Restart => {
                self.framework = None;
                self.world.connected = false;
                self.world.incarnation += 1;
                let after = self.world.millis(100..10_000);
                self.world.at(after, Action::Start);
            }
            Fault::Disconnect => {
                if self.world.connected {
                    self.world.connected = false;
                    self.mesos.forget_offers();
                    self.hear(Event::Disconnected);
                    let incarnation = self.world.incarnation;
                    let after = self.world.millis(50..5000);
                    self.world.at(after, Action::Subscribe { incarnation });
                }
            }
            Fault::ExecutorDeath => self.mesos.kill_executor(&mut self.world, &mut self.api),
            Fault::Partition => self.mesos.partition(&mut self.world),
            Fault::Rescind => self.mesos.rescind(&mut self.world),
            Fault::DeletePod => self.api.delete_some_pod(&mut self.world),
            Fault::DeleteNode => self.api.delete_some_node(&mut self.world),
            Fault::OwnNode => self.api.create_with_node(&mut self.world),
            Fault::Maintenance => self.mesos.plan_maintenance(&mut self.world),
            Fault::Drain => self.mesos.drain_some(&mut self.world, &mut self.api),
            Fault::Order => self.order(self.rolling.order.paused_since.is_none()),
        }
    }

    /// Maintenance of an agent, by its number, begins after so long.
    pub fn announce_maintenance(&mut self, agent: usize, after: Duration) {
        self.mesos.announce(&mut self.world, &names(agent).0, after);
    }

    /// An operator drains an agent, by its number.
    pub fn drain_agent(&mut self, agent: usize) {
        self.mesos
            .drain(&mut self.world, &mut self.api, &names(agent).0);
    }

    /// An operator annotates an agent's node to be emptied; budgets hold for so long.
    pub fn ask_to_drain(&mut self, agent: usize, time: Duration) {
        self.api
            .ask_to_drain(&mut self.world, &names(agent).1, time);
    }

    /// The agent is in service again.
    pub fn end_maintenance(&mut self, agent: usize) {
        self.mesos.maintained(&mut self.world, &names(agent).0);
    }

    /// What is not as it should be once everything is calm: every pod bound, each with one task
    /// on its node's agent, no other tasks.
    pub fn unsettled(&self) -> Vec<String> {
        let mut problems = self.api.unsettled();
        problems.extend(self.mesos.unsettled(&self.api));
        problems.extend(self.not_rolled_out());
        problems
    }
}

pub(crate) fn task_pod(id: &TaskId) -> Option<PodUid> {
    match crate::core::task::kind_of(id) {
        Some(seam::id::TaskKind::Pod { uid, .. }) => Some(PodUid::from(uid)),
        _ => None,
    }
}

pub(crate) fn names(number: usize) -> (AgentId, NodeName) {
    (
        AgentId::from(format!("S{number}")),
        NodeName::from(format!("agent-{number}")),
    )
}

pub(crate) fn offer_id(number: u64) -> OfferId {
    OfferId::from(format!("O{number}"))
}
