//! Executors of a simulation that are asked to bring their nodes to another revision.

use seam::message::{RevisionState, ToFramework};

use super::{Inside, Mesos};
use crate::core::Event;
use crate::core::ids::{AgentId, ExecutorId, TaskId};
use crate::sim::{Action, World};

impl Mesos {
    pub(super) fn revise(&mut self, world: &mut World, id: &AgentId, executor: &ExecutorId) {
        let wanted = self.revision.clone();
        let lost = world.faults.message_lost;
        if world.chance(lost) {
            return;
        }
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let Some((life, true)) = agent.life.clone() else {
            return;
        };
        if !agent.reachable || agent.executor.as_ref() != Some(executor) {
            return;
        }
        match &agent.revising {
            // Another one has to wait.
            Some(other) if *other != wanted => {}
            Some(_) => self.answer(world, id, wanted, RevisionState::Working),
            None if agent.revision == wanted => {
                self.answer(world, id, wanted, RevisionState::InPlace);
            }
            None => {
                agent.revising = Some(wanted.clone());
                self.answer(world, id, wanted.clone(), RevisionState::Working);
                let after = world.millis(1_000..30_000);
                let done = Inside::Revised(id.clone(), life, wanted);
                world.at(after, Action::Mesos(done));
            }
        }
    }

    pub(super) fn revised(
        &mut self,
        world: &mut World,
        id: &AgentId,
        life: &TaskId,
        revision: String,
    ) {
        let failure = world.faults.revision_failure;
        let fails = world.chance(failure);
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        // What the executor was at ended with it.
        let same = agent.life.as_ref().is_some_and(|(of, _)| of == life);
        if !same || agent.revising.as_ref() != Some(&revision) {
            return;
        }
        agent.revising = None;
        let state = if fails {
            RevisionState::Failed {
                message: "a bad day".to_owned(),
            }
        } else {
            agent.revision.clone_from(&revision);
            RevisionState::InPlace
        };
        self.answer(world, id, revision, state);
    }

    fn answer(&self, world: &mut World, id: &AgentId, digest: String, state: RevisionState) {
        let lost = world.faults.message_lost;
        if world.chance(lost) {
            return;
        }
        let agent = self.agents.get(id).filter(|agent| agent.reachable);
        if let Some(executor) = agent.and_then(|agent| agent.executor.clone()) {
            let message = ToFramework::Revision { digest, state };
            world.tell(Event::Message { executor, message });
        }
    }

    /// How many nodes that are Ready have the wanted revision, and how many there are.
    pub(in crate::sim) fn rolled_out(&self) -> (usize, usize) {
        let ready = self.agents.values();
        let ready = ready.filter(|a| a.reachable && matches!(a.life, Some((_, true))));
        let (mut there, mut all) = (0, 0);
        for agent in ready {
            all += 1;
            there += usize::from(agent.revision == self.revision);
        }
        (there, all)
    }
}
