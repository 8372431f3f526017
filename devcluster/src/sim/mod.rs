//! A whole Mesos in one thread, for simulations of scale: the real master's core, agents that
//! are played ([`agent::SimAgent`]), a clock that jumps from event to event, and a seed. No
//! sockets, no threads, no waiting; the same seed gives the same run.
//!
//! ```
//! use devcluster::sim::{Sim, SimConfig};
//! use mesos::pb;
//!
//! let mut sim = Sim::new(SimConfig { agents: 100, ..SimConfig::default() });
//! let framework = sim.subscribe(pb::FrameworkInfo {
//!     user: "root".into(),
//!     name: "f".into(),
//!     ..Default::default()
//! });
//! sim.run_for(std::time::Duration::from_secs(2));
//! let events = sim.events(framework);
//! assert!(events.iter().any(|e| e.offers.is_some()));
//! ```

pub mod agent;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mesos::pb;
use mesos::pb::scheduler::Call;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::clock::Time;
use crate::master::{Answer, Effect, Event, MasterState, Registry, Settings, StreamId, VERSION};
use crate::protocol::{Subscribe, from_agent, to_agent};
use crate::resources::{Resources, parse_attributes};

use agent::SimAgent;

pub use agent::{Plan, Step};

/// How a simulation is set up.
pub struct SimConfig {
    /// How many agents there are at the start.
    pub agents: usize,
    /// What each agent has.
    pub resources: String,
    /// Attributes of each agent, `{i}` being its number.
    pub attributes: String,
    /// How the master behaves.
    pub settings: Settings,
    /// Time that a message between master and agent takes, at least and at most.
    pub latency: (Duration, Duration),
    /// Makes the run.
    pub seed: u64,
    /// What becomes of a launched task.
    pub plan: Plan,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            agents: 3,
            resources: "cpus:4;mem:8192;disk:20480;ports:[31000-31999]".to_owned(),
            attributes: "rack:r{i}".to_owned(),
            settings: Settings::default(),
            latency: (Duration::from_micros(200), Duration::from_millis(2)),
            seed: 1,
            plan: Plan::runs(Duration::from_millis(50), Duration::from_millis(50)),
        }
    }
}

/// One of the simulation's schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulerId(usize);

#[derive(Debug, Default)]
struct Scheduler {
    stream: Option<StreamId>,
    id: Option<pb::FrameworkId>,
    info: pb::FrameworkInfo,
    inbox: VecDeque<pb::scheduler::Event>,
}

/// What is under way.
#[derive(Debug)]
enum Delivery {
    ToAgent(usize, StreamId, Box<to_agent::Message>),
    FromAgent(StreamId, Box<from_agent::Message>),
    /// An agent subscribes on this stream.
    Subscribe(usize, StreamId),
    /// The master notices that a stream broke.
    Broken(StreamId),
    /// Something that an agent has set itself for now.
    AgentTimer(usize),
}

/// A delivery and when it arrives; the earliest and, at one time, the oldest is the greatest.
#[derive(Debug)]
struct Due {
    at: Time,
    serial: u64,
    delivery: Delivery,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// See the [module](self).
pub struct Sim {
    master: MasterState,
    now: Time,
    agents: Vec<SimAgent>,
    by_stream: BTreeMap<StreamId, usize>,
    schedulers: Vec<Scheduler>,
    under_way: BinaryHeap<Due>,
    /// When the last message of a link arrives, so that none overtakes another.
    link: BTreeMap<(usize, bool), Time>,
    serial: u64,
    streams: u128,
    settings: Settings,
    latency: (Duration, Duration),
    rng: StdRng,
    plan: Plan,
    masters: u128,
}

impl Sim {
    /// Sets one up; its agents are about to register.
    ///
    /// # Panics
    ///
    /// If the configured resources or attributes cannot be read.
    pub fn new(config: SimConfig) -> Self {
        let now = Time::from_secs(1_800_000_000);
        let master = MasterState::new(
            config.settings.clone(),
            master_info(1),
            Registry::default(),
            now,
        );
        let mut sim = Self {
            master,
            now,
            agents: Vec::new(),
            by_stream: BTreeMap::new(),
            schedulers: Vec::new(),
            under_way: BinaryHeap::new(),
            link: BTreeMap::new(),
            serial: 0,
            streams: 0,
            settings: config.settings,
            latency: config.latency,
            rng: StdRng::seed_from_u64(config.seed),
            plan: config.plan,
            masters: 1,
        };
        for i in 0..config.agents {
            let attributes = config.attributes.replace("{i}", &i.to_string());
            sim.add_agent(&format!("agent{i}"), &config.resources, &attributes);
        }
        sim
    }

    /// Adds an agent; it is about to register. Returns its number.
    ///
    /// # Panics
    ///
    /// If the resources or attributes cannot be read.
    pub fn add_agent(&mut self, hostname: &str, resources: &str, attributes: &str) -> usize {
        let number = self.agents.len();
        let resources = Resources::parse(resources).expect("resources given by the caller");
        let attributes = parse_attributes(attributes).expect("attributes given by the caller");
        self.agents
            .push(SimAgent::new(number, hostname, &resources, attributes));
        self.start_agent(number);
        number
    }

    /// The time now.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// The master, to look at.
    pub const fn master(&self) -> &MasterState {
        &self.master
    }

    /// An agent, to look at.
    pub fn agent(&self, number: usize) -> &SimAgent {
        &self.agents[number]
    }

    /// How many agents there are.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    fn new_stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId::from_u128(self.streams)
    }

    // ---- schedulers

    /// A new scheduler subscribes.
    pub fn subscribe(&mut self, info: pb::FrameworkInfo) -> SchedulerId {
        let id = SchedulerId(self.schedulers.len());
        self.schedulers.push(Scheduler {
            info,
            ..Scheduler::default()
        });
        self.resubscribe(id);
        id
    }

    /// The scheduler subscribes (again), with its id if it was given one, taking over from
    /// itself if its stream stands.
    pub fn resubscribe(&mut self, scheduler: SchedulerId) -> Answer {
        let stream = self.new_stream();
        let Some(record) = self.schedulers.get_mut(scheduler.0) else {
            return Answer::bad_request("no such scheduler");
        };
        let mut info = record.info.clone();
        if record.id.is_some() {
            info.id.clone_from(&record.id);
        }
        record.stream = Some(stream);
        let subscribe = pb::scheduler::call::Subscribe {
            framework_info: info,
            ..Default::default()
        };
        self.master_event(Event::FrameworkSubscribe {
            stream,
            subscribe: Box::new(subscribe),
        })
    }

    /// The scheduler's connection breaks.
    pub fn disconnect(&mut self, scheduler: SchedulerId) {
        let stream = self
            .schedulers
            .get_mut(scheduler.0)
            .and_then(|s| s.stream.take());
        if let Some(stream) = stream {
            self.master_event(Event::Disconnected { stream });
        }
    }

    /// The scheduler calls; its framework id is filled in.
    pub fn call(&mut self, scheduler: SchedulerId, mut call: Call) -> Answer {
        let Some(record) = self.schedulers.get(scheduler.0) else {
            return Answer::bad_request("no such scheduler");
        };
        call.framework_id.clone_from(&record.id);
        if let Err(error) = crate::master::validate::scheduler_call(&call) {
            return Answer::bad_request(error);
        }
        let stream = record.stream.map(|s| s.to_string());
        self.master_event(Event::FrameworkCall {
            stream,
            call: Box::new(call),
        })
    }

    /// Takes the events that have arrived for a scheduler.
    pub fn events(&mut self, scheduler: SchedulerId) -> Vec<pb::scheduler::Event> {
        match self.schedulers.get_mut(scheduler.0) {
            Some(record) => record.inbox.drain(..).collect(),
            None => Vec::new(),
        }
    }

    /// The framework id that a scheduler was given.
    pub fn framework_id(&self, scheduler: SchedulerId) -> Option<&pb::FrameworkId> {
        self.schedulers.get(scheduler.0)?.id.as_ref()
    }

    /// Whether the scheduler's stream stands.
    pub fn connected(&self, scheduler: SchedulerId) -> bool {
        self.schedulers
            .get(scheduler.0)
            .is_some_and(|s| s.stream.is_some())
    }

    /// An operator calls.
    pub fn operator(&mut self, call: pb::master::Call) -> Answer {
        self.master_event(Event::OperatorCall(Box::new(call)))
    }

    // ---- faults

    /// An agent's process dies. Executors and tasks whose framework checkpoints live on.
    pub fn kill_agent(&mut self, number: usize) {
        let Some(agent) = self.agents.get_mut(number) else {
            return;
        };
        agent.die();
        if let Some(stream) = agent.stream.take() {
            self.by_stream.remove(&stream);
            self.send(number, false, Delivery::Broken(stream));
        }
    }

    /// An agent's process starts (again) and is about to register.
    pub fn start_agent(&mut self, number: usize) {
        let stream = self.new_stream();
        let Some(agent) = self.agents.get_mut(number) else {
            return;
        };
        if let Some(old) = agent.stream.replace(stream) {
            self.by_stream.remove(&old);
        }
        self.by_stream.insert(stream, number);
        self.send(number, false, Delivery::Subscribe(number, stream));
    }

    /// An agent's machine is gone with all that ran on it.
    pub fn destroy_agent(&mut self, number: usize) {
        self.kill_agent(number);
        if let Some(agent) = self.agents.get_mut(number) {
            agent.lose_everything();
        }
    }

    /// Nothing passes between an agent and the master (or all does again); neither notices but
    /// by the missing pings.
    pub fn partition(&mut self, number: usize, partitioned: bool) {
        if let Some(agent) = self.agents.get_mut(number) {
            agent.partitioned = partitioned;
        }
    }

    /// The master dies and another starts at once, with what the registry holds. Agents come
    /// back by themselves, schedulers when they are told to.
    pub fn restart_master(&mut self) {
        self.masters += 1;
        let registry = self.master.registry().clone();
        self.master = MasterState::new(
            self.settings.clone(),
            master_info(self.masters),
            registry,
            self.now,
        );
        for scheduler in &mut self.schedulers {
            scheduler.stream = None;
        }
        self.by_stream.clear();
        self.under_way
            .retain(|due| matches!(due.delivery, Delivery::AgentTimer(_)));
        for number in 0..self.agents.len() {
            if self.agents[number].stream.take().is_some() {
                self.start_agent(number);
            }
        }
    }

    // ---- time

    /// When something happens next.
    pub fn next_deadline(&self) -> Time {
        let delivery = self.under_way.peek().map_or(Time::NEVER, |due| due.at);
        delivery.min(self.master.next_deadline())
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) {
        let delivery = self.under_way.peek().map_or(Time::NEVER, |due| due.at);
        let deadline = self.master.next_deadline();
        if delivery <= deadline {
            let Some(due) = self.under_way.pop() else {
                return;
            };
            self.now = self.now.max(due.at);
            self.deliver(due.delivery);
        } else {
            self.now = self.now.max(deadline);
            self.master_event(Event::Tick);
        }
    }

    /// Lets everything happen that does until then.
    pub fn run_until(&mut self, time: Time) {
        while self.next_deadline() <= time {
            self.step();
        }
        self.now = self.now.max(time);
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    // ---- inside

    fn send(&mut self, agent: usize, to_agent: bool, delivery: Delivery) {
        let (least, most) = self.latency;
        let latency = if most > least {
            self.rng.random_range(least..most)
        } else {
            least
        };
        let last = self.link.entry((agent, to_agent)).or_insert(Time::EPOCH);
        let at = (self.now + latency).max(*last);
        *last = at;
        self.schedule(at, delivery);
    }

    fn schedule(&mut self, at: Time, delivery: Delivery) {
        self.serial += 1;
        let serial = self.serial;
        self.under_way.push(Due {
            at,
            serial,
            delivery,
        });
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::ToAgent(number, stream, message) => {
                let Some(agent) = self.agents.get_mut(number) else {
                    return;
                };
                // Of a connection that is no more, or lost between the two.
                if agent.stream != Some(stream) || agent.partitioned {
                    return;
                }
                let replies = agent.hear(self.now, *message, &mut self.plan, &mut self.rng);
                self.agent_says(number, replies);
            }
            Delivery::FromAgent(stream, message) => {
                self.master_event(Event::AgentCall { stream, message });
            }
            Delivery::Subscribe(number, stream) => {
                let Some(agent) = self.agents.get(number) else {
                    return;
                };
                if agent.stream != Some(stream) {
                    return;
                }
                if agent.partitioned {
                    // It tries until it gets through.
                    let at = self.now + Duration::from_secs(1);
                    self.schedule(at, Delivery::Subscribe(number, stream));
                    return;
                }
                let subscribe: Subscribe = agent.subscribe();
                let peer = agent.address();
                self.master_event(Event::AgentSubscribe {
                    stream,
                    peer,
                    subscribe: Box::new(subscribe),
                });
            }
            Delivery::Broken(stream) => {
                self.master_event(Event::Disconnected { stream });
            }
            Delivery::AgentTimer(number) => {
                let Some(agent) = self.agents.get_mut(number) else {
                    return;
                };
                let replies = agent.tick(self.now);
                self.agent_says(number, replies);
            }
        }
    }

    fn agent_says(&mut self, number: usize, replies: Vec<from_agent::Message>) {
        let agent = &self.agents[number];
        let (stream, partitioned) = (agent.stream, agent.partitioned);
        if let Some(at) = self.agents[number].next_timer() {
            self.schedule(at.max(self.now), Delivery::AgentTimer(number));
        }
        let Some(stream) = stream.filter(|_| !partitioned) else {
            return;
        };
        for message in replies {
            self.send(
                number,
                false,
                Delivery::FromAgent(stream, Box::new(message)),
            );
        }
    }

    fn master_event(&mut self, event: Event) -> Answer {
        let outcome = self.master.handle(self.now, event);
        for effect in outcome.effects {
            match effect {
                // Kept: a restart starts from the registry as it is.
                Effect::SaveRegistry => {}
                Effect::ToScheduler { stream, event } => self.scheduler_hears(stream, *event),
                Effect::ToAgent { stream, message } => {
                    if let Some(number) = self.by_stream.get(&stream).copied() {
                        self.send(number, true, Delivery::ToAgent(number, stream, message));
                    }
                }
                Effect::ToOperator { .. } => {}
                Effect::Close(stream) => self.closed(stream),
            }
        }
        outcome.answer
    }

    fn scheduler_hears(&mut self, stream: StreamId, event: pb::scheduler::Event) {
        let scheduler = self
            .schedulers
            .iter_mut()
            .find(|s| s.stream == Some(stream));
        if let Some(scheduler) = scheduler {
            if let Some(subscribed) = &event.subscribed {
                scheduler.id = Some(subscribed.framework_id.clone());
            }
            scheduler.inbox.push_back(event);
        }
    }

    fn closed(&mut self, stream: StreamId) {
        for scheduler in &mut self.schedulers {
            if scheduler.stream == Some(stream) {
                scheduler.stream = None;
            }
        }
        // An agent whose stream the master closes subscribes again, unless it was told to end.
        if let Some(number) = self.by_stream.remove(&stream)
            && self.agents[number].stream == Some(stream)
        {
            self.agents[number].stream = None;
            if !self.agents[number].refused {
                self.start_agent(number);
            }
        }
    }
}

fn master_info(number: u128) -> pb::MasterInfo {
    let id = uuid::Uuid::from_u128(number).to_string();
    pb::MasterInfo {
        id,
        ip: u32::from_le_bytes([127, 0, 0, 1]),
        port: 5050,
        pid: Some("master@127.0.0.1:5050".to_owned()),
        hostname: Some("127.0.0.1".to_owned()),
        version: Some(VERSION.to_owned()),
        ..Default::default()
    }
}

/// The address of the agent with this number.
fn address(number: usize) -> IpAddr {
    let n = u32::try_from(number).unwrap_or(u32::MAX >> 8) + 1;
    IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n))
}
