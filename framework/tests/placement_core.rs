//! Placement by the decision core where Mesos and Kubernetes count differently: ports that pods
//! share, and resources that only the node knows.

#[allow(dead_code, reason = "other tests use the rest of the bench")]
mod support;

use framework::core::Event;
use framework::core::event::Launch;
use framework::core::node::NodeView;
use framework::core::pod::PodView;
use framework::core::task::{End, MesosState, Outcome};
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
