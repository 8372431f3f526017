//! Master, agents and executors of a simulation: offers and calls here, the rest in [`tasks`],
//! [`faults`], [`revise`] and [`check`].

mod check;
mod faults;
mod revise;
mod tasks;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::api::Api;
use super::{Action, World, names, offer_id};
use crate::core::event::OfferedAgent;
use crate::core::ids::{AgentId, ExecutorId, NodeName, OfferId, PodUid, Role, TaskId, Time};
use crate::core::maintenance::{InverseOffer, Unavailability};
use crate::core::node::AgentReport;
use crate::core::offer::Offer;
use crate::core::pool::{Amounts, Pool};
use crate::core::task::{End, MesosState, Outcome};
use crate::core::{Effect, Event};
use crate::resources::PortSet;

/// What happens inside Mesos by itself.
#[derive(Debug)]
pub enum Inside {
    /// The allocator's second has passed.
    Allocate,
    /// An executor goes on with a task.
    Task(AgentId, TaskId, Step),
    /// A lost agent comes back.
    Return(AgentId),
    /// The operator's work on an agent is over.
    Maintained(AgentId),
    /// The executor of that life is done with a revision.
    Revised(AgentId, TaskId, String),
    /// The agent tells an unacknowledged update again.
    Retry(AgentId, TaskId, [u8; 16]),
}

/// What an executor does next with a task.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The node task is delivered.
    Delivered,
    /// The node is Ready.
    NodeReady,
    /// It ends.
    End(End),
}

#[derive(Debug)]
struct Task {
    grant: Pool,
    pod: Option<PodUid>,
    node: NodeName,
    state: MesosState,
    /// Updates that are not acknowledged; the first is on its way.
    updates: VecDeque<([u8; 16], MesosState)>,
}

#[derive(Debug)]
struct Agent {
    hostname: Arc<str>,
    total: Pool,
    free: Pool,
    offers: BTreeMap<OfferId, Pool>,
    tasks: BTreeMap<TaskId, Task>,
    reachable: bool,
    filtered_until: Time,
    /// The life whose executor runs here, and whether its node is Ready.
    life: Option<(TaskId, bool)>,
    /// That executor.
    executor: Option<ExecutorId>,
    /// Its maintenance is planned.
    outage: Option<Unavailability>,
    /// No inverse offer before.
    inverse_after: Time,
    /// An operator drains it.
    draining: bool,
    /// The revision of its node, and the one that it is being brought to.
    revision: String,
    revising: Option<String>,
}

/// Mesos.
pub struct Mesos {
    agents: BTreeMap<AgentId, Agent>,
    suppressed: bool,
    next_offer: u64,
    /// Inverse offers that are not answered.
    inverse: BTreeMap<OfferId, AgentId>,
    /// How many inverse offers were accepted, and how many declined.
    pub answered: BTreeMap<bool, usize>,
    /// Tasks launched so far.
    pub launched: u64,
    /// The revision that the framework wants.
    pub(super) revision: String,
}

fn alive(state: MesosState) -> bool {
    !matches!(state, MesosState::Ended(_))
}

impl Mesos {
    pub(super) fn new(agents: usize, size: Amounts) -> Self {
        let agents = (0..agents)
            .map(|number| {
                let (id, node) = names(number);
                let total = Pool::unreserved(size, PortSet::from_ranges([(31_000, 31_099)]));
                let agent = Agent {
                    hostname: node.as_str().into(),
                    free: total.clone(),
                    total,
                    offers: BTreeMap::new(),
                    tasks: BTreeMap::new(),
                    reachable: true,
                    filtered_until: Time(0),
                    life: None,
                    executor: None,
                    outage: None,
                    inverse_after: Time(0),
                    draining: false,
                    revision: String::new(),
                    revising: None,
                };
                (id, agent)
            })
            .collect();
        Self {
            agents,
            suppressed: false,
            next_offer: 0,
            inverse: BTreeMap::new(),
            answered: BTreeMap::new(),
            launched: 0,
            revision: String::new(),
        }
    }

    /// Another agent joins.
    pub fn add_agent(&mut self, size: Amounts) {
        let number = self.agents.len();
        let more = Self::new(number + 1, size);
        for (id, agent) in more.agents {
            self.agents.entry(id).or_insert(agent);
        }
    }

    /// What all tasks that are alive hold.
    pub fn used(&self) -> Amounts {
        let tasks = self.agents.values().flat_map(|a| a.tasks.values());
        tasks
            .filter(|t| alive(t.state))
            .fold(Amounts::default(), |sum, t| sum.plus(&t.grant.amounts()))
    }

    /// What the tasks of one agent hold.
    pub fn used_of(&self, agent: &str) -> Amounts {
        let tasks = self.agents.get(agent).into_iter();
        tasks
            .flat_map(|agent| agent.tasks.values())
            .filter(|t| alive(t.state))
            .fold(Amounts::default(), |sum, t| sum.plus(&t.grant.amounts()))
    }

    /// Offers that the framework holds.
    pub fn offered(&self) -> usize {
        self.agents.values().map(|a| a.offers.len()).sum()
    }

    pub(super) fn forget_offers(&mut self) {
        for agent in self.agents.values_mut() {
            for (_, pool) in std::mem::take(&mut agent.offers) {
                agent.free.add(&pool);
            }
        }
    }

    pub(super) fn subscribed(&mut self, world: &mut World) {
        self.forget_offers();
        self.inverse.clear();
        self.suppressed = false;
        for agent in self.agents.values_mut() {
            agent.filtered_until = Time(0);
            agent.inverse_after = Time(0);
        }
        world.tell(Event::Subscribed);
        self.allocate(world);
        let unacknowledged: Vec<(AgentId, TaskId)> = self
            .agents
            .iter()
            .filter(|(_, a)| a.reachable)
            .flat_map(|(id, a)| a.tasks.iter().map(move |(task, t)| (id, task, t)))
            .filter(|(_, _, t)| !t.updates.is_empty())
            .map(|(id, task, _)| (id.clone(), task.clone()))
            .collect();
        for (agent, task) in unacknowledged {
            self.forward(world, &agent, &task);
        }
    }

    fn allocate(&mut self, world: &mut World) {
        if !world.connected || self.suppressed {
            return;
        }
        let now = world.now;
        let mut offers = Vec::new();
        for (id, agent) in &mut self.agents {
            let quiet = !agent.reachable || agent.draining || agent.filtered_until > now;
            if quiet || agent.free.is_empty() {
                continue;
            }
            self.next_offer += 1;
            let pool = std::mem::take(&mut agent.free);
            let offer = Offer {
                id: offer_id(self.next_offer),
                agent: id.clone(),
                role: Role::from("*"),
                pool: pool.clone(),
            };
            agent.offers.insert(offer.id.clone(), pool);
            let about = OfferedAgent {
                hostname: agent.hostname.clone(),
                ip: Some(std::net::IpAddr::from([10, 0, 0, 1])),
                attributes: Vec::new(),
                domain: None,
                executors: agent.executor.iter().cloned().collect(),
                unavailable: agent.outage,
            };
            offers.push((offer, about));
        }
        if !offers.is_empty() {
            world.tell(Event::Offers(offers));
        }
    }

    /// Inverse offers for what the framework has on agents whose maintenance is planned.
    fn ask_back(&mut self, world: &mut World) {
        if !world.connected {
            return;
        }
        let now = world.now;
        let mut offers = Vec::new();
        for (id, agent) in &self.agents {
            let out = self.inverse.values().any(|of| of == id);
            let used = agent.tasks.values().any(|task| alive(task.state));
            if let Some(unavailability) = agent.outage
                && agent.reachable
                && used
                && !out
                && agent.inverse_after <= now
            {
                self.next_offer += 1;
                offers.push(InverseOffer {
                    id: offer_id(self.next_offer),
                    agent: id.clone(),
                    unavailability,
                });
            }
        }
        for offer in &offers {
            self.inverse.insert(offer.id.clone(), offer.agent.clone());
        }
        if !offers.is_empty() {
            world.tell(Event::InverseOffers(offers));
        }
    }

    pub(super) fn call(&mut self, world: &mut World, api: &mut Api, effect: Effect) {
        match effect {
            Effect::Accept {
                offers,
                agent,
                launches,
                refuse_seconds,
                ..
            } => self.accept(world, &offers, &agent, launches, refuse_seconds),
            Effect::Decline {
                offers,
                refuse_seconds,
            } => {
                let now = world.now;
                for agent in self.agents.values_mut() {
                    for id in &offers {
                        if let Some(pool) = agent.offers.remove(id) {
                            agent.free.add(&pool);
                            agent.filtered_until = now + Duration::from_secs_f64(refuse_seconds);
                        }
                    }
                }
            }
            Effect::AnswerInverse {
                offers,
                accept,
                refuse_seconds,
            } => {
                let after = world.now + Duration::from_secs_f64(refuse_seconds);
                for offer in &offers {
                    if let Some(agent) = self
                        .inverse
                        .remove(offer)
                        .and_then(|id| self.agents.get_mut(&id))
                    {
                        agent.inverse_after = after;
                    }
                }
                *self.answered.entry(accept).or_default() += offers.len();
            }
            Effect::Suppress => self.suppressed = true,
            Effect::Revive => {
                self.suppressed = false;
                for agent in self.agents.values_mut() {
                    agent.filtered_until = Time(0);
                }
                world.tell(Event::Revived);
                self.allocate(world);
            }
            Effect::Kill { task, agent, .. } => self.kill(world, api, &agent, &task),
            Effect::Shutdown { executor, agent } => {
                let known = self
                    .agents
                    .get(&agent)
                    .is_some_and(|a| a.reachable && a.executor.as_ref() == Some(&executor));
                if known {
                    self.end_life(world, api, &agent, End::Proven(Outcome::Killed));
                }
            }
            Effect::Revise { executor, agent } => self.revise(world, &agent, &executor),
            Effect::Acknowledge { task, agent, uuid } => {
                self.acknowledge(world, &agent, &task, uuid);
            }
            Effect::Reconcile { tasks } => self.reconcile(world, tasks),
            Effect::PollPorts => {
                let tasks = self.agents.values().flat_map(|agent| &agent.tasks);
                let held = tasks
                    .map(|(id, task)| (id.clone(), task.grant.ports().iter().collect()))
                    .collect();
                world.tell(Event::HeldPorts(held));
            }
            Effect::PollAgents => {
                let reports = self
                    .agents
                    .iter()
                    .map(|(id, agent)| AgentReport {
                        id: id.clone(),
                        hostname: agent.hostname.clone(),
                        ip: Some(std::net::IpAddr::from([10, 0, 0, 1])),
                        attributes: Vec::new(),
                        domain: None,
                        total: agent.total.amounts(),
                        takes_limits: true,
                        active: agent.reachable,
                        draining: agent.draining,
                    })
                    .collect();
                world.tell(Event::Agents(reports));
            }
            _ => {}
        }
    }

    pub(super) fn inside(&mut self, world: &mut World, api: &mut Api, inside: Inside) {
        match inside {
            Inside::Allocate => {
                self.allocate(world);
                self.ask_back(world);
                world.at(Duration::from_secs(1), Action::Mesos(Inside::Allocate));
            }
            Inside::Retry(id, task, uuid) => {
                let same = self
                    .agents
                    .get(&id)
                    .and_then(|a| a.tasks.get(&task))
                    .and_then(|t| t.updates.front())
                    .is_some_and(|(front, _)| *front == uuid);
                if same {
                    self.forward(world, &id, &task);
                }
            }
            Inside::Return(id) => self.come_back(world, &id),
            Inside::Maintained(id) => self.maintained(world, &id),
            Inside::Revised(id, life, revision) => self.revised(world, &id, &life, revision),
            Inside::Task(id, task, step) => self.step(world, api, &id, &task, step),
        }
    }
}
