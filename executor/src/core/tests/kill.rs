//! KILL of a pod's task: at once, by eviction, by deletion.

use super::*;

#[test]
fn an_unbound_pod_is_killed_at_once() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(kill(id("u", 1)));
    assert_eq!(
        bench.states(),
        [("u.00000001", TaskStarting), ("u.00000001", TaskKilled)]
    );
    assert!(bench.deletions().is_empty());
}

#[test]
fn a_pod_that_was_bound_in_the_moment_of_its_kill_is_deleted() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(kill(id("u", 1)));
    bench.event(pod("u", PodPhase::Pending));
    bench.event(pod("u", PodPhase::Running));
    assert_eq!(bench.deletions(), [("u", None)]);
}

#[test]
fn a_pod_that_was_killed_and_launched_anew_is_not_deleted() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(kill(id("u", 1)));
    bench.event(pod_task("u", 2));
    bench.event(pod("u", PodPhase::Running));
    assert!(bench.deletions().is_empty());
    assert_eq!(bench.states().last(), Some(&("u.00000002", TaskRunning)));
}

#[test]
fn a_bound_pod_is_killed_by_deleting_it_until_that_shows() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(kill(id("u", 1)));
    bench.event(kill(id("u", 1)));
    assert_eq!(bench.deletions(), [("u", None)]);
    bench.later(DELETE_REPEAT.0);
    assert_eq!(bench.deletions().len(), 2);
    let mut observation = seen("u", PodPhase::Running);
    observation.deleting = true;
    bench.event(Event::Node(NodeEvent::Pod(observation)));
    bench.later(DELETE_REPEAT.0);
    assert_eq!(bench.deletions().len(), 2);
    bench.event(gone("u"));
    bench.event(emptied("u"));
    assert_eq!(bench.states().last(), Some(&("u.00000001", TaskKilled)));
}

#[test]
fn a_kill_with_a_policy_evicts_by_budget_until_its_grace_ends_and_then_deletes() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(kill_within(id("u", 1), 12));
    let grace = Some(Duration::from_secs(12));
    assert_eq!(bench.evictions(), (1, grace));
    for expected in [2, 3] {
        bench.event(held("u"));
        bench.later(EVICT_REPEAT.0);
        assert_eq!(
            bench.evictions(),
            (expected, grace),
            "the budget may change"
        );
    }
    // The framework's own KILLs, which carry no policy, do not end the time for budgets.
    bench.event(kill(id("u", 1)));
    bench.later(1_999);
    assert!(bench.deletions().is_empty());
    bench.later(1);
    assert_eq!(bench.deletions(), [("u", grace)]);
    bench.later(DELETE_REPEAT.0 - 1);
    assert_eq!(bench.deletions().len(), 1);
    bench.later(1);
    assert_eq!(bench.deletions().len(), 2, "until it shows");
    assert_eq!(bench.evictions().0, 3);
}

#[test]
fn a_budget_that_holds_a_killed_pod_back_is_told_of_once() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(held("u"));
    bench.event(kill_within(id("u", 1), 60));
    for _ in 0..3 {
        bench.event(held("u"));
        bench.later(EVICT_REPEAT.0);
    }
    let told: Vec<&Effect> = bench
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Tell(_)))
        .collect();
    let [Effect::Tell(ToFramework::Component { message, .. })] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(
        message,
        "pod default/pod-u is to end, but is not evicted now: the budget web needs 2 healthy \
         pods; it is deleted all the same in 60 s, when the time that Mesos was told to leave it \
         is over"
    );
}

#[test]
fn an_evicted_pod_ends_as_a_killed_one() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(kill_within(id("u", 1), 60));
    assert_eq!(
        bench.evictions(),
        (1, Some(Duration::from_secs(30))),
        "its own grace is shorter"
    );
    let mut observation = seen("u", PodPhase::Running);
    observation.deleting = true;
    bench.event(Event::Node(NodeEvent::Pod(observation)));
    bench.later(60_000);
    assert_eq!(bench.evictions().0, 1);
    assert!(bench.deletions().is_empty());
    bench.event(gone("u"));
    bench.event(emptied("u"));
    assert_eq!(bench.states().last(), Some(&("u.00000001", TaskKilled)));
}

#[test]
fn a_later_kill_may_shorten_the_time_and_never_lengthens_it() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(kill_within(id("u", 1), 60));
    bench.event(kill_within(id("u", 1), 600));
    bench.event(kill_within(id("u", 1), 3));
    bench.later(2_999);
    assert!(bench.deletions().is_empty());
    bench.later(1);
    assert_eq!(bench.deletions(), [("u", Some(Duration::from_secs(3)))]);
}

#[test]
fn a_policy_without_any_grace_deletes_at_once() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(kill_within(id("u", 1), 0));
    assert_eq!(bench.evictions().0, 0);
    assert_eq!(bench.deletions(), [("u", Some(Duration::ZERO))]);
}

#[test]
fn a_kill_goes_on_in_the_executors_successor() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(kill_within(id("u", 1), 12));
    let state = bench.core.hand_over().unwrap();
    bench.core = Core::resume([8; 32], &state).unwrap();
    bench.effects.clear();
    bench.event(Event::Node(NodeEvent::Listed(vec![seen(
        "u",
        PodPhase::Running,
    )])));
    bench.later(EVICT_REPEAT.0);
    assert_eq!(bench.evictions().0, 1);
    bench.later(7_000);
    assert_eq!(bench.deletions(), [("u", Some(Duration::from_secs(12)))]);
}

#[test]
fn a_top_up_task_is_given_back_without_touching_the_pod() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(pod_task("u", 2));
    assert_eq!(bench.states().last(), Some(&("u.00000002", TaskRunning)));
    assert_eq!(bench.memory(), Some(64 * MIB));
    bench.event(kill(id("u", 2)));
    assert_eq!(bench.states().last(), Some(&("u.00000002", TaskKilled)));
    assert!(bench.deletions().is_empty());
    assert_eq!(bench.memory(), Some(32 * MIB));
    bench.event(kill(id("u", 1)));
    assert_eq!(bench.deletions(), [("u", None)]);
}
