//! The roll-out by itself, with a clock of the test's.

use super::*;

const WANTED: &str = "0badcafe0badcafe";
const START: Time = Time(1_000_000);

fn rollout(nodes: usize) -> (Rollout, Vec<NodeName>) {
    let mut rollout = Rollout::new(Some(WANTED.to_owned()));
    let names: Vec<NodeName> = (0..nodes)
        .map(|n| NodeName::from(format!("n{n:03}").as_str()))
        .collect();
    for name in &names {
        rollout.ready(name, START);
    }
    (rollout, names)
}

fn asked(rollout: &mut Rollout, now: Time) -> Vec<NodeName> {
    rollout.due(now).0
}

fn failed() -> RevisionState {
    RevisionState::Failed {
        message: "kubelet".to_owned(),
    }
}

#[test]
fn one_node_in_twenty_is_asked_at_a_time() {
    let (mut few, names) = rollout(3);
    assert_eq!(asked(&mut few, START), names[..1]);
    assert!(asked(&mut few, START).is_empty());
    few.answered(&names[0], WANTED, RevisionState::InPlace, START);
    assert_eq!(asked(&mut few, START), names[1..2]);

    let (mut many, names) = rollout(60);
    assert_eq!(asked(&mut many, START), names[..3]);
    assert_eq!(many.progress().nodes, 60);
}

#[test]
fn a_node_that_is_there_already_is_not_worth_a_word_and_one_that_changes_is() {
    let (mut rollout, names) = rollout(2);
    asked(&mut rollout, START);
    let answer =
        |rollout: &mut Rollout, n: usize, state| rollout.answered(&names[n], WANTED, state, START);
    assert_eq!(answer(&mut rollout, 0, RevisionState::InPlace), None);
    asked(&mut rollout, START);
    assert_eq!(answer(&mut rollout, 1, RevisionState::Working), None);
    assert_eq!(
        answer(&mut rollout, 1, RevisionState::InPlace),
        Some(Outcome::Revised)
    );
    assert!(rollout.progress().is_complete());
    assert_eq!(rollout.next(), None);
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let (mut rollout, names) = rollout(1);
    asked(&mut rollout, START);
    assert_eq!(rollout.next(), Some(START + AGAIN));
    assert_eq!(asked(&mut rollout, START + AGAIN), names);
}

#[test]
fn a_failure_stops_all_until_that_node_is_there() {
    let (mut rollout, names) = rollout(2);
    asked(&mut rollout, START);
    let told = rollout.answered(&names[0], WANTED, failed(), START);
    assert!(matches!(told, Some(Outcome::Failed { .. })));
    assert!(asked(&mut rollout, START + AGAIN).is_empty());
    assert_eq!(rollout.next(), Some(START + PAUSE));
    let later = START + PAUSE;
    assert_eq!(asked(&mut rollout, later), names[..1]);
    rollout.answered(&names[0], WANTED, failed(), later);
    assert_eq!(rollout.progress().failed[0].why, "kubelet");
    assert!(asked(&mut rollout, later + AGAIN).is_empty());
    let again = later + PAUSE;
    assert_eq!(asked(&mut rollout, again), names[..1]);
    rollout.answered(&names[0], WANTED, RevisionState::InPlace, again);
    assert_eq!(asked(&mut rollout, again), names[1..]);
    assert!(rollout.progress().failed.is_empty());
}

#[test]
fn an_executor_that_does_not_know_the_question_keeps_no_other_waiting_for_long() {
    let (mut rollout, names) = rollout(2);
    let mut now = START;
    let mut others = Vec::new();
    while now < START + PAUSE {
        others.extend(asked(&mut rollout, now));
        now = now + AGAIN;
    }
    assert_eq!(others.iter().filter(|n| **n == names[0]).count(), 4);
    assert!(others.contains(&names[1]));
}

#[test]
fn a_node_that_is_at_it_for_too_long_counts_as_failed() {
    let (mut rollout, names) = rollout(2);
    asked(&mut rollout, START);
    let mut now = START;
    let mut late = Vec::new();
    while late.is_empty() {
        rollout.answered(&names[0], WANTED, RevisionState::Working, now);
        now = now + AGAIN;
        late = rollout.due(now).1;
        assert!(now < START + PATIENCE + AGAIN + AGAIN);
    }
    assert_eq!(late, names[..1]);
    assert!(asked(&mut rollout, now).is_empty());
}

#[test]
fn answers_to_other_questions_and_of_other_nodes_change_nothing() {
    let (mut rollout, names) = rollout(1);
    let stranger = NodeName::from("stranger");
    asked(&mut rollout, START);
    assert_eq!(rollout.answered(&names[0], "other", failed(), START), None);
    assert_eq!(rollout.answered(&stranger, WANTED, failed(), START), None);
    rollout.retain(|name| *name != names[0], |_| false, START);
    assert_eq!(rollout.answered(&names[0], WANTED, failed(), START), None);
    assert_eq!(rollout.next(), None);
}

#[test]
fn without_a_revision_nobody_is_asked() {
    let mut rollout = Rollout::new(None);
    rollout.ready(&NodeName::from("n"), START);
    assert!(asked(&mut rollout, START).is_empty());
}

fn order(id: &str, paused: bool) -> Order {
    Order {
        id: id.to_owned(),
        paused_since: paused.then(|| "2026-01-01T00:00:00Z".to_owned()),
    }
}

#[test]
fn while_it_is_paused_no_node_is_taken_and_the_one_under_way_completes() {
    let (mut rollout, names) = rollout(3);
    asked(&mut rollout, START);
    rollout.answered(&names[0], WANTED, RevisionState::Working, START);
    rollout.ordered(order("o-1", true), START);
    assert_eq!(asked(&mut rollout, START + AGAIN), names[..1], "again");
    rollout.answered(&names[0], WANTED, RevisionState::InPlace, START + AGAIN);
    let progress = rollout.progress();
    assert_eq!((progress.in_place, progress.order.as_str()), (1, "o-1"));
    assert!(progress.paused_since.is_some() && progress.working.is_empty());
    assert!(asked(&mut rollout, START + PATIENCE).is_empty());
    assert_eq!(rollout.next(), None, "nothing but an order changes that");
    rollout.ready(&names[2], START + PATIENCE);
    assert!(asked(&mut rollout, START + PATIENCE).is_empty());

    rollout.ordered(order("o-2", false), START + PATIENCE);
    assert_eq!(asked(&mut rollout, START + PATIENCE), names[1..2]);
}

#[test]
fn a_failed_node_is_not_tried_again_while_it_is_paused_and_at_once_when_it_goes_on() {
    let (mut rollout, names) = rollout(2);
    asked(&mut rollout, START);
    rollout.answered(&names[0], WANTED, failed(), START);
    rollout.ordered(order("o-1", true), START);
    assert!(asked(&mut rollout, START + PAUSE).is_empty());
    let later = START + PAUSE + AGAIN;
    rollout.answered(&names[0], WANTED, failed(), later);
    rollout.ordered(order("o-2", false), later);
    assert!(rollout.progress().failed.is_empty());
    assert_eq!(asked(&mut rollout, later), names[..1]);
    rollout.answered(&names[0], WANTED, failed(), later);
    rollout.ordered(order("o-2", false), later);
    assert!(
        asked(&mut rollout, later + AGAIN).is_empty(),
        "the same order read again is no new one"
    );
}

#[test]
fn a_node_that_is_lost_while_it_is_being_changed_stops_the_others_for_a_while() {
    let (mut rollout, names) = rollout(2);
    asked(&mut rollout, START);
    rollout.answered(&names[0], WANTED, RevisionState::Working, START);
    let second = |name: &NodeName| *name == names[1];
    assert_eq!(rollout.retain(second, |_| true, START), names[..1]);
    assert!(asked(&mut rollout, START).is_empty());
    assert_eq!(rollout.next(), Some(START + PAUSE));
    assert_eq!(rollout.progress().failed[0].node, names[0].to_string());
    // It comes back, and may be what it was.
    rollout.ready(&names[0], START + AGAIN);
    assert!(asked(&mut rollout, START + AGAIN).is_empty());
    assert_eq!(asked(&mut rollout, START + PAUSE), names[..1]);

    let (mut rollout, names) = self::rollout(2);
    asked(&mut rollout, START);
    rollout.answered(&names[0], WANTED, RevisionState::Working, START);
    let second = |name: &NodeName| *name == names[1];
    rollout.retain(second, |_| true, START);
    assert_eq!(
        asked(&mut rollout, START + PAUSE),
        names[1..],
        "one that never comes back is not waited for"
    );
}

#[test]
fn a_node_that_leaves_on_purpose_or_before_it_began_is_no_failure() {
    let (mut rollout, names) = rollout(3);
    asked(&mut rollout, START);
    let others = |name: &NodeName| *name != names[0];
    assert!(rollout.retain(others, |_| true, START).is_empty());
    assert_eq!(asked(&mut rollout, START), names[1..2]);
    rollout.answered(&names[1], WANTED, RevisionState::Working, START);
    let third = |name: &NodeName| *name == names[2];
    assert!(rollout.retain(third, |_| false, START).is_empty());
    assert_eq!(asked(&mut rollout, START), names[2..]);
}

#[test]
fn a_node_that_has_begun_and_falls_silent_keeps_the_others_waiting() {
    let (mut rollout, names) = rollout(2);
    asked(&mut rollout, START);
    rollout.answered(&names[0], WANTED, RevisionState::Working, START);
    let mut now = START;
    while now < START + PATIENCE {
        assert!(!asked(&mut rollout, now).contains(&names[1]));
        now = now + AGAIN;
    }
    assert_eq!(rollout.due(now).1, names[..1]);
    assert!(!rollout.progress().failed.is_empty());
}
