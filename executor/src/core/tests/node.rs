//! The node task, and the node's end.

use super::*;

#[test]
fn the_node_task_is_starting_at_once_and_running_when_the_node_is_ready() {
    let mut bench = Bench::new();
    bench.event(node_task());
    assert_eq!(bench.states(), [(NODE, TaskStarting)]);
    assert!(matches!(bench.effects[0], Effect::StartNode(_)));
    bench.event(Event::Node(NodeEvent::Ready));
    bench.event(Event::Node(NodeEvent::Ready));
    assert_eq!(bench.states(), [(NODE, TaskStarting), (NODE, TaskRunning)]);
}

#[test]
fn a_bring_up_that_fails_fails_the_tasks_with_its_reason_and_keeps_the_logs() {
    let mut bench = Bench::new();
    bench.event(node_task());
    bench.event(pod_task("u", 1));
    bench.event(Event::Node(NodeEvent::Failed {
        component: "containerd".to_owned(),
        message: "not ready after 30 s; its log is /x/containerd.log".to_owned(),
    }));
    assert!(bench.effects.contains(&Effect::StopNode { give_up: false }));
    assert_eq!(
        bench.told.len(),
        1,
        "nothing ends before the processes have"
    );
    bench.event(Event::NodeStopped);
    let (last, _) = bench.told.split_last().unwrap();
    assert_eq!(
        (last.0.as_str(), last.1),
        (NODE, TaskFailed),
        "the node task ends last"
    );
    assert!(last.2.contains("containerd: not ready") && last.2.contains("/x/containerd.log"));
    assert!(bench.states().contains(&("u.00000001", TaskFailed)));
    assert_eq!(bench.effects.last(), Some(&Effect::Exit { failed: true }));
}

#[test]
fn a_node_half_that_breaks_later_is_started_again_under_its_pods() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.effects.clear();
    bench.event(Event::Node(NodeEvent::Failed {
        component: "pods".to_owned(),
        message: "the watch broke".to_owned(),
    }));
    assert!(matches!(
        bench.effects.as_slice(),
        [Effect::Tell(_), Effect::StartNode(_)]
    ));
    assert_eq!(bench.states().last(), Some(&("u.00000001", TaskRunning)));
}

#[test]
fn the_node_task_is_killed_only_once_no_pod_is_left() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(kill(TaskId(NODE.to_owned())));
    assert_eq!(bench.stops(), 0);
    bench.event(pod_task("late", 1));
    assert_eq!(bench.states().last(), Some(&("late.00000001", TaskDropped)));
    bench.event(gone("u"));
    bench.event(emptied("u"));
    assert!(bench.effects.contains(&Effect::StopNode { give_up: true }));
    bench.event(Event::NodeStopped);
    assert_eq!(bench.states().last(), Some(&(NODE, TaskKilled)));
    assert_eq!(bench.effects.last(), Some(&Effect::Exit { failed: false }));
}

#[test]
fn shutdown_stops_the_node_once_and_reports_all_tasks() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.event(pod_task("done", 1));
    bench.event(pod("done", PodPhase::Succeeded));
    bench.event(Event::Shutdown);
    bench.event(Event::Shutdown);
    assert_eq!(bench.stops(), 1);
    bench.told.clear();
    bench.event(Event::NodeStopped);
    assert_eq!(
        bench.states(),
        [
            ("done.00000001", TaskFinished),
            ("u.00000001", TaskKilled),
            (NODE, TaskKilled),
        ]
    );
}

#[test]
fn the_executor_ends_without_acknowledgements_after_a_while() {
    let mut bench = Bench::up();
    bench.acknowledge = false;
    bench.event(Event::Shutdown);
    bench.event(Event::NodeStopped);
    assert!(!bench.effects.contains(&Effect::Exit { failed: false }));
    bench.later(FAREWELL.0);
    assert_eq!(bench.effects.last(), Some(&Effect::Exit { failed: false }));
}

#[test]
fn bad_data_and_foreign_ids_fail_with_a_reason() {
    let mut bench = Bench::new();
    bench.event(task(&TaskKind::node("n", 1), b"{".to_vec(), 1.0));
    bench.event(task(&TaskKind::pod("u", 1), b"[]".to_vec(), 1.0));
    let Event::Launch(mut foreign) = pod_task("u", 2) else {
        unreachable!()
    };
    foreign.task_id.value = "marathon.1".to_owned();
    bench.event(Event::Launch(foreign));
    let told: Vec<_> = bench
        .told
        .iter()
        .map(|(id, state, message)| {
            (
                id.as_str(),
                *state,
                message.contains("cannot be read") || message.contains("no task id of ours"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("node.n.00000001", TaskFailed, true),
            ("u.00000001", TaskFailed, true),
            ("marathon.1", TaskFailed, true)
        ]
    );
}

#[test]
fn a_second_node_task_is_dropped() {
    let mut bench = Bench::up();
    bench.event(task(&TaskKind::node("agent-1", 2), config().to_data(), 1.0));
    assert_eq!(bench.states(), [("node.agent-1.00000002", TaskDropped)]);
    assert!(bench.told[0].2.contains(NODE));
}
