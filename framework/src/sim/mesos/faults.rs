//! What goes wrong with agents and executors of a simulation, and what operators do to them.

use std::time::Duration;

use rand::seq::IteratorRandom;

use super::{Inside, Mesos, alive};
use crate::core::Event;
use crate::core::event::Update;
use crate::core::ids::{AgentId, OfferId, TaskId};
use crate::core::maintenance::Unavailability;
use crate::core::task::{End, MesosState, Outcome};
use crate::sim::api::Api;
use crate::sim::{Action, World};

impl Mesos {
    pub(in crate::sim) fn kill_executor(&mut self, world: &mut World, api: &mut Api) {
        let lives = self.agents.iter().filter(|(_, a)| a.life.is_some());
        let Some(id) = lives.map(|(id, _)| id.clone()).choose(&mut world.rng) else {
            return;
        };
        self.end_life(world, api, &id, End::Proven(Outcome::Failed));
    }

    pub(in crate::sim) fn rescind(&mut self, world: &mut World) {
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

    pub(in crate::sim) fn partition(&mut self, world: &mut World) {
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
                draining: false,
            }));
        }
        world.tell(Event::Failure {
            agent: id.clone(),
            executor: None,
        });
        let after = world.millis(1_000..120_000);
        world.at(after, Action::Mesos(Inside::Return(id)));
    }

    pub(super) fn come_back(&mut self, world: &mut World, id: &AgentId) {
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
                    draining: false,
                }));
            }
            self.forward(world, id, &task);
        }
    }

    pub(in crate::sim) fn heal(&mut self, world: &mut World) {
        let lost: Vec<AgentId> = self.agents.keys().cloned().collect();
        for id in lost {
            self.come_back(world, &id);
            self.maintained(world, &id);
        }
    }

    /// An operator announces maintenance of an agent, and is done with it a while after.
    pub(in crate::sim) fn plan_maintenance(&mut self, world: &mut World) {
        let Some(id) = self.one_in_service(world) else {
            return;
        };
        let start = world.millis(5_000..120_000);
        self.announce(world, &id, start);
        let after = start + world.millis(10_000..60_000);
        world.at(after, Action::Mesos(Inside::Maintained(id)));
    }

    /// Maintenance of that agent begins after so long.
    pub(in crate::sim) fn announce(&mut self, world: &mut World, id: &AgentId, start: Duration) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.outage = Some(Unavailability {
                start: world.now + start,
                duration: None,
            });
        }
        self.void_all(world, id);
    }

    /// An operator drains an agent: its executor is told to KILL everything.
    pub(in crate::sim) fn drain_some(&mut self, world: &mut World, api: &mut Api) {
        if let Some(id) = self.one_in_service(world) {
            self.drain(world, api, &id);
            let after = world.millis(20_000..120_000);
            world.at(after, Action::Mesos(Inside::Maintained(id)));
        }
    }

    /// Drains that agent.
    pub(in crate::sim) fn drain(&mut self, world: &mut World, api: &mut Api, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        agent.draining = true;
        let tasks: Vec<TaskId> = agent.tasks.keys().cloned().collect();
        self.void_all(world, id);
        for task in tasks {
            self.kill(world, api, id, &task);
        }
    }

    /// The agent is in service again: schedule withdrawn, or reactivated.
    pub(in crate::sim) fn maintained(&mut self, world: &mut World, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        if agent.outage.take().is_some() {
            self.void_all(world, id);
        }
        if let Some(agent) = self.agents.get_mut(id) {
            agent.draining = false;
        }
        self.inverse.retain(|_, of| of != id);
    }

    fn one_in_service(&self, world: &mut World) -> Option<AgentId> {
        self.agents
            .iter()
            .filter(|(_, a)| a.reachable && !a.draining && a.outage.is_none())
            .map(|(id, _)| id.clone())
            .choose(&mut world.rng)
    }

    /// What an agent offered before its state changed is void.
    fn void_all(&mut self, world: &mut World, id: &AgentId) {
        let offers = self.agents.get(id).map(|agent| agent.offers.keys());
        let offers: Vec<OfferId> = offers.into_iter().flatten().cloned().collect();
        for offer in offers {
            self.void(world, id, &offer);
        }
    }
}
