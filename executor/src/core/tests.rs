//! Behaviour of the state machine, told event by event.

use std::time::Duration;

use mesos::pb;
use seam::id::TaskKind;
use seam::node::{
    Allocatable, ClusterConfig, NodeConfig, NodeOptions, NodePorts, Overhead, Payload,
};
use seam::pod::PodTask;

use super::task::TaskId;
use super::*;
use crate::report::{NodeEvent, PodObservation, PodPhase, PodRef};

const MIB: u64 = 1 << 20;

fn config() -> NodeConfig {
    NodeConfig {
        node_name: "agent-1".to_owned(),
        node_ip: [192, 0, 2, 1].into(),
        pod_cidr: "10.244.1.0/24".to_owned(),
        cluster: ClusterConfig {
            name: "kubernetes".to_owned(),
            api_servers: vec!["192.0.2.9:6443".to_owned()],
            ca: String::new(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            dns_ip: [10, 96, 0, 10].into(),
            dns_domain: "cluster.local".to_owned(),
            vxlan_id: 1,
            vxlan_port: 8472,
        },
        bootstrap_token: "abcdef.0123456789abcdef".to_owned(),
        ports: NodePorts {
            kubelet: 31000,
            proxy_health: 31001,
            proxy_metrics: 31002,
            balancer: 31003,
        },
        allocatable: Allocatable {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            pods: 110,
            gpus: 0,
        },
        overhead: Overhead {
            cpu_millis: 250,
            memory_bytes: 256 * MIB,
            disk_bytes: 1 << 30,
            pod_memory_bytes: 4 * MIB,
        },
        payload: Payload {
            urls: vec![],
            sha256: "0".repeat(64),
            size: 1,
        },
        options: NodeOptions::default(),
    }
}

fn scalar(name: &str, value: f64) -> pb::Resource {
    pb::Resource {
        name: name.to_owned(),
        r#type: pb::value::Type::Scalar as i32,
        scalar: Some(pb::value::Scalar { value }),
        ..Default::default()
    }
}

fn task(id: &TaskKind, data: Vec<u8>, mem: f64) -> Event {
    Event::Launch(Box::new(pb::TaskInfo {
        name: id.to_string(),
        task_id: pb::TaskId {
            value: id.to_string(),
        },
        data: Some(data),
        resources: vec![scalar("cpus", 0.5), scalar("mem", mem)],
        ..Default::default()
    }))
}

/// Runs a core against an agent that acknowledges at once, and keeps what it was told.
struct Bench {
    core: Core,
    now: u64,
    acknowledge: bool,
    /// `(task, state, message)`, in order.
    told: Vec<(String, pb::TaskState, String)>,
    /// Everything else.
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            core: Core::new([7; 32]),
            now: 1000,
            acknowledge: true,
            told: Vec::new(),
            effects: Vec::new(),
        };
        bench.event(Event::Subscribed);
        bench
    }

    fn up() -> Self {
        let mut bench = Self::new();
        bench.event(node_task());
        bench.event(Event::Node(NodeEvent::Ready));
        bench.told.clear();
        bench.effects.clear();
        bench
    }

    fn event(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.core.handle(Millis(self.now), event) {
                let Effect::Send(update) = effect else {
                    self.effects.push(effect);
                    continue;
                };
                let id = update.status.task_id.value.clone();
                let message = update.status.message.clone().unwrap_or_default();
                self.told.push((id.clone(), update.status.state(), message));
                if self.acknowledge {
                    events.push(Event::Acknowledged {
                        task: TaskId(id),
                        uuid: update.status.uuid().to_vec(),
                    });
                }
            }
        }
    }

    fn later(&mut self, millis: u64) {
        self.now += millis;
        self.event(Event::Tick);
    }

    fn states(&self) -> Vec<(&str, pb::TaskState)> {
        self.told
            .iter()
            .map(|(id, state, _)| (id.as_str(), *state))
            .collect()
    }

    fn deletions(&self) -> Vec<(&str, Option<Duration>)> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::DeletePod { pod, grace } => Some((pod.uid.as_str(), *grace)),
                _ => None,
            })
            .collect()
    }

    fn stops(&self) -> usize {
        self.effects
            .iter()
            .filter(|effect| matches!(effect, Effect::StopNode { .. }))
            .count()
    }

    fn memory(&self) -> Option<u64> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Limits(limits) => Some(limits.memory),
            _ => None,
        })
    }
}

const NODE: &str = "node.agent-1.00000001";

fn node_task() -> Event {
    task(&TaskKind::node("agent-1", 1), config().to_data(), 256.0)
}

fn pod_task(uid: &str, attempt: u32) -> Event {
    let data = PodTask {
        namespace: "default".to_owned(),
        name: format!("pod-{uid}"),
        uid: uid.to_owned(),
    };
    task(
        &TaskKind::pod(uid, attempt),
        serde_json::to_vec(&data).unwrap(),
        32.0,
    )
}

fn id(uid: &str, attempt: u32) -> TaskId {
    TaskId(TaskKind::pod(uid, attempt).to_string())
}

fn seen(uid: &str, phase: PodPhase) -> PodObservation {
    PodObservation {
        pod: PodRef {
            namespace: "default".to_owned(),
            name: format!("pod-{uid}"),
            uid: uid.to_owned(),
        },
        phase,
        ready: phase == PodPhase::Running,
        deleting: false,
        reason: None,
        message: None,
        ip: None,
    }
}

fn pod(uid: &str, phase: PodPhase) -> Event {
    Event::Node(NodeEvent::Pod(seen(uid, phase)))
}

fn gone(uid: &str) -> Event {
    Event::Node(NodeEvent::PodGone {
        uid: uid.to_owned(),
    })
}

fn kill(task: TaskId) -> Event {
    Event::Kill { task, grace: None }
}

fn emptied(uid: &str) -> Event {
    Event::Emptied {
        uid: uid.to_owned(),
    }
}

use pb::TaskState::{TaskDropped, TaskFailed, TaskFinished, TaskKilled, TaskRunning, TaskStarting};

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
    bench.event(Event::Kill {
        task: id("u", 1),
        grace: Some(Duration::from_secs(7)),
    });
    bench.event(kill(id("u", 1)));
    assert_eq!(bench.deletions(), [("u", Some(Duration::from_secs(7)))]);
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

mod random {
    use super::*;
    use proptest::prelude::*;

    fn events() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
        proptest::collection::vec((0..14_u8, 0..3_u8, 0..3_u8), 0..80)
    }

    fn event(kind: u8, uid: u8, attempt: u8) -> Event {
        let name = ["u", "v", "w"][usize::from(uid)];
        let attempt = u32::from(attempt);
        match kind {
            0 => pod_task(name, attempt),
            1 => node_task(),
            2 => Event::Node(NodeEvent::Ready),
            3 => pod(name, PodPhase::Running),
            4 => pod(name, PodPhase::Succeeded),
            5 => gone(name),
            6 => kill(id(name, attempt)),
            7 => emptied(name),
            8 => Event::Subscribed,
            9 => Event::Disconnected,
            10 => Event::Node(NodeEvent::NotReady {
                reason: String::new(),
            }),
            11 => Event::Node(NodeEvent::Listed(vec![seen(name, PodPhase::Running)])),
            12 => pod(name, PodPhase::Pending),
            _ => Event::Tick,
        }
    }

    proptest! {
        /// Whatever happens: no task is told of after its terminal state, and the limit is the
        /// sum of the tasks that have no terminal state.
        #[test]
        fn terminal_states_are_final_and_limits_add_up(script in events()) {
            let mut bench = Bench::new();
            let mut launched = std::collections::BTreeSet::new();
            for (kind, uid, attempt) in script {
                if kind == 0 && !launched.insert((uid, attempt)) {
                    continue; // The master refuses a task id that was used.
                }
                bench.now += 500;
                bench.event(event(kind, uid, attempt));
            }
            bench.event(Event::Subscribed);
            bench.later(60_000);
            let mut ended = std::collections::BTreeSet::new();
            for (task, state) in bench.states() {
                prop_assert!(!ended.contains(task), "{task} was told of after its end");
                if !matches!(state, TaskStarting | TaskRunning) {
                    ended.insert(task);
                }
            }
            if bench.core.node.is_some() {
                let live = bench.core.pods.len() as u64;
                prop_assert_eq!(bench.core.limits.unwrap().memory, live * 32 * MIB);
            }
        }
    }
}
