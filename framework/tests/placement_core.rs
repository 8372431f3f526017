//! Placement by the decision core where Mesos and Kubernetes count differently: ports that pods
//! share, and resources that only the node knows.

#[allow(dead_code, reason = "other tests use the rest of the bench")]
mod support;

use std::time::Duration;

use framework::core::event::Launch;
use framework::core::ids::TaskId;
use framework::core::node::NodeView;
use framework::core::pod::PodView;
use framework::core::pool::Amounts;
use framework::core::task::{End, MesosState, Outcome};
use framework::core::{CoreConfig, Effect, Event};
use framework::resources::PortSet;
use seam::node::NodePorts;
use serde_json::json;
use support::{Bench, pod, pod_of};

fn with_port(name: &str, protocol: &str, host_ip: &str) -> PodView {
    let port =
        json!({"containerPort": 80, "hostPort": 31_050, "protocol": protocol, "hostIP": host_ip});
    pod_of(
        name,
        json!({"containers": [{"name": "c", "ports": [port]}]}),
    )
}

#[test]
fn pods_share_a_host_port_only_where_protocol_or_address_differ() {
    let mut bench = Bench::with_node("a1");
    bench.run(with_port("first", "TCP", "127.0.0.1"), "a1");
    bench.run(with_port("other-address", "TCP", "10.0.0.1"), "a1");
    bench.run(with_port("other-protocol", "UDP", "10.0.0.1"), "a1");
    bench.pod(with_port("everywhere", "TCP", "0.0.0.0"));
    bench.offer("o-last", "a1");
    assert!(
        bench.accepts().is_empty(),
        "0.0.0.0 overlaps both addresses"
    );
}

#[test]
fn what_only_the_node_knows_is_not_given_twice() {
    let mut bench = Bench::started();
    bench.pod(pod("seed"));
    bench.offer("o1", "a1");
    let accepts = bench.accepts();
    let Some(Launch::Node(launch)) = accepts[0].1.first() else {
        panic!("{accepts:?}");
    };
    let view = NodeView {
        name: launch.node.clone(),
        uid: "node-uid".into(),
        labels: Default::default(),
        taints: Vec::new(),
        unschedulable: false,
        pod_cidr: Some(launch.pod_cidr.clone()),
        other: [("example.com/foo".to_owned(), 3)].into(),
        deleting: false,
        drain: None,
        ours: Some(launch.note.clone()),
    };
    for launch in &accepts[0].1 {
        bench.update(launch.task(), MesosState::Starting);
    }
    bench.send(Event::Node(Box::new(view)));

    let wants_two = |name: &str| {
        let resources =
            json!({"requests": {"example.com/foo": "2"}, "limits": {"example.com/foo": "2"}});
        pod_of(
            name,
            json!({"containers": [{"name": "c", "resources": resources}]}),
        )
    };
    bench.run(wants_two("first"), "a1");
    bench.pod(wants_two("second"));
    bench.offer("o-second", "a1");
    assert!(bench.accepts().is_empty(), "one is left, two are wanted");
    bench.send(Event::PodGone("first".into()));
    for task in bench.kills() {
        bench.update(&task, MesosState::Ended(End::Proven(Outcome::Killed)));
    }
    bench.offer("o-third", "a1");
    assert_eq!(bench.accepts().len(), 1);
}

#[test]
fn a_port_number_is_taken_once_for_pods_that_share_it_by_protocol() {
    let mut bench = Bench::with_node("a1");
    let port = |name: &str, protocol: &str| {
        pod_of(
            name,
            json!({"containers": [{"name": "c", "ports":
                [{"containerPort": 80, "hostPort": 31050, "protocol": protocol}]}]}),
        )
    };
    bench.pod(port("tcp", "TCP"));
    bench.offer("o9", "a1");
    bench.pod(port("udp", "UDP"));
    bench.offer_without_ports("o10", "a1");
    let accepts = bench.accepts();
    let ports: Vec<usize> = accepts
        .iter()
        .flat_map(|(_, launches)| launches)
        .map(|launch| launch.grant().ports().len())
        .collect();
    assert_eq!(ports, [1, 0]);
}

/// Two pods share a port number; the first one's task holds it.
fn with_a_shared_port() -> (Bench, TaskId) {
    let mut bench = Bench::with_node("a1");
    let port = |name: &str, protocol: &str| {
        pod_of(
            name,
            json!({"containers": [{"name": "c", "ports":
                [{"containerPort": 80, "hostPort": 31050, "protocol": protocol}]}]}),
        )
    };
    let holder = bench.run(port("tcp", "TCP"), "a1");
    bench.pod(port("udp", "UDP"));
    // Mesos has given the number away.
    bench.offer_without_ports("o10", "a1");
    bench.settle();
    bench.take(|_| true);
    (bench, holder)
}

#[test]
fn a_port_number_that_pods_shared_is_held_by_another_task_when_its_holder_ends() {
    let (mut bench, holder) = with_a_shared_port();
    bench.delete("tcp");
    bench.end("tcp", &holder);
    bench.offer("o20", "a1");
    let launches: Vec<Launch> = bench
        .accepts()
        .into_iter()
        .flat_map(|(_, launches)| launches)
        .collect();
    let [Launch::Pod(launch)] = &launches[..] else {
        panic!("one task: {launches:?}");
    };
    assert_eq!(launch.uid, "udp".into());
    assert_eq!(launch.grant.ports().iter().collect::<Vec<_>>(), [31050]);
    assert_eq!(launch.grant.amounts(), Amounts::default());

    // It is no second attempt at the pod: nothing is bound, nothing killed.
    bench.update(&launch.task, MesosState::Starting);
    bench.update(&launch.task, MesosState::Running);
    assert_eq!(bench.binds(), []);
    assert_eq!(bench.kills(), []);
}

#[test]
fn a_pod_whose_shared_port_mesos_gave_away_is_evicted() {
    let (mut bench, holder) = with_a_shared_port();
    bench.delete("tcp");
    bench.end("tcp", &holder);
    bench.offer_without_ports("o20", "a1");
    bench.wait(Duration::from_secs(50));
    assert!(
        bench
            .take(|e| matches!(e, Effect::EvictPod { .. }))
            .is_empty()
    );
    bench.wait(Duration::from_secs(15));
    assert_eq!(
        bench.take(|e| matches!(e, Effect::EvictPod { .. })).len(),
        1
    );
}

#[test]
fn after_a_restart_the_holder_of_a_shared_port_is_known_again() {
    let (mut bench, holder) = with_a_shared_port();
    let pods = [bench.view_of("tcp"), bench.view_of("udp")];
    let other = pods[1].task.clone().unwrap();
    bench.restart(&pods);
    bench.reconciled(&[
        (holder.clone(), MesosState::Running),
        (other.clone(), MesosState::Running),
    ]);
    let asked = bench.take(|e| matches!(e, Effect::PollPorts));
    assert_eq!(asked.len(), 1);
    bench.send(Event::HeldPorts(vec![
        (holder.clone(), vec![31_050]),
        (other, Vec::new()),
    ]));
    bench.delete("tcp");
    bench.end("tcp", &holder);
    // Mesos gave the number away, and nobody vouches for the other pod's use of it.
    bench.offer_without_ports("o20", "a1");
    bench.wait(Duration::from_secs(65));
    let evicted = bench.take(|e| matches!(e, Effect::EvictPod { .. }));
    assert_eq!(evicted.len(), 1);
}

#[test]
fn nobody_is_asked_for_ports_where_no_pod_uses_any() {
    let mut bench = Bench::with_node("a1");
    let task = bench.run(pod("p1"), "a1");
    let pods = [bench.view_of("p1")];
    bench.restart(&pods);
    bench.reconciled(&[(task, MesosState::Running)]);
    assert_eq!(bench.take(|e| matches!(e, Effect::PollPorts)), []);
}

#[test]
fn a_node_never_takes_ports_that_are_kept_for_others() {
    let mut bench = Bench::started_with(CoreConfig {
        // All that the bench's agents offer, but for as many as a node needs.
        node_avoid_ports: PortSet::from_ranges([(31_000, 31_099 - NodePorts::COUNT as u64)]),
        ..CoreConfig::default()
    });
    bench.pod(pod("p1"));
    bench.offer("o1", "a1");
    let accepts = bench.accepts();
    let Some(Launch::Node(launch)) = accepts[0].1.first() else {
        panic!("{accepts:?}");
    };
    assert!(
        launch.ports.iter().all(|port| *port >= 31_095),
        "{:?}",
        launch.ports
    );
}

#[test]
fn an_agent_whose_ports_are_all_kept_for_others_gets_no_node() {
    let mut bench = Bench::started_with(CoreConfig {
        node_avoid_ports: PortSet::from_ranges([(31_000, 31_099)]),
        ..CoreConfig::default()
    });
    bench.pod(pod("p1"));
    bench.offer("o1", "a1");
    bench.wait(Duration::from_secs(5));
    assert!(bench.accepts().is_empty());
}
