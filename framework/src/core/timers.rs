//! When something is to be looked at again. A timer that fires does not act by itself; what it
//! names is checked against the state of that moment, so a superfluous one does no harm.

use std::collections::{BTreeSet, HashMap};

use super::ids::{AgentId, NodeName, PodUid, TaskId, Time};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// A pod: back-off, Binding, adoption.
    Pod(PodUid),
    /// A task: KILL again, no update for long.
    Task(TaskId),
    /// A node: phase timeouts, idleness, effects to ask for again.
    Node(NodeName),
    /// An agent on which nodes failed to start may be tried again.
    Agent(AgentId),
    /// A scheduling pass: offers to give back, pods to give up for now.
    Schedule,
    /// The reconciliation.
    Reconcile,
    /// The roll-out of the nodes' revision.
    Rollout,
}

/// At most one moment for each timer.
#[derive(Debug, Default)]
pub struct Timers {
    at: HashMap<Timer, Time>,
    order: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Sets a timer, unless it is set to an earlier moment.
    pub fn set(&mut self, at: Time, timer: Timer) {
        match self.at.get(&timer) {
            Some(&earlier) if earlier <= at => return,
            Some(&later) => {
                self.order.remove(&(later, timer.clone()));
            }
            None => {}
        }
        self.at.insert(timer.clone(), at);
        self.order.insert((at, timer));
    }

    /// Takes out one that is due.
    pub fn due(&mut self, now: Time) -> Option<Timer> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Time> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_of_two_moments_counts() {
        let mut timers = Timers::default();
        timers.set(Time(10), Timer::Schedule);
        timers.set(Time(5), Timer::Schedule);
        timers.set(Time(20), Timer::Schedule);
        timers.set(Time(7), Timer::Reconcile);
        assert_eq!(timers.next(), Some(Time(5)));
        assert_eq!(timers.due(Time(4)), None);
        assert_eq!(timers.due(Time(6)), Some(Timer::Schedule));
        assert_eq!(timers.due(Time(6)), None);
        assert_eq!(timers.due(Time(7)), Some(Timer::Reconcile));
        assert_eq!(timers.next(), None);
    }
}
