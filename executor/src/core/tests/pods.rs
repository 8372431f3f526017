//! Pods' tasks, and what the pods together may use.

use super::*;

#[test]
fn a_pod_is_starting_only_when_the_node_is_ready() {
    let mut bench = Bench::new();
    bench.event(pod_task("u", 1));
    bench.event(node_task());
    assert_eq!(bench.states(), [(NODE, TaskStarting)]);
    bench.event(Event::Node(NodeEvent::Ready));
    assert!(bench.states().contains(&("u.00000001", TaskStarting)));
    bench.event(Event::Node(NodeEvent::NotReady {
        reason: "kubelet restarts".to_owned(),
    }));
    bench.told.clear();
    bench.event(pod_task("v", 1));
    assert_eq!(bench.states(), []);
    bench.event(Event::Node(NodeEvent::Ready));
    assert_eq!(bench.states(), [("v.00000001", TaskStarting)]);
}

#[test]
fn a_pod_runs_and_ends_in_kubelets_view_once_its_cgroup_is_empty() {
    for (phase, state) in [
        (PodPhase::Succeeded, TaskFinished),
        (PodPhase::Failed, TaskFailed),
    ] {
        let mut bench = Bench::up();
        bench.event(pod_task("u", 1));
        bench.event(pod("u", PodPhase::Pending));
        bench.event(pod("u", PodPhase::Running));
        bench.event(pod("u", phase));
        assert_eq!(
            bench.states(),
            [("u.00000001", TaskStarting), ("u.00000001", TaskRunning)]
        );
        assert!(bench.effects.contains(&Effect::AwaitEmpty {
            uid: "u".to_owned()
        }));
        bench.event(emptied("u"));
        assert_eq!(bench.states().last(), Some(&("u.00000001", state)));
        assert_eq!(bench.memory(), Some(0), "its memory is given back");
    }
}

#[test]
fn a_pod_that_was_out_of_memory_says_so() {
    let mut bench = Bench::up();
    bench.acknowledge = false;
    bench.event(pod_task("u", 1));
    let mut failed = seen("u", PodPhase::Failed);
    failed.reason = Some("OOMKilled".to_owned());
    bench.event(Event::Node(NodeEvent::Pod(failed)));
    bench.event(emptied("u"));
    let (_, updates) = bench.core.unacknowledged();
    let status = &updates.last().unwrap().status;
    assert_eq!(
        status.reason(),
        pb::task_status::Reason::ContainerLimitationMemory
    );
    assert_eq!(status.message(), "OOMKilled");
}

#[test]
fn readiness_is_reported_as_health_when_it_changes() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    let mut observation = seen("u", PodPhase::Running);
    for ready in [false, false, true, true, false] {
        observation.ready = ready;
        bench.event(Event::Node(NodeEvent::Pod(observation.clone())));
    }
    let running = bench
        .states()
        .iter()
        .filter(|(_, state)| *state == TaskRunning)
        .count();
    assert_eq!(running, 3);
}

#[test]
fn a_pod_without_a_node_task_fails_after_a_while() {
    let mut bench = Bench::new();
    bench.event(pod_task("u", 1));
    bench.later(NODE_TASK_DEADLINE.0);
    assert!(bench.told.is_empty());
    bench.later(1);
    assert_eq!(bench.states(), [("u.00000001", TaskFailed)]);
}

#[test]
fn a_list_tells_of_pods_that_went_while_nobody_watched() {
    let mut bench = Bench::up();
    for uid in ["u", "v"] {
        bench.event(pod_task(uid, 1));
        bench.event(pod(uid, PodPhase::Running));
    }
    bench.event(Event::Node(NodeEvent::Listed(vec![seen(
        "v",
        PodPhase::Running,
    )])));
    bench.event(emptied("u"));
    bench.event(emptied("v"));
    assert_eq!(bench.states().last(), Some(&("u.00000001", TaskKilled)));
}

#[test]
fn processes_that_remain_are_told_of_once() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Failed));
    for _ in 0..3 {
        bench.later(EMPTY_PATIENCE.0);
    }
    let told = bench
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Tell(_)))
        .count();
    assert_eq!(told, 1);
    assert_eq!(bench.states().last(), Some(&("u.00000001", TaskStarting)));
}

#[test]
fn the_limit_rises_before_a_pod_is_reported() {
    let mut bench = Bench::up();
    let effects = bench.core.handle(Millis(1), pod_task("u", 1));
    assert!(matches!(effects[0], Effect::Limits(limits) if limits.memory == 32 * MIB));
    assert!(matches!(effects[1], Effect::Send(_)));
}

#[test]
fn a_pod_without_a_limit_may_use_what_the_agent_has_for_pods_and_no_more() {
    let mut bench = Bench::up();
    let Event::Launch(mut info) = pod_task("u", 1) else {
        unreachable!()
    };
    info.limits.insert(
        "mem".to_owned(),
        pb::value::Scalar {
            value: f64::INFINITY,
        },
    );
    bench.event(Event::Launch(info));
    assert_eq!(bench.memory(), Some(config().allocatable.memory_bytes));
    bench.event(kill(id("u", 1)));
    assert_eq!(bench.memory(), Some(0));
}
