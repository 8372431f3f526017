//! What is due when. A timer that is no longer meant finds nothing to do.

use super::{CheckId, Core};
use crate::marathon::ids::{InstanceId, PathId, TaskId};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A kill was not answered.
    Kill(TaskId),
    /// A task did not start.
    Launch(TaskId),
    /// A reservation did not appear.
    Reservation(InstanceId),
    /// The delay after a failure is over.
    Delay(PathId),
    /// A check is due.
    Check(TaskId, CheckId),
    /// An agent cannot be reached for long enough.
    Unreachable(InstanceId),
    /// Ask the master about tasks.
    Reconcile,
    /// Offers may be asked for again.
    Revive,
}

impl Core {
    pub(super) fn tick(&mut self) {
        while let Some((at, _)) = self.timers.first() {
            if *at > self.now {
                return;
            }
            let Some((_, timer)) = self.timers.pop_first() else {
                return;
            };
            match timer {
                Timer::Kill(task) => self.kill_due(&task),
                Timer::Launch(task) => self.launch_overdue(&task),
                Timer::Reservation(instance) => self.reservation_overdue(&instance),
                // What waits is looked at after each event.
                Timer::Delay(_) => {}
                Timer::Check(task, check) => self.check_due(&task, check),
                Timer::Unreachable(instance) => self.unreachable_due(&instance),
                Timer::Reconcile => self.reconcile_due(),
                Timer::Revive => self.revive.waiting = false,
            }
        }
    }
}
