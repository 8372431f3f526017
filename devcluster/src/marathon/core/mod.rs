//! Marathon's decisions: `state + event -> state + effects`.
//!
//! What must survive a restart is [`Durable`]; everything else is learned again. After each
//! event [`Core::settle`] compares what there is with what there is to be and orders what is
//! missing, so that no event is needed twice and none can be missed for good.

mod deploy;
mod durable;
mod health;
mod instances;
mod matching;
mod mesos_events;
mod notices;
mod offers;
mod plan;
mod ports;
mod queue;
mod readiness;
mod residents;
mod settings;
mod task_info;
#[cfg(test)]
mod tests;
mod timers;
mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesos::pb;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

use super::api::{Request, Response};
use super::ids::{InstanceId, PathId, TaskId, Version};
use crate::clock::Time;

pub use deploy::{Deployment, Restart};
pub use durable::{Agent, Condition, Durable, Goal, Instance, Reservation, Task};
pub use health::Health;
pub use notices::Notice;
pub(in crate::marathon) use offers::waiting;
pub use plan::{Action, ActionKind, Step, plan};
pub use queue::{Delay, Queue};
pub use readiness::Readiness;
pub use settings::Settings;
use timers::Timer;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Nothing but time. Due at [`Core::next_deadline`].
    Tick,
    /// A request of a client.
    Api(Box<Request>),
    /// The subscription stands; SUBSCRIBED follows.
    Connected {
        /// The master's address.
        master: String,
    },
    /// There is no subscription.
    Disconnected,
    /// The framework's id is used up: its tasks are gone.
    Removed,
    /// An event of the master.
    Mesos(Box<pb::scheduler::Event>),
    /// A call did not reach the master, or may not have.
    CallFailed(Box<pb::scheduler::Call>),
    /// What a probe found.
    Probed {
        /// Which.
        probe: ProbeId,
        /// What.
        result: ProbeResult,
    },
}

/// Names a probe that is under way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeId {
    /// Of which task.
    pub task: TaskId,
    /// Which of its checks.
    pub check: CheckId,
}

/// One of an app's checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckId {
    /// A health check, by its place.
    Health(usize),
    /// A readiness check, by its place.
    Readiness(usize),
}

/// A question to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// An HTTP GET.
    Http {
        /// Where, `http://host:port/path`.
        url: String,
        /// How long it may take.
        timeout: Duration,
    },
    /// A TCP connection.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// How long it may take.
        timeout: Duration,
    },
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// An HTTP answer.
    Http {
        /// Its status.
        status: u16,
        /// Its `Content-Type`.
        content_type: String,
        /// The beginning of its body.
        body: String,
    },
    /// A connection.
    Connected,
    /// Neither.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Keep [`Core::durable`] on disk. What follows, the answer included, waits for it.
    Save,
    /// A call to the master. Calls that fail are not repeated by the loop.
    Call(Box<pb::scheduler::Call>),
    /// Ask a task; [`Event::Probed`] follows.
    Probe(ProbeId, Probe),
    /// Tell whoever listens.
    Notify(Notice),
    /// Begin anew with another framework id.
    Resubscribe,
    /// Another leader was asked for: stop and start again.
    Abdicate,
}

/// What one event leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The answer to a request.
    pub answer: Option<Response>,
    /// What is to be done.
    pub effects: Vec<Effect>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    pub(super) durable: Durable,
    pub(super) now: Time,
    pub(super) master: Option<String>,
    /// Whether SUBSCRIBED came and nothing broke since.
    pub(super) subscribed: bool,
    pub(super) queue: Queue,
    pub(super) health: BTreeMap<TaskId, BTreeMap<usize, Health>>,
    pub(super) readiness: BTreeMap<TaskId, BTreeMap<usize, Readiness>>,
    /// Tasks whose state the master has not told yet.
    unreconciled: BTreeSet<TaskId>,
    reconcile_round: u32,
    /// The last failure of each app, for people.
    pub(super) failures: BTreeMap<PathId, updates::TaskFailure>,
    revive: offers::Revive,
    timers: BTreeSet<(Time, Timer)>,
    rng: StdRng,
    changed: bool,
    effects: Vec<Effect>,
    pub(super) counters: BTreeMap<&'static str, u64>,
}

impl Core {
    /// Goes on with what was kept. `seed` makes all that is random.
    pub fn new(settings: Settings, durable: Durable, now: Time, seed: u64) -> Self {
        let mut core = Self {
            settings,
            durable,
            now,
            master: None,
            subscribed: false,
            queue: Queue::default(),
            health: BTreeMap::new(),
            readiness: BTreeMap::new(),
            unreconciled: BTreeSet::new(),
            reconcile_round: 0,
            failures: BTreeMap::new(),
            revive: offers::Revive::default(),
            timers: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seed),
            changed: false,
            effects: Vec::new(),
            counters: BTreeMap::new(),
        };
        if core.durable.framework_id.is_none() {
            core.durable.framework_id = Some(core.new_framework_id());
        }
        core.resume();
        core
    }

    /// What must be on disk after [`Effect::Save`].
    pub const fn durable(&self) -> &Durable {
        &self.durable
    }

    /// How it was set up.
    pub const fn settings(&self) -> &Settings {
        &self.settings
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
                None
            }
            Event::Api(request) => Some(super::api::answer(self, &request)),
            Event::Connected { master } => {
                self.master = Some(master);
                None
            }
            Event::Disconnected => {
                self.disconnected();
                None
            }
            Event::Removed => {
                self.removed();
                None
            }
            Event::Mesos(event) => {
                self.mesos_event(*event);
                None
            }
            Event::CallFailed(call) => {
                self.call_failed(&call);
                None
            }
            Event::Probed { probe, result } => {
                self.probed(&probe, &result);
                None
            }
        };
        self.settle();
        let mut effects = std::mem::take(&mut self.effects);
        if std::mem::take(&mut self.changed) {
            effects.insert(0, Effect::Save);
        }
        Outcome { answer, effects }
    }

    /// Compares what there is with what there is to be.
    fn settle(&mut self) {
        while self.advance_deployments() {}
        self.keep_counts();
        self.want_offers();
    }

    /// A version later than every one before.
    pub(super) fn new_version(&self) -> Version {
        Version::at(self.now).max(self.durable.last_version.next())
    }

    /// The present moment, as documents have it.
    pub(super) const fn timestamp(&self) -> Version {
        Version::at(self.now)
    }

    pub(super) fn new_uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }

    fn new_framework_id(&mut self) -> String {
        format!("{}-0000", self.new_uuid())
    }

    fn new_instance_id(&mut self, app: &PathId) -> InstanceId {
        InstanceId::new(app, self.new_uuid())
    }

    /// The state differs from what is on disk.
    pub(super) const fn touch(&mut self) {
        self.changed = true;
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn call(&mut self, call: pb::scheduler::Call) {
        if self.subscribed {
            self.effects.push(Effect::Call(Box::new(call)));
        }
    }

    pub(super) fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    fn arm(&mut self, at: Time, timer: Timer) {
        self.timers.insert((at, timer));
    }
}
