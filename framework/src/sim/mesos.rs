//! Master, agents and executors of a simulation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::seq::IteratorRandom;

use super::api::Api;
use super::{Action, World, names, offer_id, task_pod};
use crate::core::event::{Launch, OfferedAgent, Update};
use crate::core::ids::{AgentId, ExecutorId, NodeName, OfferId, PodUid, Role, TaskId, Time};
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
}

/// Mesos.
pub struct Mesos {
    agents: BTreeMap<AgentId, Agent>,
    suppressed: bool,
    next_offer: u64,
    /// Tasks launched so far.
    pub launched: u64,
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
                };
                (id, agent)
            })
            .collect();
        Self {
            agents,
            suppressed: false,
            next_offer: 0,
            launched: 0,
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
        self.suppressed = false;
        for agent in self.agents.values_mut() {
            agent.filtered_until = Time(0);
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
            if !agent.reachable || agent.filtered_until > now || agent.free.is_empty() {
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
            };
            offers.push((offer, about));
        }
        if !offers.is_empty() {
            world.tell(Event::Offers(offers));
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
            Effect::Suppress => self.suppressed = true,
            Effect::Revive => {
                self.suppressed = false;
                for agent in self.agents.values_mut() {
                    agent.filtered_until = Time(0);
                }
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
            Effect::Acknowledge { task, agent, uuid } => {
                self.acknowledge(world, &agent, &task, uuid);
            }
            Effect::Reconcile { tasks } => self.reconcile(world, tasks),
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
                    })
                    .collect();
                world.tell(Event::Agents(reports));
            }
            _ => {}
        }
    }

    fn accept(
        &mut self,
        world: &mut World,
        offers: &[OfferId],
        id: &AgentId,
        launches: Vec<Launch>,
        refuse_seconds: f64,
    ) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let mut pool = Pool::default();
        let mut valid = true;
        for offer in offers {
            match agent.offers.remove(offer) {
                Some(part) => pool.add(&part),
                None => valid = false,
            }
        }
        if !valid {
            agent.free.add(&pool);
            for launch in launches {
                dropped(world, id, launch.task());
            }
            return;
        }
        let mut delivered = Vec::new();
        for launch in launches {
            let task = launch.task().clone();
            let grant = launch.grant().clone();
            let ports: Vec<u16> = grant.ports().iter().collect();
            if pool.take(&grant.amounts(), &ports).is_none() {
                world.violation(format!("task {task} takes more than its offers have"));
                continue;
            }
            if agent.tasks.contains_key(&task) {
                world.violation(format!("task id {task} is used twice"));
            }
            self.launched += 1;
            let (pod, node) = match &launch {
                Launch::Node(launch) => {
                    if agent.life.is_some() {
                        world.violation(format!("a second life of {} begins", launch.node));
                    }
                    agent.life = Some((task.clone(), false));
                    agent.executor = Some(launch.note.executor.clone());
                    (None, launch.node.clone())
                }
                Launch::Pod(launch) => (Some(launch.uid.clone()), launch.node.clone()),
            };
            let state = MesosState::Staging;
            agent.tasks.insert(
                task.clone(),
                Task {
                    grant,
                    pod,
                    node,
                    state,
                    updates: VecDeque::new(),
                },
            );
            delivered.push(task);
        }
        agent.free.add(&pool);
        if refuse_seconds > 0.0 {
            agent.filtered_until = world.now + Duration::from_secs_f64(refuse_seconds);
        }
        for task in delivered {
            let after = world.millis(20..200);
            let step = Inside::Task(id.clone(), task, Step::Delivered);
            world.at(after, Action::Mesos(step));
        }
    }

    fn kill(&mut self, world: &mut World, api: &mut Api, id: &AgentId, task: &TaskId) {
        let lost = world.faults.kill_lost;
        let known = self
            .agents
            .get(id)
            .is_some_and(|a| a.tasks.contains_key(task));
        if !known {
            self.reconcile(world, vec![(task.clone(), Some(id.clone()))]);
            return;
        }
        if world.chance(lost) {
            return;
        }
        let Some(agent) = self.agents.get_mut(id).filter(|a| a.reachable) else {
            return;
        };
        let Some(entry) = agent.tasks.get(task).filter(|t| alive(t.state)) else {
            return;
        };
        match &entry.pod {
            Some(uid) if api.is_bound_to(uid, &entry.node) => {
                // The executor deletes the pod, and its end is the task's end.
                api.delete(world, uid);
            }
            Some(_) => {
                let after = world.millis(5..50);
                let step = Step::End(End::Proven(Outcome::Killed));
                world.at(
                    after,
                    Action::Mesos(Inside::Task(id.clone(), task.clone(), step)),
                );
            }
            None => {
                // The node task ends last.
                let pods = agent
                    .tasks
                    .values()
                    .any(|t| t.pod.is_some() && alive(t.state));
                if pods {
                    return;
                }
                let after = world.millis(50..500);
                let step = Step::End(End::Proven(Outcome::Killed));
                world.at(
                    after,
                    Action::Mesos(Inside::Task(id.clone(), task.clone(), step)),
                );
            }
        }
    }

    fn acknowledge(&mut self, world: &mut World, id: &AgentId, task: &TaskId, uuid: [u8; 16]) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let Some(entry) = agent.tasks.get_mut(task) else {
            return;
        };
        if entry
            .updates
            .front()
            .is_some_and(|(front, _)| *front == uuid)
        {
            entry.updates.pop_front();
            if entry.updates.is_empty() && !alive(entry.state) {
                agent.tasks.remove(task);
            } else {
                self.forward(world, id, task);
            }
        }
    }

    fn reconcile(&mut self, world: &mut World, tasks: Vec<(TaskId, Option<AgentId>)>) {
        let answer = |world: &mut World, task: &TaskId, agent: Option<&AgentId>, state| {
            world.tell(Event::Update(Update {
                task: task.clone(),
                agent: agent.cloned(),
                state,
                text: "reconciliation".to_owned(),
                uuid: None,
                reconciliation: true,
            }));
        };
        if tasks.is_empty() {
            for (id, agent) in self.agents.iter().filter(|(_, a)| a.reachable) {
                for (task, entry) in &agent.tasks {
                    answer(world, task, Some(id), entry.state);
                }
            }
            return;
        }
        for (task, id) in tasks {
            let agent = id.as_ref().and_then(|id| self.agents.get(id));
            let state = match agent {
                None => MesosState::Unreachable,
                Some(agent) if !agent.reachable => MesosState::Unreachable,
                Some(agent) => agent
                    .tasks
                    .get(&task)
                    .map_or(MesosState::Ended(End::Proven(Outcome::Gone)), |t| t.state),
            };
            answer(world, &task, id.as_ref(), state);
        }
    }

    /// Sends the first update that is not acknowledged.
    fn forward(&mut self, world: &mut World, id: &AgentId, task: &TaskId) {
        let Some(agent) = self.agents.get(id).filter(|a| a.reachable) else {
            return;
        };
        let Some((uuid, state)) = agent
            .tasks
            .get(task)
            .and_then(|t| t.updates.front())
            .copied()
        else {
            return;
        };
        let update = Update {
            task: task.clone(),
            agent: Some(id.clone()),
            state,
            text: format!("{state:?}"),
            uuid: Some(uuid),
            reconciliation: false,
        };
        let twice = world.faults.duplicate;
        if world.chance(twice) {
            world.tell(Event::Update(update.clone()));
        }
        world.tell(Event::Update(update));
        let retry = Inside::Retry(id.clone(), task.clone(), uuid);
        world.at(Duration::from_secs(10), Action::Mesos(retry));
    }

    fn set_state(&mut self, world: &mut World, id: &AgentId, task: &TaskId, state: MesosState) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let Some(entry) = agent.tasks.get_mut(task).filter(|t| alive(t.state)) else {
            return;
        };
        entry.state = state;
        if !alive(state) {
            let grant = entry.grant.clone();
            agent.free.add(&grant);
        }
        let Some(entry) = agent.tasks.get_mut(task) else {
            return;
        };
        let uuid: [u8; 16] = world.rng.random();
        entry.updates.push_back((uuid, state));
        if entry.updates.len() == 1 {
            self.forward(world, id, task);
        }
    }

    pub(super) fn inside(&mut self, world: &mut World, api: &mut Api, inside: Inside) {
        match inside {
            Inside::Allocate => {
                self.allocate(world);
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
            Inside::Task(id, task, step) => self.step(world, api, &id, &task, step),
        }
    }

    fn step(&mut self, world: &mut World, api: &mut Api, id: &AgentId, task: &TaskId, step: Step) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let Some(entry) = agent.tasks.get(task).filter(|t| alive(t.state)) else {
            return;
        };
        let (pod, node) = (entry.pod.clone(), entry.node.clone());
        match (step, pod) {
            (Step::Delivered, None) => {
                self.set_state(world, id, task, MesosState::Starting);
                let fails = world.faults.start_failure;
                let (range, step) = if world.chance(fails) {
                    (100..1000, Step::End(End::Proven(Outcome::Failed)))
                } else {
                    (500..4000, Step::NodeReady)
                };
                let after = world.millis(range);
                world.at(
                    after,
                    Action::Mesos(Inside::Task(id.clone(), task.clone(), step)),
                );
            }
            (Step::Delivered, Some(_)) => match &agent.life {
                Some((_, true)) => self.pod_starting(world, api, id, task),
                Some((_, false)) => {}
                // An executor that got pods without a node task gives them back.
                None => self.set_state(
                    world,
                    id,
                    task,
                    MesosState::Ended(End::Proven(Outcome::Failed)),
                ),
            },
            (Step::NodeReady, _) => {
                agent.life = Some((task.clone(), true));
                self.set_state(world, id, task, MesosState::Running);
                api.node_ready(world, &node, task);
                let pods: Vec<TaskId> = self.pod_tasks(id);
                for pod in pods {
                    self.pod_starting(world, api, id, &pod);
                }
            }
            (Step::End(end), None) => {
                self.end_life(world, api, id, end);
            }
            (Step::End(end), Some(_)) => {
                self.set_state(world, id, task, MesosState::Ended(end));
            }
        }
    }

    fn pod_tasks(&self, id: &AgentId) -> Vec<TaskId> {
        let Some(agent) = self.agents.get(id) else {
            return Vec::new();
        };
        let pods = agent
            .tasks
            .iter()
            .filter(|(_, t)| t.pod.is_some() && alive(t.state));
        pods.map(|(task, _)| task.clone()).collect()
    }

    fn pod_starting(&mut self, world: &mut World, api: &mut Api, id: &AgentId, task: &TaskId) {
        self.set_state(world, id, task, MesosState::Starting);
        if let Some(uid) = task_pod(task) {
            api.kubelet_looks(world, &uid);
        }
    }

    /// kubelet says: the pod runs, or has ended.
    pub(super) fn pod_is(&mut self, world: &mut World, node: &NodeName, uid: &PodUid, runs: bool) {
        let found: Vec<(AgentId, TaskId)> = self
            .agents
            .iter()
            .flat_map(|(id, a)| a.tasks.iter().map(move |(task, t)| (id, task, t)))
            .filter(|(_, _, t)| t.pod.as_ref() == Some(uid) && t.node == *node && alive(t.state))
            .map(|(id, task, _)| (id.clone(), task.clone()))
            .collect();
        for (id, task) in found {
            let state = if runs {
                MesosState::Running
            } else {
                MesosState::Ended(End::Proven(Outcome::Finished))
            };
            self.set_state(world, &id, &task, state);
        }
    }

    /// The life of a node whose kubelet runs and can be reached by its executor.
    pub(super) fn life_of(&self, node: &NodeName) -> Option<TaskId> {
        self.agents
            .values()
            .find(|a| *a.hostname == *node.as_str())
            .and_then(|a| a.life.as_ref())
            .filter(|(_, ready)| *ready)
            .map(|(life, _)| life.clone())
    }

    fn end_life(&mut self, world: &mut World, api: &mut Api, id: &AgentId, end: End) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let Some((life, _)) = agent.life.take() else {
            return;
        };
        agent.executor = None;
        let node = NodeName::from(&*agent.hostname);
        api.life_ended(&node, &life);
        let tasks: Vec<TaskId> = agent
            .tasks
            .iter()
            .filter(|(_, t)| alive(t.state))
            .map(|(task, _)| task.clone())
            .collect();
        for task in tasks {
            self.set_state(world, id, &task, MesosState::Ended(end));
        }
        world.tell(Event::Failure {
            agent: id.clone(),
            executor: Some("any".into()),
        });
    }

    pub(super) fn kill_executor(&mut self, world: &mut World, api: &mut Api) {
        let lives = self.agents.iter().filter(|(_, a)| a.life.is_some());
        let Some(id) = lives.map(|(id, _)| id.clone()).choose(&mut world.rng) else {
            return;
        };
        self.end_life(world, api, &id, End::Proven(Outcome::Failed));
    }

    pub(super) fn rescind(&mut self, world: &mut World) {
        let offers = self
            .agents
            .iter()
            .flat_map(|(id, a)| a.offers.keys().map(move |offer| (id, offer)));
        let Some((id, offer)) = offers
            .map(|(id, offer)| (id.clone(), offer.clone()))
            .choose(&mut world.rng)
        else {
            return;
        };
        self.void(world, &id, &offer);
    }

    fn void(&mut self, world: &mut World, id: &AgentId, offer: &OfferId) {
        if let Some(agent) = self.agents.get_mut(id)
            && let Some(pool) = agent.offers.remove(offer)
        {
            agent.free.add(&pool);
            world.tell(Event::Rescind(offer.clone()));
        }
    }

    pub(super) fn partition(&mut self, world: &mut World) {
        let reachable = self.agents.iter().filter(|(_, a)| a.reachable);
        let Some(id) = reachable.map(|(id, _)| id.clone()).choose(&mut world.rng) else {
            return;
        };
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        agent.reachable = false;
        let offers: Vec<OfferId> = agent.offers.keys().cloned().collect();
        let tasks: Vec<TaskId> = agent.tasks.keys().cloned().collect();
        for offer in offers {
            self.void(world, &id, &offer);
        }
        for task in tasks {
            world.tell(Event::Update(Update {
                task,
                agent: Some(id.clone()),
                state: MesosState::Unreachable,
                text: "TASK_UNREACHABLE".to_owned(),
                uuid: None,
                reconciliation: false,
            }));
        }
        world.tell(Event::Failure {
            agent: id.clone(),
            executor: None,
        });
        let after = world.millis(1_000..120_000);
        world.at(after, Action::Mesos(Inside::Return(id)));
    }

    fn come_back(&mut self, world: &mut World, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        if agent.reachable {
            return;
        }
        agent.reachable = true;
        let tasks: Vec<(TaskId, MesosState)> = agent
            .tasks
            .iter()
            .map(|(task, t)| (task.clone(), t.state))
            .collect();
        for (task, state) in tasks {
            if alive(state) {
                world.tell(Event::Update(Update {
                    task: task.clone(),
                    agent: Some(id.clone()),
                    state,
                    text: "AGENT_REREGISTERED".to_owned(),
                    uuid: None,
                    reconciliation: false,
                }));
            }
            self.forward(world, id, &task);
        }
    }

    pub(super) fn heal(&mut self, world: &mut World) {
        let lost: Vec<AgentId> = self.agents.keys().cloned().collect();
        for id in lost {
            self.come_back(world, &id);
        }
    }

    pub(super) fn unsettled(&self, api: &Api) -> Vec<String> {
        let mut problems = Vec::new();
        for (id, agent) in &self.agents {
            let mut sum = agent.free.amounts();
            for pool in agent.offers.values() {
                sum = sum.plus(&pool.amounts());
            }
            for task in agent.tasks.values().filter(|t| alive(t.state)) {
                sum = sum.plus(&task.grant.amounts());
            }
            if sum != agent.total.amounts() {
                problems.push(format!("agent {id} has lost or won resources"));
            }
            for (task, entry) in agent.tasks.iter().filter(|(_, t)| alive(t.state)) {
                match &entry.pod {
                    Some(uid) if !api.is_bound_to(uid, &entry.node) => {
                        problems.push(format!("task {task} has no pod on {}", entry.node));
                    }
                    Some(_) if entry.state != MesosState::Running => {
                        problems.push(format!("task {task} is {:?}", entry.state));
                    }
                    _ => {}
                }
            }
        }
        for (uid, node) in api.running() {
            let count = self
                .agents
                .values()
                .flat_map(|a| a.tasks.values())
                .filter(|t| t.pod.as_ref() == Some(uid) && t.node == *node && alive(t.state))
                .count();
            if count != 1 {
                problems.push(format!("pod {uid} on {node} has {count} tasks"));
            }
        }
        problems
    }
}

fn dropped(world: &mut World, id: &AgentId, task: &TaskId) {
    world.tell(Event::Update(Update {
        task: task.clone(),
        agent: Some(id.clone()),
        state: MesosState::Ended(End::NeverStarted),
        text: "TASK_DROPPED, REASON_INVALID_OFFERS".to_owned(),
        uuid: None,
        reconciliation: false,
    }));
}
