//! Replays the requests of recorded traffic of a real Mesos against the master and compares
//! every answer and event with the recording, ids and times aside.
//!
//! The master runs in the test's own thread with a manual clock set to the recorded times, so
//! a recording of a minute takes milliseconds and comes out the same each time. Agents are
//! played ([`agent`]): they report what the recorded ones reported, when they did, and check
//! that the master told them what it told the real ones.

mod agent;
mod compare;
mod player;

use player::Player;

fn replay(scenario: &str) {
    let report = Player::new(scenario).run();
    assert!(
        report.differences.is_empty(),
        "{scenario}: {} differences after {} answers and {} events:\n{}",
        report.differences.len(),
        report.answers,
        report.events,
        report.differences.join("\n")
    );
    assert!(
        report.answers > 5 && report.events > 2,
        "nothing was compared"
    );
}

#[test]
fn subscribing_updating_and_heartbeats_are_as_recorded() {
    replay("01-subscribe");
}

#[test]
fn declining_reviving_and_suppressing_are_as_recorded() {
    replay("02a-decline-revive-suppress");
}

#[test]
fn command_tasks_are_as_recorded() {
    replay("03a-command-task");
}

#[test]
fn several_tasks_on_one_executor_are_as_recorded() {
    replay("04a-executor-basic");
}

#[test]
fn kills_are_as_recorded() {
    replay("06-kill");
}

#[test]
fn reconciliation_is_as_recorded() {
    replay("07-reconcile");
}

#[test]
fn coming_back_after_a_disconnect_is_as_recorded() {
    replay("08a-resubscribe");
}

#[test]
fn http_errors_are_as_recorded() {
    replay("13a-http-errors");
}
