//! Agents that an operator takes out of use: deactivated ones, which only get no more offers, and
//! draining ones, whose tasks are killed besides. An agent is drained when the last of its tasks is
//! gone and acknowledged; then it stays deactivated, or is marked gone, as the operator wanted it.
//! All of it survives a restart of the master.

use mesos::pb;

use super::event::Answer;
use super::loss::Loss;
use super::maintenance::Machine;
use super::state::{Agent, MasterState};
use crate::clock::Time;
use crate::ids::AgentId;
use crate::protocol::{self, to_agent};

/// A drain that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Drain {
    /// As the operator wanted it.
    pub config: pb::DrainConfig,
    /// Nothing is left on the agent.
    pub drained: bool,
    /// When it began.
    pub since: Time,
}

impl Drain {
    /// As GET_AGENTS shows it.
    pub fn info(&self) -> pb::DrainInfo {
        let state = if self.drained {
            pb::DrainState::Drained
        } else {
            pb::DrainState::Draining
        };
        pb::DrainInfo {
            state: state as i32,
            config: self.config,
        }
    }
}

impl MasterState {
    /// What was begun on an agent and not ended by reactivating it.
    pub(super) fn drain_of(&self, agent: &Agent) -> Option<&Drain> {
        let id = AgentId::from(agent.info.id.as_ref()?);
        self.registry.draining.get(&id)
    }

    fn is_known(&self, id: &AgentId) -> bool {
        self.agents.contains_key(id)
            || self.recovered.contains_key(id)
            || self.registry.unreachable.contains_key(id)
    }

    /// DRAIN_AGENT. Draining again replaces what was wanted before.
    pub(super) fn drain_agent(&mut self, call: &pb::master::call::DrainAgent) -> Answer {
        let id = AgentId::from(&call.agent_id);
        if let Some(agent) = self.agents.get(&id) {
            if let Some(machine) = self.scheduled_machine(agent) {
                return Answer::bad_request(format!(
                    "Agent {id} is part of a maintenance schedule under Machine {}",
                    Machine::shown(machine)
                ));
            }
            let draining = pb::agent_info::capability::Type::AgentDraining as i32;
            if !agent
                .capabilities
                .iter()
                .any(|c| c.r#type == Some(draining))
            {
                return Answer::bad_request(format!("Agent {id} is not capable of draining"));
            }
        }
        if !self.is_known(&id) {
            return Answer::bad_request("Unknown agent");
        }
        let grace = call
            .max_grace_period
            .as_ref()
            .map(|grace| pb::DurationInfo {
                nanoseconds: grace
                    .seconds
                    .saturating_mul(1_000_000_000)
                    .saturating_add(i64::from(grace.nanos)),
            });
        let drain = Drain {
            config: pb::DrainConfig {
                max_grace_period: grace,
                mark_gone: Some(call.mark_gone()),
            },
            drained: false,
            since: self.now,
        };
        tracing::info!(agent = %id, config = ?drain.config, "draining");
        self.registry.draining.insert(id.clone(), drain);
        self.set_deactivated(&id);
        self.tell_to_drain(&id);
        Answer::Ok
    }

    /// DEACTIVATE_AGENT.
    pub(super) fn deactivate_agent(&mut self, id: &AgentId) -> Answer {
        if !self.is_known(id) {
            return Answer::bad_request("Unknown agent");
        }
        self.set_deactivated(id);
        Answer::Ok
    }

    fn set_deactivated(&mut self, id: &AgentId) {
        self.registry.deactivated.insert(id.clone());
        self.save();
        if let Some(agent) = self.agents.get_mut(id) {
            agent.deactivated = true;
            self.allocator.set_agent_active(id, false);
            self.rescind_offers_of(id);
            self.rescind_inverse_offers_of(id);
        }
    }

    /// REACTIVATE_AGENT.
    pub(super) fn reactivate_agent(&mut self, id: &AgentId) -> Answer {
        if !self.registry.deactivated.contains(id) {
            return Answer::bad_request("Agent is not deactivated");
        }
        if self.registry.draining.get(id).is_some_and(|d| !d.drained) {
            return Answer::bad_request("Agent is still in the DRAINING state");
        }
        self.registry.draining.remove(id);
        self.registry.deactivated.remove(id);
        self.save();
        let Some(agent) = self.agents.get_mut(id) else {
            return Answer::error(409, "Agent removed while processing the call");
        };
        agent.deactivated = false;
        let active = agent.active();
        self.allocator.set_agent_active(id, active);
        // As in Mesos it is offered with the next round.
        Answer::Ok
    }

    /// An agent (that is back) hears what is wanted of it.
    pub(super) fn tell_to_drain(&mut self, id: &AgentId) {
        if let Some(drain) = self.registry.draining.get(id) {
            let message = protocol::Drain {
                config: drain.config,
            };
            self.tell_agent(id, to_agent::Message::Drain(message));
        }
    }

    /// Agents that have nothing left are drained. Called after every event.
    pub(super) fn look_for_drained(&mut self) {
        let drained: Vec<(AgentId, bool)> = self
            .registry
            .draining
            .iter()
            .filter(|(id, drain)| {
                let empty = self.agents.get(*id).is_some_and(|a| a.tasks.is_empty());
                !drain.drained && empty && !self.has_operations(id)
            })
            .map(|(id, drain)| ((*id).clone(), drain.config.mark_gone()))
            .collect();
        for (id, mark_gone) in drained {
            tracing::info!(agent = %id, mark_gone, "drained");
            if mark_gone {
                self.lose_agent(&id, Loss::Gone, "Agent has been marked gone");
                continue;
            }
            if let Some(drain) = self.registry.draining.get_mut(&id) {
                drain.drained = true;
            }
            self.save();
        }
    }
}
