//! Which offers are wanted, held, given back: the framework's manners towards other frameworks.

use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{AgentId, Role, Time};
use super::node::{Declined, NodePhase};
use super::pool::Pool;
use super::schedule::SETTLE;
use super::timers::Timer;

/// Between REVIVEs at least; doubled with each that led to nothing, up to [`REVIVE_MOST`].
const REVIVE_LEAST: Duration = Duration::from_millis(25);
/// See [`REVIVE_LEAST`].
const REVIVE_MOST: Duration = Duration::from_secs(5);
/// Declined when nothing waits. The next REVIVE brings it back whatever this says.
pub(super) const REFUSE_IDLE: f64 = 300.0;

/// A REVIVE that the master has not taken after this is taken for lost.
const REVIVE_TAKEN: Duration = Duration::from_secs(30);

/// What became of the last REVIVE. Calls go out one after the other: behind a thousand ACCEPTs it
/// may take its time, and a busy master may, too.
#[derive(Debug, Default)]
pub(super) struct Revival {
    /// It waits for its turn since then.
    emitted: Option<Time>,
    /// When the last one was taken.
    heard: Time,
    /// No offers came since.
    unanswered: bool,
    /// When pods were last called unschedulable, or began to wait.
    looked: Time,
    /// Pods were called unschedulable meanwhile: too early, should offers come after all.
    judged_unanswered: bool,
}

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
        !self.queue.is_empty()
            || !self.backing_off.is_empty()
            || !self.unaccounted.is_empty()
            || self.owes_ports()
            || self
                .nodes
                .values()
                .any(|n| n.phase.is_prepared_for() && n.plan.node.is_none())
            || self.lacks_nodes()
    }

    /// Whether there are fewer nodes than are to be kept.
    fn lacks_nodes(&self) -> bool {
        let living = |phase: NodePhase| phase.takes_pods() || phase.is_prepared_for();
        self.config.nodes_min > 0
            && self.nodes.values().filter(|n| living(n.phase)).count() < self.config.nodes_min
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
                if let Some(of) = self.candidates.get_mut(&agent) {
                    of.remove(&role);
                }
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
            || !self.owed_ports.is_empty()
            || self.lacks_nodes()
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
        self.revival.emitted = Some(self.now);
        self.revival.unanswered = true;
        self.fruitless_revives = self.fruitless_revives.saturating_add(1);
        self.emit(Effect::Revive);
    }

    /// The master has taken the REVIVE.
    pub(super) fn revived(&mut self) {
        self.revival.emitted = None;
        self.revival.heard = self.now;
        self.after(SETTLE, Timer::Schedule);
    }

    /// Offers come: those that the REVIVE was for, or some of them.
    pub(super) fn revive_is_answered(&mut self) {
        self.revival.unanswered = false;
        if std::mem::take(&mut self.revival.judged_unanswered) {
            self.wake_pods();
        }
    }

    /// For how long offers may still be on their way, so that nothing can be said about what
    /// does not fit.
    pub(super) fn offers_due_in(&self) -> Option<Duration> {
        // With new demand all the time REVIVEs never cease; pods are to hear all the same.
        if self.now.since(self.revival.looked) >= REVIVE_TAKEN {
            return None;
        }
        if let Some(at) = self.revival.emitted {
            let left = REVIVE_TAKEN.saturating_sub(self.now.since(at));
            return (!left.is_zero()).then_some(left);
        }
        let left = SETTLE.saturating_sub(self.now.since(self.revival.heard));
        (self.revival.heard > Time(0) && !left.is_zero()).then_some(left)
    }

    /// The first pod waits.
    pub(super) fn waiting_begins(&mut self) {
        self.revival.looked = self.now;
    }

    /// A pod is about to be called unschedulable.
    pub(super) fn judging(&mut self) {
        self.revival.judged_unanswered |= self.revival.unanswered;
        self.revival.looked = self.now;
    }

    /// A pod that was not there before: it may be one that is easy to place, whatever became of
    /// the last ones.
    pub(super) fn new_demand(&mut self) {
        self.wants_revive = true;
        self.fruitless_revives = self.fruitless_revives.min(3);
    }
}
