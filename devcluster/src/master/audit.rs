//! Checks that the master's books agree with each other: what every simulation asks after
//! every step, and what no recorded traffic shows.

use std::collections::BTreeMap;

use super::state::{MasterState, Owner, is_terminal};
use crate::ids::AgentId;
use crate::resources::Resources;

impl MasterState {
    /// Finds resources that are lost or given twice, and records that point nowhere. The error
    /// names the first one.
    pub fn audit(&self) -> Result<(), String> {
        let mut held: BTreeMap<&AgentId, Vec<Resources>> = BTreeMap::new();
        for (id, offer) in &self.offers {
            let known = self
                .frameworks
                .get(&offer.framework)
                .is_some_and(|f| f.stream.is_some() && f.offers.contains(id));
            if !known {
                return Err(format!("offer {id} is not its framework's"));
            }
            let Some((agent, record)) = self.agents.get_key_value(&offer.agent) else {
                return Err(format!("offer {id} outlives agent {}", offer.agent));
            };
            if !record.offers.contains(id) {
                return Err(format!("offer {id} is not its agent's"));
            }
            held.entry(agent)
                .or_default()
                .push(offer.resources.unallocated());
        }
        for (framework_id, framework) in &self.frameworks {
            if let Some(id) = framework
                .offers
                .iter()
                .find(|id| !self.offers.contains_key(*id))
            {
                return Err(format!(
                    "framework {framework_id} holds offer {id}, which is not"
                ));
            }
            for (task_id, task) in &framework.tasks {
                let agent = AgentId::from(&task.pb.agent_id);
                let key = (framework_id.clone(), task_id.clone());
                let Some((agent, record)) = self.agents.get_key_value(&agent) else {
                    return Err(format!("task {task_id} outlives agent {agent}"));
                };
                if !record.tasks.contains(&key) {
                    return Err(format!("task {task_id} is not its agent's"));
                }
                if is_terminal(task.pb.state) != task.resources.is_empty() {
                    return Err(format!(
                        "task {task_id} has ended and holds {}, or the reverse",
                        task.resources
                    ));
                }
                held.entry(agent)
                    .or_default()
                    .push(task.resources.unallocated());
            }
            if let Some(stream) = framework.stream
                && self.streams.get(&stream) != Some(&Owner::Framework(framework_id.clone()))
            {
                return Err(format!(
                    "the stream of framework {framework_id} is not its own"
                ));
            }
        }
        for (id, agent) in &self.agents {
            for (framework, task) in &agent.tasks {
                let known = self
                    .frameworks
                    .get(framework)
                    .is_some_and(|f| f.tasks.contains_key(task));
                if !known {
                    return Err(format!("agent {id} has task {task}, which is not"));
                }
            }
            if let Some(offer) = agent.offers.iter().find(|o| !self.offers.contains_key(*o)) {
                return Err(format!("agent {id} has offer {offer}, which is not"));
            }
            if !agent.active() && !agent.offers.is_empty() {
                return Err(format!("agent {id} is not active but offered"));
            }
            let mut parts = held.remove(id).unwrap_or_default();
            for executor in agent.executors.values() {
                parts.push(executor.resources.unallocated());
            }
            parts.push(self.allocator.available(id).unwrap_or_default());
            sums_up(&agent.total, &parts).map_err(|why| format!("agent {id}: {why}"))?;
        }
        for (stream, owner) in &self.streams {
            let fits = match owner {
                Owner::Framework(id) => self
                    .frameworks
                    .get(id)
                    .is_some_and(|f| f.stream == Some(*stream)),
                Owner::Agent(id) => self
                    .agents
                    .get(id)
                    .is_some_and(|a| a.stream == Some(*stream)),
                Owner::Operator => self.operators.contains(stream),
            };
            if !fits {
                return Err(format!(
                    "stream {stream} belongs to {owner:?}, who has another"
                ));
            }
        }
        Ok(())
    }
}

impl MasterState {
    /// The tasks that have not ended as far as the master knows: framework and task id.
    pub fn live_tasks(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for (id, framework) in &self.frameworks {
            for (task, record) in &framework.tasks {
                if !is_terminal(record.pb.state) {
                    out.push((id.to_string(), task.to_string()));
                }
            }
        }
        out
    }
}

/// Whether the parts, put together, are the whole: nothing missing, nothing twice.
fn sums_up(total: &Resources, parts: &[Resources]) -> Result<(), String> {
    let mut rest = total.clone();
    for part in parts {
        rest.subtract(part)
            .map_err(|e| format!("{} was given twice: {e}", part))?;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{rest} is lost of {total}"))
    }
}
