//! What is not as it should be once a simulation is calm, as Mesos sees it.

use super::{Mesos, alive};
use crate::core::task::MesosState;
use crate::sim::api::Api;

impl Mesos {
    pub(in crate::sim) fn unsettled(&self, api: &Api) -> Vec<String> {
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
