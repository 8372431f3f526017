//! Tasks of a simulation: launched, killed, reconciled, and what executors do with them.

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;

use super::{Inside, Mesos, Step, Task, alive};
use crate::core::Event;
use crate::core::event::{Launch, Update};
use crate::core::ids::{AgentId, NodeName, OfferId, PodUid, TaskId};
use crate::core::pool::Pool;
use crate::core::task::{End, MesosState, Outcome};
use crate::sim::api::Api;
use crate::sim::{Action, World, task_pod};

impl Mesos {
    pub(super) fn accept(
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
                    agent.revision.clone_from(&self.revision);
                    agent.revising = None;
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

    pub(super) fn kill(&mut self, world: &mut World, api: &mut Api, id: &AgentId, task: &TaskId) {
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

    pub(super) fn acknowledge(
        &mut self,
        world: &mut World,
        id: &AgentId,
        task: &TaskId,
        uuid: [u8; 16],
    ) {
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

    pub(super) fn reconcile(&mut self, world: &mut World, tasks: Vec<(TaskId, Option<AgentId>)>) {
        let answer = |world: &mut World, task: &TaskId, agent: Option<&AgentId>, state| {
            world.tell(Event::Update(Update {
                task: task.clone(),
                agent: agent.cloned(),
                state,
                text: "reconciliation".to_owned(),
                uuid: None,
                reconciliation: true,
                draining: false,
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
    pub(super) fn forward(&mut self, world: &mut World, id: &AgentId, task: &TaskId) {
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
            draining: agent.draining && !alive(state),
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

    pub(super) fn step(
        &mut self,
        world: &mut World,
        api: &mut Api,
        id: &AgentId,
        task: &TaskId,
        step: Step,
    ) {
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
    pub(in crate::sim) fn pod_is(
        &mut self,
        world: &mut World,
        node: &NodeName,
        uid: &PodUid,
        runs: bool,
    ) {
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
    pub(in crate::sim) fn life_of(&self, node: &NodeName) -> Option<TaskId> {
        self.agents
            .values()
            .find(|a| *a.hostname == *node.as_str())
            .and_then(|a| a.life.as_ref())
            .filter(|(_, ready)| *ready)
            .map(|(life, _)| life.clone())
    }

    pub(super) fn end_life(&mut self, world: &mut World, api: &mut Api, id: &AgentId, end: End) {
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
}

fn dropped(world: &mut World, id: &AgentId, task: &TaskId) {
    world.tell(Event::Update(Update {
        task: task.clone(),
        agent: Some(id.clone()),
        state: MesosState::Ended(End::NeverStarted),
        text: "TASK_DROPPED, REASON_INVALID_OFFERS".to_owned(),
        uuid: None,
        reconciliation: false,
        draining: false,
    }));
}
