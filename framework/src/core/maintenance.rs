//! Ends of agents that Mesos announces: maintenance (inverse offers, and offers that carry an
//! unavailability), and agents that an operator drains (Mesos 1.9 and later).
//!
//! They differ in who acts. Before maintenance Mesos only asks: the node is emptied in time, as its
//! pods' disruption budgets allow, and the answer to the inverse offer says whether that goes
//! well. Draining an agent KILLs all of its tasks at once: the node is merely given back, and its end is no
//! failure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{AgentId, NodeName, OfferId, Time};
use super::node::NodePhase;
use super::timers::Timer;

/// So long Mesos keeps an answered inverse offer to itself; the next answer says how it goes.
const ANSWER_HOLDS: f64 = 30.0;
/// Inverse offers for an agent that has tasks of ours come again after [`ANSWER_HOLDS`]. If none
/// came for so long, the maintenance was withdrawn.
const WITHDRAWN_AFTER: Duration = Duration::from_secs(120);

/// A planned outage of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailability {
    /// When it begins.
    pub start: Time,
    /// How long it lasts; `None`: nobody knows.
    pub duration: Option<Duration>,
}

/// Mesos asks for an agent's resources back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InverseOffer {
    /// Its id, to answer it by.
    pub id: OfferId,
    /// The agent.
    pub agent: AgentId,
    /// The outage.
    pub unavailability: Unavailability,
}

impl State {
    /// Remembers the outages and answers: ACCEPT as long as nothing holds the node's pods back.
    pub(super) fn inverse_offered(&mut self, offers: Vec<InverseOffer>) {
        let mut answers: BTreeMap<bool, Vec<OfferId>> = BTreeMap::new();
        for offer in offers {
            self.counters.inverse_offers += 1;
            self.announced(&offer.agent, Some(offer.unavailability));
            let free = !self.is_held_back(&offer.agent);
            answers.entry(free).or_default().push(offer.id);
        }
        for (accept, offers) in answers {
            self.emit(Effect::AnswerInverse {
                offers,
                accept,
                refuse_seconds: ANSWER_HOLDS,
            });
        }
    }

    /// What an offer or inverse offer says about its agent's next outage.
    pub(super) fn announced(&mut self, id: &AgentId, outage: Option<Unavailability>) {
        let now = self.now;
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let changed = agent.unavailable.map(|(outage, _)| outage) != outage;
        agent.unavailable = outage.map(|outage| (outage, now));
        if changed {
            self.look_at_node_of(id);
        }
    }

    /// Whether the agent's outage is near enough for its node to be emptied.
    pub(super) fn outage_is_near(&self, id: &AgentId) -> bool {
        let lead = self.config.maintenance_lead;
        self.agents
            .get(id)
            .and_then(|agent| agent.unavailable)
            .is_some_and(|(outage, _)| self.now + lead >= outage.start)
    }

    /// Forgets an outage of which Mesos speaks no more, and comes back when it is near.
    pub(super) fn check_outage(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        let (agent_id, lives) = (node.agent.clone(), self.ledger.of_node(name).count() > 0);
        let (now, lead) = (self.now, self.config.maintenance_lead);
        let connected = self.connected;
        let Some(agent) = self.agents.get_mut(&agent_id) else {
            return;
        };
        let Some((outage, heard)) = agent.unavailable else {
            return;
        };
        // Without tasks of ours there are no inverse offers; the next offer tells.
        if lives && connected && now.since(heard) >= WITHDRAWN_AFTER {
            agent.unavailable = None;
            self.look_at_node_of(&agent_id);
            return;
        }
        let near = outage.start.since(now).saturating_sub(lead);
        let wait = if near.is_zero() {
            WITHDRAWN_AFTER
        } else {
            near.min(WITHDRAWN_AFTER)
        };
        self.after(wait, Timer::Node(name.clone()));
    }

    /// While there is no subscription nothing is heard, so silence says nothing.
    pub(super) fn hear_of_outages_again(&mut self) {
        let now = self.now;
        for agent in self.agents.values_mut() {
            if let Some((_, heard)) = &mut agent.unavailable {
                *heard = now;
            }
        }
    }

    /// An operator drains the agent, or does not any more.
    pub(super) fn agent_drains(&mut self, id: &AgentId, draining: bool) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        if agent.draining == draining {
            return;
        }
        agent.draining = draining;
        self.stale(id);
        let Some(name) = self.node_of.get(id).cloned() else {
            return;
        };
        let Some(node) = self.nodes.get(&name) else {
            return;
        };
        if !draining {
            self.wake_pods();
            self.wants_revive = true;
        } else if node.phase.is_prepared_for() {
            self.drop_plan(&name);
            self.enter(&name, NodePhase::Offline);
        } else if node.phase.takes_pods() {
            // Mesos' KILLs are under way; ours are for those that it lost.
            self.give_back(&name, "Mesos drains its agent", false);
        }
    }

    fn look_at_node_of(&mut self, id: &AgentId) {
        self.stale(id);
        self.wants_revive = true;
        if let Some(name) = self.node_of.get(id).cloned() {
            self.after(Duration::ZERO, Timer::Node(name));
        }
    }
}
