//! The framework's decisions: a pure `state + event -> state + effects`, without sockets or clocks.
//!
//! [`State::handle`] takes in what happened, [`State::step`] runs due timers and, where something
//! changed, a scheduling pass, and returns what is to be done. Everything that must survive a crash is in the
//! API server (pods, nodes) and in Mesos (tasks): a new `State` is filled from both.
//!
//! | file | decides |
//! |---|---|
//! | `ports`, `node_ports` | host port numbers that pods share; those of the node itself |
//! | [`offer`], [`pool`] | what is offered, what a task takes of it |
//! | [`pod`], `pods` | the scheduling queue; pods that are bound already |
//! | [`node`], `nodes`, `life`, `upkeep` | a node's object, life, timeouts |
//! | `agents`, `market` | what is known of agents; which offers are wanted, held, given back |
//! | `rollout` | bringing all nodes to another revision, a few at a time |
//! | [`maintenance`], [`evacuation`] | outages that Mesos announces; emptying a node by disruption budgets |
//! | [`task`], `updates` | the task ledger, status updates, Binding, KILL |
//! | `place`, `plan`, `schedule` | where a pod goes; room set aside; the scheduling pass |
//! | [`preempt`] | whose end makes room for a pod of higher priority |
//! | `reconcile` | explicit and implicit reconciliation |

mod agents;
pub mod evacuation;
pub mod event;
pub mod ids;
mod life;
pub mod maintenance;
mod market;
pub mod node;
mod node_ports;

mod nodes;
pub mod offer;
mod place;
mod plan;
pub mod pod;
mod pods;
pub mod pool;
mod ports;
pub mod preempt;
mod reconcile;
mod rollout;
mod schedule;
pub mod summary;
pub mod task;
mod timers;
mod updates;
mod upkeep;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::placement::{Candidate, Fit};
use crate::resources::{PodDemand, PortSet};

pub use event::{Effect, Event};
use ids::{AgentId, NodeName, PodUid, Role, Time};
use node::{Agent, Node};
use offer::OfferStore;
use pod::Pod;
use pool::Amounts;
use reconcile::Reconciliation;
use rollout::Rollout;
use task::Ledger;
use timers::{Timer, Timers};

/// What an operator may choose, as far as decisions need it.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// What a node task takes.
    pub node_overhead: Amounts,
    /// `maxPods` of each node.
    pub pods_per_node: u32,
    /// How many nodes are kept even without pods.
    pub nodes_min: usize,
    /// After how long a node without pods (those of DaemonSets aside) is given back.
    pub idle_timeout: Duration,
    /// Whether a pod without limits may use more than it requests.
    pub overcommit: bool,
    /// For how long an offer is held after it came, in case another pod wants it.
    pub linger: Duration,
    /// For how many seconds Mesos keeps what no waiting pod could use. What grows comes back
    /// sooner, a REVIVE brings everything back.
    pub refuse_seconds: f64,
    /// How long a node may take to become Ready.
    pub start_timeout: Duration,
    /// How long before its agent's maintenance a node is emptied.
    pub maintenance_lead: Duration,
    /// Port numbers that nodes' own processes never take.
    pub node_avoid_ports: PortSet,
    /// What every node shall be ([`seam::node::Revision::digest`]); none: they stay as they are.
    pub revision: Option<String>,
    /// Makes ExecutorInfo (protobuf) for an executor id.
    pub executor_info: ExecutorTemplate,
}

/// ExecutorInfo but for its id; see [`crate::wire::executor_info`].
#[derive(Debug, Clone)]
pub struct ExecutorTemplate(pub mesos::pb::ExecutorInfo);

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            node_overhead: Amounts {
                cpus: 300,
                mem: 512 * pool::UNIT,
                disk: 2048 * pool::UNIT,
                gpus: 0,
            },
            // Upstream's default of kubelet.
            pods_per_node: 110,
            nodes_min: 0,
            idle_timeout: Duration::from_secs(600),
            overcommit: true,
            linger: Duration::from_secs(1),
            refuse_seconds: 10.0,
            start_timeout: Duration::from_secs(600),
            maintenance_lead: Duration::from_secs(900),
            node_avoid_ports: PortSet::default(),
            revision: None,
            executor_info: ExecutorTemplate(mesos::pb::ExecutorInfo::default()),
        }
    }
}

/// So many held offers and waiting pods make a pass costly.
const MUCH: usize = 200;
/// Between such passes at least, for each of them: some twenty times what a pass costs.
const PAUSE_EACH: Duration = Duration::from_micros(10);

/// Order in the scheduling queue: higher priority, then age.
type QueueKey = (Reverse<i32>, Time, PodUid);

/// Everything the framework knows.
#[derive(Debug)]
pub struct State {
    config: CoreConfig,
    rng: StdRng,
    now: Time,
    effects: Vec<Effect>,
    timers: Timers,

    connected: bool,
    /// Whether it is known which tasks exist: no pod is launched before.
    recovered: bool,
    nodes_listed: bool,
    pods_listed: bool,
    reconciliation: Reconciliation,

    agents: BTreeMap<AgentId, Agent>,
    nodes: BTreeMap<NodeName, Node>,
    node_of: BTreeMap<AgentId, NodeName>,
    /// Names of nodes that are not ours.
    foreign_nodes: BTreeSet<NodeName>,
    /// Every table whose order can be seen in the effects is an ordered one: a simulation's seed
    /// must decide everything.
    pods: BTreeMap<PodUid, Pod>,
    /// Pods that are bound to a node, ours or not, and not terminal.
    bound: BTreeMap<NodeName, BTreeSet<PodUid>>,
    /// Whether some of them are bound to a node that is not ours, or is gone.
    pods_without_node: bool,
    queue: BTreeSet<QueueKey>,
    backing_off: BTreeSet<PodUid>,
    unaccounted: BTreeSet<PodUid>,
    ledger: Ledger,
    /// Port numbers that pods use and no task holds.
    owed_ports: ports::OwedPorts,
    offers: OfferStore,
    rollout: Rollout,
    /// What each held pool looks like to the filters; rebuilt when something about it changed.
    candidates: HashMap<AgentId, BTreeMap<Role, Candidate>>,
    /// Room that this pass has set aside for nominated pods, by node.
    booked: BTreeMap<NodeName, Vec<(PodDemand, Fit)>>,
    /// Where the search for a place went on; spreads pods over equal agents.
    cursor: usize,

    /// Whether a scheduling pass may find something to do.
    dirty: bool,
    /// When the last one was.
    last_pass: Time,
    /// No held offer is due to go back before.
    return_due: Time,
    suppressed: bool,
    /// Whether a REVIVE may bring offers that are of use now.
    wants_revive: bool,
    last_revive: Time,
    revival: market::Revival,
    /// REVIVEs in a row that led to no launch.
    fruitless_revives: u32,
    /// Counters for the metrics.
    pub counters: summary::Counters,
    /// How long tasks took from ACCEPT to TASK_STARTING, since they were last taken.
    launch_times: Vec<summary::LaunchTime>,
}

impl State {
    /// A framework that knows nothing yet. The seed makes task ids, jitter and ports.
    pub fn new(config: CoreConfig, seed: u64, now: Time) -> Self {
        Self {
            rollout: Rollout::new(config.revision.clone()),
            config,
            rng: StdRng::seed_from_u64(seed),
            now,
            effects: Vec::new(),
            timers: Timers::default(),
            connected: false,
            recovered: false,
            nodes_listed: false,
            pods_listed: false,
            reconciliation: Reconciliation::default(),
            agents: BTreeMap::new(),
            nodes: BTreeMap::new(),
            node_of: BTreeMap::new(),
            foreign_nodes: BTreeSet::new(),
            pods: BTreeMap::new(),
            bound: BTreeMap::new(),
            pods_without_node: false,
            queue: BTreeSet::new(),
            backing_off: BTreeSet::new(),
            unaccounted: BTreeSet::new(),
            ledger: Ledger::default(),
            owed_ports: ports::OwedPorts::new(),
            offers: OfferStore::default(),
            candidates: HashMap::new(),
            booked: BTreeMap::new(),
            cursor: 0,
            dirty: false,
            last_pass: Time(0),
            return_due: Time(0),
            // A new subscription is not suppressed.
            suppressed: false,
            wants_revive: false,
            last_revive: Time(0),
            revival: market::Revival::default(),
            fruitless_revives: 0,
            counters: summary::Counters::default(),
            launch_times: Vec::new(),
        }
    }

    /// Takes in what happened. Effects come from the next [`Self::step`].
    pub fn handle(&mut self, event: Event, now: Time) {
        self.now = self.now.max(now);
        match event {
            Event::Tick => {}
            Event::Subscribed => self.subscribed(),
            Event::Disconnected => self.disconnected(),
            Event::Revived => self.revived(),
            Event::Offers(offers) => {
                self.revive_is_answered();
                for (offer, agent) in offers {
                    self.offered(offer, agent);
                }
            }
            Event::Rescind(id) => {
                if let Some((agent, role)) = self.offers.rescind(&id) {
                    self.counters.offers_rescinded += 1;
                    self.void_plan(&agent, &role);
                    if self.node_of.contains_key(&agent) {
                        // Perhaps it is being drained.
                        self.emit(Effect::PollAgents);
                    }
                    self.stale(&agent);
                }
            }
            Event::InverseOffers(offers) => self.inverse_offered(offers),
            Event::EvictionHeld(uid) => self.eviction_held(&uid),
            Event::Update(update) => self.update(update),
            Event::Doubt(tasks) => self.doubt(&tasks),
            Event::Failure { agent, executor } => self.failure(&agent, executor.as_ref()),
            Event::Message { executor, message } => self.message(&executor, message),
            Event::Agents(reports) => self.agents_reported(reports),
            Event::HeldPorts(held) => self.ports_reported(held),
            Event::Pod(view) => self.pod_seen(view),
            Event::PodGone(uid) => self.pod_gone(&uid),
            Event::PodsListed(present) => self.pods_listed(&present),
            Event::Node(view) => self.node_seen(*view),
            Event::NodeGone(name) => self.node_gone(&name),
            Event::NodesListed(present) => self.nodes_listed(&present),
            Event::NodePrepared { node, life, token } => self.node_prepared(&node, &life, token),
            Event::PrepareFailed { node, life, error } => self.prepare_failed(&node, &life, &error),
            Event::Rollout(order) => self.rollout_ordered(order),
            Event::Bound { pod, task, outcome } => self.bind_outcome(&pod, &task, outcome),
        }
    }

    /// Does what is due and returns everything that is to be done, in this order.
    pub fn step(&mut self, now: Time) -> Vec<Effect> {
        self.now = self.now.max(now);
        while let Some(timer) = self.timers.due(self.now) {
            self.fire(timer);
        }
        if self.dirty && self.may_schedule() {
            // A pass costs with what is held and what waits; where that is much, what comes
            // within a moment is looked at together.
            let size = self.offers.len() + self.queue.len();
            let pause = if size > MUCH {
                PAUSE_EACH * u32::try_from(size).unwrap_or(u32::MAX)
            } else {
                Duration::ZERO
            };
            let next = self.last_pass + pause;
            if self.now >= next {
                self.dirty = false;
                self.last_pass = self.now;
                self.schedule();
            } else {
                self.timers.set(next, Timer::Schedule);
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// [`Self::handle`] and [`Self::step`] in one.
    pub fn apply(&mut self, event: Event, now: Time) -> Vec<Effect> {
        self.handle(event, now);
        self.step(now)
    }

    /// When [`Self::step`] has to be called at the latest.
    pub fn next_wake(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Whether launching is safe: the API server's objects and Mesos' tasks are known.
    pub fn may_schedule(&self) -> bool {
        self.connected && self.recovered && self.nodes_listed && self.pods_listed
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Pod(uid) => self.check_pod(&uid),
            Timer::Task(id) => self.check_task(&id),
            Timer::Node(name) => self.check_node(&name),
            Timer::Schedule => self.dirty = true,
            Timer::Agent(_) => {
                self.dirty = true;
                self.wants_revive = true;
                self.wake_pods();
            }
            Timer::Reconcile => self.check_reconciliation(),
            Timer::Rollout => self.roll_out(),
        }
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn problem(&mut self, message: String) {
        self.emit(Effect::Problem { message });
    }

    /// Calls the timer's check after `wait`, or earlier if it is set earlier already.
    fn after(&mut self, wait: Duration, timer: Timer) {
        self.timers.set(self.now + wait, timer);
    }

    /// `wait`, shortened or lengthened by up to a fifth, so that many do not come at once.
    fn jitter(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(self.rng.random_range(0.8..1.2))
    }

    fn random_attempt(&mut self) -> u32 {
        self.rng.random()
    }

    /// What the filters see of an agent has changed.
    fn stale(&mut self, agent: &AgentId) {
        self.candidates.remove(agent);
        self.dirty = true;
    }

    fn disconnected(&mut self) {
        self.connected = false;
        self.revival = market::Revival::default();
        self.offers.clear();
        self.candidates.clear();
        self.void_all_plans();
    }

    fn subscribed(&mut self) {
        self.disconnected();
        self.connected = true;
        // The client subscribes without suppressed roles.
        self.suppressed = false;
        self.dirty = true;
        self.hear_of_outages_again();
        self.start_reconciliation();
        self.emit(Effect::PollAgents);
    }
}
