//! Reconciliation: which of our tasks does Mesos know, and in what state.
//!
//! A round asks for every task of the ledger by name, then for all that Mesos knows
//! (implicitly), then for a task that cannot exist. Mesos answers calls in their order, so the
//! answer to the last one ends the round; an implicit reconciliation has no end of its own.
//! Tasks that a round did not mention are asked for again, with growing waits.

use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{AgentId, TaskId, Time};
use super::timers::Timer;

/// Between rounds.
const PERIOD: Duration = Duration::from_secs(15 * 60);
/// At start, launching does not wait longer than this for the first round's end: a master that waits
/// for its own agents answers late. A task that turns up afterwards is killed, because the Binding
/// is the commit point.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(20);
/// How many tasks one call names.
const CHUNK: usize = 1000;

/// Where the reconciliation is.
#[derive(Debug, Default)]
pub struct Reconciliation {
    /// The task that cannot exist, while a round runs.
    mark: Option<TaskId>,
    started: Time,
    attempt: u32,
    next: Time,
}

impl Reconciliation {
    /// Whether the update answers the question that ends the round.
    pub(super) fn answered(&self, task: &TaskId) -> bool {
        self.mark.as_ref() == Some(task)
    }

    /// First 1 s, doubling to 2 min, until the round is answered.
    fn wait(attempt: u32) -> Duration {
        Duration::from_secs((1u64 << attempt.min(7)).min(120))
    }
}

impl State {
    /// Begins a round, at each subscription and every 15 minutes.
    pub(super) fn start_reconciliation(&mut self) {
        self.reconciliation.started = self.now;
        self.reconciliation.attempt = 0;
        self.send_round();
    }

    fn send_round(&mut self) {
        let attempt = self.random_attempt();
        let mark = TaskId::from(format!("reconciliation-ends.{attempt:08x}"));
        self.reconciliation.mark = Some(mark.clone());
        let known: Vec<TaskId> = self.ledger.iter().map(|t| t.id.clone()).collect();
        self.ask_for(known);
        self.emit(Effect::Reconcile { tasks: Vec::new() });
        self.emit(Effect::Reconcile {
            tasks: vec![(mark, None)],
        });
        let wait = Reconciliation::wait(self.reconciliation.attempt);
        let wait = self.jitter(wait);
        self.reconciliation.attempt += 1;
        self.reconciliation.next = self.now + wait;
        self.after(wait, Timer::Reconcile);
    }

    /// Asks for tasks by name.
    pub(super) fn ask_for(&mut self, tasks: Vec<TaskId>) {
        if !self.connected {
            // The next subscription asks for everything.
            return;
        }
        let known: Vec<(TaskId, Option<AgentId>)> = tasks
            .into_iter()
            .filter_map(|id| {
                let agent = self.ledger.get(&id)?.agent.clone();
                Some((id, Some(agent)))
            })
            .collect();
        for chunk in known.chunks(CHUNK) {
            self.emit(Effect::Reconcile {
                tasks: chunk.to_vec(),
            });
        }
    }

    /// The round is over.
    pub(super) fn finish_implicit(&mut self) {
        self.reconciliation.mark = None;
        self.counters.reconciliations += 1;
        self.recovery_is_over();
        // Not mentioned although asked for: the master is waiting for their agents.
        let started = self.reconciliation.started;
        let silent = self.ledger.iter().any(|t| t.heard < started);
        let wait = if silent {
            Reconciliation::wait(self.reconciliation.attempt)
        } else {
            PERIOD
        };
        let wait = self.jitter(wait);
        self.reconciliation.next = self.now + wait;
        self.after(wait, Timer::Reconcile);
    }

    fn recovery_is_over(&mut self) {
        if !self.recovered {
            self.recovered = true;
            self.dirty = true;
            self.ask_for_held_ports();
        }
    }

    pub(super) fn check_reconciliation(&mut self) {
        if !self.connected {
            return;
        }
        if self.reconciliation.next > self.now {
            let at = self.reconciliation.next;
            self.timers.set(at, Timer::Reconcile);
            return;
        }
        if self.now.since(self.reconciliation.started) >= RECOVERY_DEADLINE {
            self.recovery_is_over();
        }
        if self.reconciliation.mark.is_some() {
            self.send_round();
            return;
        }
        let started = self.reconciliation.started;
        let silent: Vec<TaskId> = self
            .ledger
            .iter()
            .filter(|t| t.heard < started)
            .map(|t| t.id.clone())
            .collect();
        if silent.is_empty() || self.now.since(started) >= PERIOD {
            self.start_reconciliation();
        } else {
            self.ask_for(silent);
            self.reconciliation.attempt += 1;
            let wait = Reconciliation::wait(self.reconciliation.attempt);
            let wait = self.jitter(wait);
            self.reconciliation.next = self.now + wait;
            self.after(wait, Timer::Reconcile);
        }
    }
}
