//! Which offers are wanted, held, given back: the framework's manners towards other frameworks.

use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{AgentId, Role};
use super::node::{Declined, NodePhase};
use super::pool::Pool;
use super::timers::Timer;

/// Between REVIVEs at least; doubled with each that led to nothing, up to [`REVIVE_MOST`].
const REVIVE_LEAST: Duration = Duration::from_millis(25);
/// See [`REVIVE_LEAST`].
const REVIVE_MOST: Duration = Duration::from_secs(5);
/// Declined when nothing waits. The next REVIVE brings it back whatever this says.
pub(super) const REFUSE_IDLE: f64 = 300.0;

impl State {
    pub(super) fn remember_declined(&mut self, agent: &AgentId, role: &Role, pool: Pool) {
        let now = self.now;
        if let Some(agent) = self.agents.get_mut(agent) {
            agent
                .declined
                .insert(role.clone(), Declined { pool, at: now });
        }
    }

    /// Whether anything may want offers.
    fn wants_offers(&self) -> bool {
        let living = |phase: NodePhase| phase.takes_pods() || phase.is_prepared_for();
        !self.queue.is_empty()
            || !self.backing_off.is_empty()
            || !self.unaccounted.is_empty()
            || self
                .nodes
                .values()
                .any(|n| n.phase.is_prepared_for() && n.plan.node.is_none())
            || self.nodes.values().filter(|n| living(n.phase)).count() < self.config.nodes_min
    }

    /// Declines what was held long enough without being of use.
    pub(super) fn return_offers(&mut self) {
        if self.now < self.return_due {
            return;
        }
        let linger = self.config.linger;
        let mut next: Option<Duration> = None;
        let mut back: Vec<(AgentId, Role)> = Vec::new();
        for (agent, role, held) in self.offers.iter() {
            let planned = self
                .node_of
                .get(agent)
                .and_then(|name| self.nodes.get(name))
                .is_some_and(|n| n.plan.node.is_some() && n.plan.role.as_ref() == Some(role));
            if planned {
                continue;
            }
            let age = self.now.since(held.since);
            if age >= linger {
                back.push((agent.clone(), role.clone()));
            } else {
                let left = linger - age;
                next = Some(next.map_or(left, |least| least.min(left)));
            }
        }
        if let Some(left) = next {
            self.return_due = self.now + left;
            self.after(left, Timer::Schedule);
        }
        if back.is_empty() {
            return;
        }
        let refuse_seconds = if self.wants_offers() {
            self.config.refuse_seconds
        } else {
            REFUSE_IDLE
        };
        let mut offers = Vec::new();
        for (agent, role) in back {
            if let Some(held) = self.offers.remove(&agent, &role) {
                offers.extend(held.ids());
                self.candidates.remove(&(agent.clone(), role.clone()));
                self.remember_declined(&agent, &role, held.free);
            }
        }
        self.counters.offers_declined += offers.len() as u64;
        self.emit(Effect::Decline {
            offers,
            refuse_seconds,
        });
    }

    pub(super) fn revive_or_suppress(&mut self) {
        if !self.wants_offers() {
            self.wants_revive = false;
            if !self.suppressed && self.offers.is_empty() {
                self.suppressed = true;
                self.emit(Effect::Suppress);
            }
            return;
        }
        let still_waiting = !self.queue.is_empty()
            || !self.unaccounted.is_empty()
            || self
                .nodes
                .values()
                .any(|n| n.phase.is_prepared_for() && n.plan.node.is_none());
        if !(self.suppressed || self.wants_revive && still_waiting) {
            return;
        }
        let doubled = REVIVE_LEAST * (1 << self.fruitless_revives.min(8));
        let least = doubled.min(REVIVE_MOST);
        let ago = self.now.since(self.last_revive);
        if ago < least {
            self.after(least - ago, Timer::Schedule);
            return;
        }
        self.wants_revive = false;
        self.suppressed = false;
        self.last_revive = self.now;
        self.fruitless_revives = self.fruitless_revives.saturating_add(1);
        self.emit(Effect::Revive);
    }

    /// A pod that was not there before: it may be one that is easy to place, whatever became of
    /// the last ones.
    pub(super) fn new_demand(&mut self) {
        self.wants_revive = true;
        self.fruitless_revives = self.fruitless_revives.min(3);
    }
}
