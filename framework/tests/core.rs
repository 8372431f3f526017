//! The decision core, event by event.

#[allow(dead_code, reason = "other tests use the rest of the bench")]
mod support;

use framework::core::event::{BindOutcome, Launch};
use framework::core::node::NodePhase;
use framework::core::task::{End, MesosState, Outcome};
use framework::core::{CoreConfig, Effect, Event};
use std::time::Duration;
use support::{Bench, pod, pod_with};

const FAILED: MesosState = MesosState::Ended(End::Proven(Outcome::Failed));

#[test]
fn the_node_task_and_its_pods_share_one_accept_and_binding_waits_for_starting() {
    let mut bench = Bench::started();
    bench.pod(pod("p1"));
    bench.pod(pod("p2"));
    bench.offer("o1", "a1");
    let accepts = bench.accepts();
    assert_eq!(accepts.len(), 1);
    let tasks = &accepts[0].1;
    assert!(
        matches!(tasks[0], Launch::Node(_)),
        "the node task is first"
    );
    assert_eq!(tasks.len(), 3);
    let (Launch::Node(node), Launch::Pod(first)) = (&tasks[0], &tasks[1]) else {
        panic!("{tasks:?}");
    };
    assert_eq!(node.note.executor_info, first.executor_info, "verbatim");
    assert!(bench.binds().is_empty());
    bench.update(&first.task, MesosState::Starting);
    assert_eq!(bench.binds(), [(first.uid.clone(), first.task.clone())]);
}

#[test]
fn a_pod_goes_to_a_node_that_runs_before_one_that_would_have_to_be_started() {
    let mut bench = Bench::with_node("a1");
    bench.pod(pod("p1"));
    bench.offer("o2", "a2");
    bench.offer("o3", "a1");
    let accepts = bench.accepts();
    assert_eq!(accepts.len(), 1);
    assert_eq!(accepts[0].0.as_str(), "a1");
    assert!(matches!(accepts[0].1[..], [Launch::Pod(_)]));
}

#[test]
fn a_task_whose_agent_is_not_the_pods_bound_node_is_killed() {
    let mut bench = Bench::with_node("a1");
    bench.add_node("a2");
    let task = bench.launch(pod("p1"), "a1");
    let mut bound = pod("p1");
    bound.node = Some("a2".into());
    bench.pod(bound);
    assert_eq!(bench.kills(), [task]);
}

#[test]
fn a_starting_task_whose_pod_is_unbound_is_bound_after_a_restart() {
    let mut bench = Bench::with_node("a1");
    let task = bench.launch(pod("p1"), "a1");
    bench.restart(&[pod("p1")]);
    bench.reconciled(&[(task.clone(), MesosState::Starting)]);
    assert_eq!(bench.binds(), [("p1".into(), task)]);
    assert!(bench.accepts().is_empty(), "not launched again");
}

#[test]
fn nothing_is_launched_before_it_is_known_what_runs() {
    let mut bench = Bench::with_node("a1");
    bench.restart(&[pod("p1")]);
    bench.offer("o9", "a1");
    assert!(bench.accepts().is_empty());
    bench.reconciled(&[]);
    assert_eq!(bench.accepts().len(), 1);
}

#[test]
fn a_kill_is_repeated_until_the_task_has_ended() {
    let mut bench = Bench::with_node("a1");
    let task = bench.launch(pod("p1"), "a1");
    bench.send(Event::PodGone("p1".into()));
    assert_eq!(bench.kills(), std::slice::from_ref(&task));
    for _ in 0..3 {
        bench.wait(Duration::from_secs(61));
        assert!(bench.kills().contains(&task));
    }
    bench.update(&task, MesosState::Ended(End::Proven(Outcome::Killed)));
    bench.kills();
    bench.wait(Duration::from_secs(300));
    assert!(bench.kills().is_empty());
}

#[test]
fn every_copy_of_an_update_is_acknowledged_and_one_is_acted_on() {
    let mut bench = Bench::with_node("a1");
    let task = bench.launch(pod("p1"), "a1");
    bench.update_with(&task, MesosState::Starting, 7);
    bench.update_with(&task, MesosState::Starting, 7);
    assert_eq!(bench.acknowledgements(), 2);
    assert_eq!(bench.binds().len(), 1);
}

#[test]
fn a_binding_that_failed_is_tried_again_and_one_that_is_refused_ends_the_task() {
    let mut bench = Bench::with_node("a1");
    bench.auto_bind = false;
    let task = bench.launch(pod("p1"), "a1");
    bench.update(&task, MesosState::Starting);
    assert_eq!(bench.binds().len(), 1);
    bench.bound("p1", &task, BindOutcome::Failed("no answer".into()));
    bench.wait(Duration::from_secs(3));
    assert_eq!(bench.binds().len(), 1);
    for _ in 0..5 {
        bench.bound("p1", &task, BindOutcome::Refused("no".into()));
        bench.wait(Duration::from_secs(3));
    }
    assert!(bench.kills().contains(&task));
}

#[test]
fn an_executor_that_is_proven_dead_frees_its_pods_and_nothing_is_launched_before_they_are_gone() {
    let mut bench = Bench::with_node("a1");
    let task = bench.run(pod("p1"), "a1");
    let node_task = bench.node_task("a1");
    bench.update(&node_task, FAILED);
    bench.update(&task, FAILED);
    assert_eq!(bench.failed_pods(), ["p1".into()]);
    bench.pod(pod("p2"));
    bench.offer("o9", "a1");
    assert!(bench.accepts().is_empty());
    assert!(bench.prepared().is_empty());
    assert_eq!(bench.phase("a1"), Some(NodePhase::Clearing));
    bench.send(Event::PodGone("p1".into()));
    bench.offer("o10", "a1");
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.accepts().len(), 1, "a new life");
    assert_ne!(bench.node_task("a1"), node_task);
}

#[test]
fn an_unreachable_agent_is_tainted_and_its_pods_are_left_alone() {
    let mut bench = Bench::with_node("a1");
    let task = bench.run(pod("p1"), "a1");
    let node_task = bench.node_task("a1");
    bench.update(&node_task, MesosState::Unreachable);
    bench.update(&task, MesosState::Unreachable);
    assert_eq!(bench.taints(), [("a1".into(), true)]);
    bench.wait(Duration::from_secs(3600));
    assert!(bench.failed_pods().is_empty());
    assert!(bench.kills().is_empty());
    bench.taints();
    bench.update(&node_task, MesosState::Running);
    bench.update(&task, MesosState::Running);
    assert_eq!(bench.taints(), [("a1".into(), false)]);
    assert_eq!(bench.phase("a1"), Some(NodePhase::Ready));
}

#[test]
fn an_executor_whose_end_is_not_proven_keeps_its_pods_from_being_replaced_by_us() {
    let mut bench = Bench::with_node("a1");
    bench.run(pod("p1"), "a1");
    let node_task = bench.node_task("a1");
    bench.update(&node_task, MesosState::Ended(End::Unproven));
    bench.wait(Duration::from_secs(3600));
    assert!(bench.failed_pods().is_empty());
    let told = bench
        .take(|e| matches!(e, Effect::NodeEvent { reason, .. } if reason == "NodeEndUnproven"));
    assert_eq!(told.len(), 1);
}

#[test]
fn an_agent_that_the_operator_calls_gone_is_out_of_service() {
    let mut bench = Bench::with_node("a1");
    bench.run(pod("p1"), "a1");
    let node_task = bench.node_task("a1");
    bench.update(&node_task, MesosState::Ended(End::GoneByOperator));
    let taints = bench.take(|e| matches!(e, Effect::TaintOutOfService { .. }));
    assert_eq!(taints.len(), 1);
    assert!(
        bench.failed_pods().is_empty(),
        "upstream's controllers do that"
    );
}

#[test]
fn a_pod_that_names_its_node_gets_a_task_there() {
    let mut bench = Bench::with_node("a1");
    let mut own = pod("p1");
    own.node = Some("a1".into());
    bench.pod(own);
    bench.offer("o9", "a1");
    let accepts = bench.accepts();
    assert!(matches!(&accepts[0].1[..], [Launch::Pod(p)] if p.uid.as_str() == "p1"));
    let annotated = bench.take(|e| matches!(e, Effect::Annotate { .. }));
    assert_eq!(annotated.len(), 1);
    assert!(bench.binds().is_empty());
}

#[test]
fn a_pod_that_names_its_node_is_evicted_when_there_is_no_room() {
    let mut bench = Bench::with_node("a1");
    let mut own = pod_with("p1", serde_json::json!({"requests": {"cpu": "64"}}));
    own.node = Some("a1".into());
    bench.pod(own);
    bench.offer("o9", "a1");
    bench.wait(Duration::from_secs(90));
    let evicted = bench.take(|e| matches!(e, Effect::EvictPod { .. }));
    assert!(!evicted.is_empty());
    assert!(bench.accepts().is_empty());
}

#[test]
fn higher_priority_goes_first_and_gated_pods_wait() {
    let mut bench = Bench::with_node("a1");
    let most = serde_json::json!({"requests": {"cpu": "6"}});
    let mut low = pod_with("low", most.clone());
    low.priority = 1;
    let mut high = pod_with("high", most.clone());
    high.priority = 2;
    let mut gated = pod_with("gated", most);
    gated.priority = 3;
    gated.gated = true;
    for pod in [low, gated, high] {
        bench.pod(pod);
    }
    bench.offer("o9", "a1");
    let accepts = bench.accepts();
    assert!(matches!(&accepts[0].1[..], [Launch::Pod(p)] if p.uid.as_str() == "high"));
}

#[test]
fn offers_go_back_when_nothing_wants_them_and_come_again_when_something_does() {
    let mut bench = Bench::started();
    bench.pod(pod("p0"));
    bench.send(Event::PodGone("p0".into()));
    bench.take(|e| matches!(e, Effect::Suppress));
    bench.offer("o1", "a1");
    assert!(
        bench
            .take(|e| matches!(e, Effect::Decline { .. }))
            .is_empty(),
        "held for a moment"
    );
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.take(|e| matches!(e, Effect::Decline { .. })).len(), 1);
    bench.take(|e| matches!(e, Effect::Revive));
    bench.pod(pod("p1"));
    assert_eq!(bench.take(|e| matches!(e, Effect::Revive)).len(), 1);
    bench.send(Event::PodGone("p1".into()));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.take(|e| matches!(e, Effect::Suppress)).len(), 1);
}

#[test]
fn a_rescinded_offer_voids_what_was_planned_on_it() {
    let mut bench = Bench::started();
    bench.auto_prepare = false;
    bench.pod(pod("p1"));
    bench.offer("o1", "a1");
    assert_eq!(bench.prepared().len(), 1);
    bench.send(Event::Rescind("o1".into()));
    bench.finish_preparing("a1");
    assert!(bench.accepts().is_empty());
    bench.offer("o2", "a1");
    let accepts = bench.accepts();
    assert_eq!(accepts.len(), 1);
    assert_eq!(accepts[0].1.len(), 2, "node task and pod");
}

#[test]
fn nodes_min_keeps_nodes_without_pods_and_the_rest_is_given_back_pods_first() {
    let config = CoreConfig {
        nodes_min: 1,
        idle_timeout: Duration::from_secs(60),
        ..CoreConfig::default()
    };
    let mut bench = Bench::started_with(config);
    bench.offer("o1", "a1");
    bench.settle();
    assert_eq!(bench.accepts().len(), 1, "a node without pods");
    bench.wait(Duration::from_secs(600));
    assert_eq!(bench.phase("a1"), Some(NodePhase::Ready));
    bench.add_node("a2");
    let mut daemon = pod("d1");
    daemon.daemon = true;
    let task = bench.run_on(daemon, "a2");
    bench.wait(Duration::from_secs(70));
    let draining = if bench.phase("a1") == Some(NodePhase::Draining) {
        "a1"
    } else {
        "a2"
    };
    let kills = bench.kills();
    if draining == "a2" {
        assert_eq!(kills, std::slice::from_ref(&task), "its pods first");
        bench.update(&task, MesosState::Ended(End::Proven(Outcome::Killed)));
        bench.send(Event::PodGone("d1".into()));
        assert_eq!(bench.kills(), [bench.node_task("a2")], "the node task last");
    } else {
        assert_eq!(kills, [bench.node_task("a1")]);
    }
    let node_task = bench.node_task(draining);
    bench.update(&node_task, MesosState::Ended(End::Proven(Outcome::Killed)));
    bench.wait(Duration::from_secs(1));
    let deleted = bench.take(|e| matches!(e, Effect::DeleteNode { .. }));
    assert_eq!(deleted.len(), 1);
}

#[test]
fn a_task_that_an_implicit_reconciliation_does_not_mention_is_asked_for_by_name() {
    let mut bench = Bench::with_node("a1");
    let task = bench.run(pod("p1"), "a1");
    bench.take(|e| matches!(e, Effect::Reconcile { .. }));
    bench.wait(Duration::from_secs(20 * 60));
    let node_task = bench.node_task("a1");
    bench.reconciled(&[(node_task, MesosState::Running)]);
    bench.wait(Duration::from_secs(10));
    let asked = bench.take(
        |e| matches!(e, Effect::Reconcile { tasks } if tasks.iter().any(|(t, _)| *t == task)),
    );
    assert!(!asked.is_empty());
}

#[test]
fn an_agent_without_an_address_is_reported_and_not_used() {
    let mut bench = Bench::started();
    bench.pod(pod("p1"));
    bench.offer_from("o1", "a1", None);
    bench.wait(Duration::from_secs(5));
    assert!(bench.accepts().is_empty() && bench.prepared().is_empty());
    let problems = bench.take(
        |e| matches!(e, Effect::Problem { message } if message.contains("offer.url.address.ip")),
    );
    assert_eq!(problems.len(), 1);
    let Some(Effect::Unschedulable { message, .. }) = bench
        .take(|e| matches!(e, Effect::Unschedulable { .. }))
        .pop()
    else {
        panic!("the pod's event is missing");
    };
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Mesos agent(s) that offer no address."
    );
}

#[test]
fn a_node_whose_object_is_deleted_is_given_up() {
    let mut bench = Bench::with_node("a1");
    let task = bench.run(pod("p1"), "a1");
    bench.send(Event::NodeGone("a1".into()));
    assert_eq!(bench.kills(), [task]);
    assert_eq!(bench.phase("a1"), Some(NodePhase::Draining));
}

#[test]
fn a_name_that_another_kind_of_node_has_is_not_taken() {
    let mut bench = Bench::started();
    bench.foreign_node("a1");
    bench.pod(pod("p1"));
    bench.offer("o1", "a1");
    let prepared = bench.prepared();
    assert_eq!(prepared.len(), 1);
    assert_ne!(prepared[0].as_str(), "a1");
}

#[test]
fn a_master_that_answers_no_reconciliation_does_not_stop_launches_for_ever() {
    let mut bench = Bench::with_node("a1");
    bench.restart(&[pod("p1")]);
    bench.wait(Duration::from_secs(10));
    bench.offer("o9", "a1");
    assert!(bench.accepts().is_empty());
    bench.wait(Duration::from_secs(40));
    bench.offer("o10", "a1");
    assert_eq!(bench.accepts().len(), 1);
}

#[test]
fn a_pod_gets_resources_of_the_role_that_it_prefers() {
    let mut bench = Bench::with_node("a1");
    let mut choosy = pod("p1");
    choosy.template = std::sync::Arc::new(framework::core::pod::PodTemplate::new(
        choosy.template.requirements.clone(),
        None,
        vec!["gold".into(), "*".into()],
    ));
    bench.offer_in("o8", "a1", "*");
    bench.offer_in("o9", "a1", "gold");
    bench.pod(choosy);
    let roles = bench.take(|e| matches!(e, Effect::Accept { role, .. } if role.as_str() == "gold"));
    assert_eq!(roles.len(), 1);
}

#[test]
fn a_node_that_fails_to_start_is_left_alone_for_a_while_and_its_pods_go_elsewhere() {
    let mut bench = Bench::started();
    bench.pod(pod("p1"));
    bench.offer("o1", "a1");
    let accepts = bench.accepts();
    let tasks: Vec<_> = accepts[0].1.iter().map(|l| l.task().clone()).collect();
    for task in &tasks {
        bench.update(task, FAILED);
    }
    bench.offer("o2", "a1");
    bench.offer("o3", "a2");
    bench.wait(Duration::from_millis(1900));
    let accepts = bench.accepts();
    assert!(!accepts.is_empty());
    assert!(accepts.iter().all(|(agent, _)| agent.as_str() == "a2"));
}

#[test]
fn an_executor_that_no_node_lives_by_is_shut_down_before_anything_is_started_there() {
    let mut bench = Bench::started();
    bench.pod(pod("p1"));
    bench.offer_with_executor("o1", "a1", "node.a1.0000beef");
    assert!(bench.prepared().is_empty() && bench.accepts().is_empty());
    let shut = bench.take(|e| matches!(e, Effect::Shutdown { .. }));
    assert_eq!(shut.len(), 1);
    bench.wait(Duration::from_secs(3));
    bench.offer("o2", "a1");
    assert_eq!(bench.accepts().len(), 1);
}

#[test]
fn no_node_is_started_under_a_name_that_pods_are_still_bound_to() {
    let mut bench = Bench::started();
    let mut old = pod("old");
    old.node = Some("a1".into());
    bench.pod(old);
    bench.pod(pod("p1"));
    bench.offer("o1", "a1");
    bench.wait(Duration::from_secs(3));
    assert!(bench.prepared().is_empty());
    let Some(Effect::Unschedulable { message, .. }) = bench
        .take(|e| matches!(e, Effect::Unschedulable { .. }))
        .pop()
    else {
        panic!("the pod's event is missing");
    };
    assert_eq!(
        message,
        "0/1 nodes are available: 1 node(s) whose former pods are not removed yet."
    );
    bench.send(Event::PodGone("old".into()));
    bench.offer("o2", "a1");
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.accepts().len(), 1);
}

#[test]
fn an_unschedulable_pod_does_not_keep_others_waiting_for_offers() {
    let mut bench = Bench::with_node("a1");
    for n in 0..12 {
        let name = format!("big-{n}");
        bench.pod(support::pod_with(
            &name,
            serde_json::json!({"requests": {"cpu": "64"}}),
        ));
        bench.wait(Duration::from_millis(300));
    }
    bench.take(|e| matches!(e, Effect::Revive));
    bench.pod(pod("small"));
    bench.wait(Duration::from_millis(250));
    assert!(!bench.take(|e| matches!(e, Effect::Revive)).is_empty());
}

/// `cargo test --release -p framework --test core -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn memory_of_a_thousand_nodes_and_ten_thousand_pods() {
    let resident = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0)
    };
    let template = pod("template").template;
    let before = resident();
    let mut state = framework::core::State::new(
        CoreConfig::default(),
        1,
        framework::core::ids::Time(1_000_000),
    );
    let now = framework::core::ids::Time(1_000_001);
    for n in 0..1000 {
        state.handle(Event::Node(Box::new(support::node_on(n))), now);
    }
    state.handle(Event::NodesListed(Default::default()), now);
    for n in 0..1000 {
        state.handle(Event::Node(Box::new(support::node_on(n))), now);
    }
    for n in 0..10_000u32 {
        let uid = format!("0b6a8d3c-7b43-4bfb-8a6a-{n:012}");
        let mut view = pod(&uid);
        view.name = format!("some-deployment-7d4b9c5f6d-{n:05}").into();
        view.node = Some(format!("agent-{}.example.org", n % 1000).into());
        view.task = Some(format!("{uid}.{n:08x}").into());
        view.template = template.clone();
        state.handle(Event::Pod(view), now);
    }
    let effects = state.step(now);
    drop(effects);
    assert_eq!(state.summary().tasks, 11_000);
    println!("{} KiB", resident() - before);
}
