//! Updates on their way to the agent, and to a successor.

use super::*;

#[test]
fn updates_of_a_task_go_one_at_a_time_and_again_until_acknowledged() {
    let mut bench = Bench::up();
    bench.acknowledge = false;
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    assert_eq!(bench.states(), [("u.00000001", TaskStarting)]);
    bench.later(5_000);
    bench.later(1_000);
    assert_eq!(
        bench.states(),
        [("u.00000001", TaskStarting), ("u.00000001", TaskStarting)]
    );
    let (tasks, updates) = bench.core.unacknowledged();
    assert_eq!((tasks.len(), updates.len()), (1, 2));
    let uuid = updates[0].status.uuid().to_vec();
    assert_eq!(uuid::Uuid::from_slice(&uuid).unwrap().get_version_num(), 4);
    bench.event(Event::Acknowledged {
        task: id("u", 1),
        uuid,
    });
    assert_eq!(bench.states().last(), Some(&("u.00000001", TaskRunning)));
    assert_eq!(bench.core.unacknowledged().0.len(), 0, "known to the agent");
}

#[test]
fn nothing_is_sent_while_the_agent_is_away_and_subscribing_delivers_all() {
    let mut bench = Bench::up();
    bench.acknowledge = false;
    bench.event(Event::Disconnected);
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.later(60_000);
    assert!(bench.told.is_empty());
    assert_eq!(bench.core.unacknowledged().1.len(), 2);
    bench.event(Event::Subscribed);
    assert!(bench.told.is_empty(), "they went along with SUBSCRIBE");
    bench.later(5_000);
    assert_eq!(bench.states(), [("u.00000001", TaskStarting)]);
}

#[test]
fn a_successor_goes_on_with_the_same_tasks_and_updates() {
    let mut bench = Bench::up();
    bench.event(pod_task("running", 1));
    bench.event(pod("running", PodPhase::Running));
    bench.event(pod_task("deleted", 1));
    bench.event(pod("deleted", PodPhase::Running));
    bench.acknowledge = false;
    bench.event(pod_task("new", 1));
    let before = bench.core.unacknowledged();
    let bytes = bench.core.hand_over().unwrap();

    let core = Core::resume([8; 32], &bytes).unwrap();
    assert_eq!(core.unacknowledged(), before);
    assert_eq!(core.node_config(), Some(&config()));
    let mut bench = Bench {
        core,
        acknowledge: true,
        now: bench.now,
        told: Vec::new(),
        effects: Vec::new(),
    };
    bench.event(Event::Subscribed);
    bench.event(Event::Node(NodeEvent::Ready));
    bench.event(Event::Node(NodeEvent::Listed(vec![
        seen("running", PodPhase::Running),
        seen("new", PodPhase::Pending),
    ])));
    bench.event(emptied("deleted"));
    assert_eq!(bench.states(), [("deleted.00000001", TaskKilled)]);
    assert_eq!(bench.memory(), Some(64 * MIB));
}

#[test]
fn no_handover_while_the_node_comes_up_or_goes() {
    let mut bench = Bench::new();
    bench.event(node_task());
    assert!(bench.core.hand_over().is_err());
    bench.event(Event::Node(NodeEvent::Ready));
    assert!(bench.core.hand_over().is_ok());
    bench.event(Event::Shutdown);
    assert!(bench.core.hand_over().is_err());
    for bytes in [&b""[..], b"{}", br#"{"version":9}"#] {
        assert!(Core::resume([0; 32], bytes).is_err());
    }
}
