//! What goes over the wire, and how what comes is read.

use super::*;
use crate::core::node::{NodeNote, Token};
use crate::resources::PortSet;
use mesos::codec::Encoding;

/// Settings of an ordinary cluster.
pub fn settings() -> NodeSettings {
    NodeSettings {
        cluster: ClusterConfig {
            name: "kubernetes".to_owned(),
            api_servers: vec!["10.0.0.1:6443".to_owned()],
            ca: "PEM".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            dns_ip: IpAddr::from([10, 96, 0, 10]),
            dns_domain: "cluster.local".to_owned(),
            vxlan_id: 7,
            vxlan_port: 8472,
        },
        payload: Payload {
            urls: vec!["http://10.0.0.2/p".to_owned()],
            sha256: "ab".repeat(32),
            size: 1,
            ca: String::new(),
        },
        executor: None,
        options: NodeOptions::default(),
        overhead: Amounts {
            cpus: 300,
            mem: 512 * UNIT,
            disk: 2048 * UNIT,
            gpus: 0,
        },
        pod_overhead_bytes: 6 << 20,
        pods_per_node: 110,
        framework_id: "k8sm-1".to_owned(),
    }
}

/// ExecutorInfo as a Node stores it.
pub fn executor() -> Arc<[u8]> {
    let about = ExecutorDescription {
        image: None,
        uri: "http://10.0.0.2/artifacts/ab/k8sm-executor".to_owned(),
        arguments: vec!["--data-dir=/var/lib/k8sm".to_owned()],
        shutdown_grace: 90,
    };
    executor_template(&about, "k8sm-1").encode(&"node.n1.00000001".into())
}

fn grant() -> Pool {
    Pool::unreserved(
        Amounts {
            cpus: 300,
            mem: 512 * UNIT,
            disk: 0,
            gpus: 0,
        },
        PortSet::from_ranges([(31_000, 31_003)]),
    )
}

fn json(launch: &Launch) -> String {
    let mut task = task_info(launch, &"S1".into(), &"k8s".into(), &settings()).unwrap();
    let data = task.data.take().unwrap();
    // Maps have no order of their own.
    let mut limits: Vec<_> = std::mem::take(&mut task.limits).into_iter().collect();
    limits.sort_by(|a, b| a.0.cmp(&b.0));
    let shown: serde_json::Value = serde_json::from_slice(&Encoding::Json.encode(&task)).unwrap();
    format!(
        "{}\nlimits: {limits:?}\ndata: {}",
        serde_json::to_string_pretty(&shown).unwrap(),
        String::from_utf8(data).unwrap()
    )
}

#[test]
fn an_executor_from_an_image_is_its_entry_point_and_fetches_nothing() {
    let about = ExecutorDescription {
        uri: "http://10.0.0.2/artifacts/ab/k8sm-executor".to_owned(),
        image: Some("registry.example.org/k8sm/k8sm-executor:0.1.0".to_owned()),
        arguments: vec!["--data-dir=/var/lib/k8sm".to_owned()],
        shutdown_grace: 90,
    };
    let info = executor_template(&about, "k8sm-1").encode(&"node.n1.00000001".into());
    let info = pb::ExecutorInfo::decode(&*info).unwrap();
    let command = info.command.unwrap();
    assert_eq!((command.value, command.uris), (None, Vec::new()));
    assert_eq!(command.arguments, ["--data-dir=/var/lib/k8sm"]);
    let image = info.container.unwrap().mesos.unwrap().image.unwrap();
    assert_eq!(
        image.docker.unwrap().name,
        "registry.example.org/k8sm/k8sm-executor:0.1.0"
    );
    assert!(info.resources.is_empty());
}

#[test]
fn a_node_task_as_mesos_gets_it() {
    let launch = NodeLaunch {
        node: "n1".into(),
        note: NodeNote {
            agent: "S1".into(),
            executor: "node.n1.00000001".into(),
            executor_info: executor(),
            task: "node.n1.00000001".into(),
        },
        ip: IpAddr::from([10, 0, 0, 3]),
        pod_cidr: "10.244.3.0/24".to_owned(),
        token: Token("abcdef.0123456789abcdef".to_owned()),
        ports: [31_000, 31_001, 31_002, 31_003],
        allocatable: Amounts {
            cpus: 3700,
            mem: 7680 * UNIT,
            disk: 0,
            gpus: 0,
        },
        grant: grant(),
        takes_limits: true,
    };
    insta::assert_snapshot!(json(&Launch::Node(Box::new(launch))));
}

#[test]
fn a_pods_task_as_mesos_gets_it() {
    let launch = PodLaunch {
        task: "0b6a8d3c.00000002".into(),
        uid: "0b6a8d3c".into(),
        namespace: "default".into(),
        name: "hello".into(),
        node: "n1".into(),
        executor_info: executor(),
        grant: grant(),
        cpu_limit: None,
        memory_limit: Some(256 << 20),
        takes_limits: true,
    };
    insta::assert_snapshot!(json(&Launch::Pod(launch)));
}

#[test]
fn what_was_stored_of_an_executor_is_sent_as_it_was() {
    let stored = executor();
    let read = pb::ExecutorInfo::decode(&*stored).unwrap();
    assert_eq!(read.encode_to_vec(), &*stored);
    assert!(read.resources.is_empty());
}

#[test]
fn an_end_is_proven_unless_the_agent_says_that_it_could_not_destroy() {
    use pb::TaskState as S;
    let state = |state: S, message: &str| mesos_state(state, None, message);
    let failed = MesosState::Ended(End::Proven(Outcome::Failed));
    assert_eq!(state(S::TaskFailed, "Executor terminated"), failed);
    assert_eq!(
        state(
            S::TaskFailed,
            "Abnormal executor termination: unknown container"
        ),
        failed
    );
    assert_eq!(
        state(
            S::TaskFailed,
            "Abnormal executor termination: cgroup is busy"
        ),
        MesosState::Ended(End::Unproven)
    );
    for unknown in [S::TaskLost, S::TaskUnreachable, S::TaskUnknown] {
        assert_eq!(state(unknown, ""), MesosState::Unreachable);
    }
    for never in [S::TaskDropped, S::TaskError] {
        assert_eq!(state(never, ""), MesosState::Ended(End::NeverStarted));
    }
}

#[test]
fn an_unlimited_pod_has_an_infinite_limit_only_where_the_agent_takes_limits() {
    assert!(limits(false, None, None).is_empty());
    let all = limits(true, None, Some(1500));
    assert_eq!(all["cpus"].value, f64::INFINITY);
    assert_eq!(all["mem"].value, 1.5);
}

#[test]
fn framework_info_says_what_can_never_change_and_what_we_are_able_to() {
    let info = framework_info(
        &FrameworkDescription {
            name: "kubernetes".to_owned(),
            roles: vec!["k8s".to_owned()],
            principal: Some("p".to_owned()),
            failover_timeout: 604_800.0,
            web_ui: None,
            hostname: Some("h".to_owned()),
        },
        "k8sm-1",
    );
    insta::assert_snapshot!(mesos::codec::to_json(&info), @r#"{"user":"root","name":"kubernetes","id":{"value":"k8sm-1"},"failover_timeout":604800.0,"checkpoint":true,"hostname":"h","principal":"p","capabilities":[{"type":"MULTI_ROLE"},{"type":"RESERVATION_REFINEMENT"},{"type":"PARTITION_AWARE"},{"type":"REGION_AWARE"},{"type":"GPU_RESOURCES"},{"type":"TASK_KILLING_STATE"}],"roles":["k8s"]}"#);
}

/// As a real master sent them (recorded with Mesos 1.12).
#[test]
fn announced_maintenance_and_a_drained_agent_are_read() {
    let inverse: pb::InverseOffer = Encoding::Json.decode(
        br#"{"id": {"value": "m-O5"}, "url": {"scheme": "http", "address": {"hostname": "agent1.test", "ip": "127.0.31.1", "port": 5051}, "path": "/slave(1)"},
            "framework_id": {"value": "m-0000"}, "agent_id": {"value": "m-S0"},
            "unavailability": {"start": {"nanoseconds": 1795176789000000000}, "duration": {"nanoseconds": 3600000000000}}}"#,
    )
    .unwrap();
    assert_eq!(
        inverse_offer(&inverse),
        Some(InverseOffer {
            id: "m-O5".into(),
            agent: "m-S0".into(),
            unavailability: Unavailability {
                start: Time(1_795_176_789_000),
                duration: Some(Duration::from_secs(3600)),
            },
        })
    );
    let status = |reason| pb::TaskStatus {
        task_id: pb::TaskId {
            value: "t1".to_owned(),
        },
        state: pb::TaskState::TaskKilled as i32,
        reason: Some(reason as i32),
        ..Default::default()
    };
    use pb::task_status::Reason;
    assert!(update(&status(Reason::AgentDraining)).draining);
    assert!(!update(&status(Reason::ExecutorUnregistered)).draining);
}

#[test]
fn ports_that_our_tasks_hold_are_read_and_others_are_not_ours() {
    let task = |id: &str, framework: &str, ranges: &[(u64, u64)]| pb::Task {
        task_id: pb::TaskId {
            value: id.to_owned(),
        },
        framework_id: pb::FrameworkId {
            value: framework.to_owned(),
        },
        resources: Pool::unreserved(
            Amounts::default(),
            PortSet::from_ranges(ranges.iter().copied()),
        )
        .to_mesos("*"),
        ..Default::default()
    };
    let answer = pb::master::response::GetTasks {
        tasks: vec![
            task("p1.00000001", "ours", &[(80, 81), (443, 443)]),
            task("p2.00000001", "ours", &[]),
            task("p3.00000001", "theirs", &[(22, 22)]),
        ],
        ..Default::default()
    };
    assert_eq!(
        held_ports(&answer, "ours"),
        [
            ("p1.00000001".into(), vec![80, 81, 443]),
            ("p2.00000001".into(), vec![]),
        ]
    );
}
