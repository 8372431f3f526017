//! What pods of many shapes cost.

use serde_json::{Value, json};

use super::*;

const PLAIN: Accounting = Accounting {
    default_cpu_millis: 10,
    default_memory_bytes: 32 * MIB,
    pod_overhead_bytes: 0,
};

fn demand_with(spec: Value, accounting: &Accounting) -> Result<PodDemand, DemandError> {
    PodDemand::of_spec(&serde_json::from_value(spec).unwrap(), accounting)
}

fn demand(spec: Value) -> PodDemand {
    demand_with(spec, &PLAIN).unwrap()
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

fn sidecar(name: &str, requests: Value) -> Value {
    json!({"name": name, "restartPolicy": "Always", "resources": {"requests": requests}})
}

#[test]
fn containers_add_up_and_the_greatest_init_container_counts() {
    let spec = json!({
        "initContainers": [
            container("init-1", json!({"cpu": "2", "memory": "10Mi"}), json!({})),
            container("init-2", json!({"cpu": "1", "memory": "500Mi"}), json!({})),
        ],
        "containers": [
            container("a", json!({"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "1Gi"}), json!({})),
            container("b", json!({"cpu": "0.7", "memory": "200Mi"}), json!({})),
        ],
    });
    let demand = demand(spec);
    assert_eq!(demand.cpu_millis, 2_000);
    assert_eq!(demand.memory_bytes, 500 * MIB);
    assert_eq!(demand.disk_bytes, 1024 * MIB);
    assert_eq!(demand.limits, PodLimits::default());
}

#[test]
fn sidecars_count_with_everything_that_starts_after_them() {
    // While init-2 runs, both sidecars before it run: 100 + 200 + 1500.
    let spec = json!({
        "initContainers": [
            container("init-1", json!({"cpu": "1700m"}), json!({})),
            sidecar("side-1", json!({"cpu": "100m"})),
            sidecar("side-2", json!({"cpu": "200m"})),
            container("init-2", json!({"cpu": "1500m"}), json!({})),
        ],
        "containers": [container("a", json!({"cpu": "1"}), json!({}))],
    });
    assert_eq!(demand(spec).cpu_millis, 1_800);
    // Without init containers the sum is what counts: 1 + 0.3.
    let spec = json!({
        "initContainers": [sidecar("side", json!({"cpu": "300m"}))],
        "containers": [container("a", json!({"cpu": "1"}), json!({}))],
    });
    assert_eq!(demand(spec).cpu_millis, 1_300);
}

#[test]
fn pod_level_resources_replace_the_sum_and_overhead_comes_on_top() {
    let spec = json!({
        "resources": {"requests": {"cpu": "3", "hugepages-2Mi": "4Mi", "ephemeral-storage": "9Gi"}, "limits": {"cpu": "4"}},
        "overhead": {"cpu": "250m", "memory": "120Mi"},
        "containers": [container("a", json!({"cpu": "1", "memory": "100Mi"}), json!({}))],
    });
    let demand = demand(spec);
    assert_eq!(demand.cpu_millis, 3_250);
    assert_eq!(demand.memory_bytes, 220 * MIB);
    assert_eq!(
        demand.disk_bytes, 0,
        "ephemeral storage is no pod-level resource"
    );
    assert_eq!(demand.other, [("hugepages-2Mi".to_owned(), 4 * MIB)].into());
    assert_eq!(
        demand.limits,
        PodLimits {
            cpu_millis: Some(4_250),
            memory_bytes: None
        }
    );
}

#[test]
fn a_limit_holds_only_if_every_container_has_one() {
    let limited = container(
        "a",
        json!({"cpu": "1", "memory": "64Mi"}),
        json!({"cpu": "2", "memory": "128Mi"}),
    );
    let memory_only = container("b", json!({}), json!({"memory": "100Mi"}));
    let both = demand(json!({"containers": [limited, memory_only]}));
    assert_eq!(
        both.limits,
        PodLimits {
            cpu_millis: None,
            memory_bytes: Some(228 * MIB)
        }
    );
    let init = json!({"name": "init"});
    let with_init = demand(json!({"initContainers": [init], "containers": [limited]}));
    assert_eq!(with_init.limits, PodLimits::default());
}

#[test]
fn a_pod_that_requests_nothing_gets_the_defaults_and_every_pod_its_shim() {
    let accounting = Accounting {
        pod_overhead_bytes: 6 * MIB,
        ..PLAIN
    };
    let nothing = demand_with(json!({"containers": [{"name": "a"}]}), &accounting).unwrap();
    assert_eq!((nothing.cpu_millis, nothing.memory_bytes), (10, 38 * MIB));
    let some = json!({"containers": [container("a", json!({"cpu": "1", "memory": "16Mi"}), json!({"cpu": "1", "memory": "16Mi"}))]});
    let some = demand_with(some, &accounting).unwrap();
    assert_eq!(some.memory_bytes, 22 * MIB);
    assert_eq!(some.limits.memory_bytes, Some(22 * MIB));
}

#[test]
fn a_limit_is_never_below_what_the_task_was_given() {
    let spec = json!({"containers": [container("a", json!({"cpu": "0"}), json!({"cpu": "5m"}))]});
    let demand = demand(spec);
    assert_eq!(demand.cpu_millis, 10);
    assert_eq!(demand.limits.cpu_millis, Some(10));
}

#[test]
fn mesos_gets_whole_mib_and_three_decimals() {
    let spec = json!({"containers": [container("a", json!({"cpu": "0.3333", "memory": "100000001"}), json!({}))]});
    let demand = demand(spec);
    assert!((demand.mesos_cpus() - 0.334).abs() < 1e-9);
    assert!((demand.mesos_mem() - 96.0).abs() < f64::EPSILON);
    assert_eq!(millis_of(0.1 + 0.2), 300);
    assert_eq!(millis_of(-1.0), 0);
    assert_eq!(millis_of(f64::NAN), 0);
    assert_eq!(bytes_of_mib(1.5), MIB + MIB / 2);
}

#[test]
fn gpus_are_whole_and_other_resources_are_named() {
    let spec = json!({"containers": [container("a", json!({"nvidia.com/gpu": "2", "example.com/foo": "3", "example.com/zero": "0"}), json!({}))]});
    let demand = demand(spec);
    assert_eq!(demand.gpus, 2);
    assert_eq!(demand.other, [("example.com/foo".to_owned(), 3)].into());
    let half =
        json!({"containers": [container("a", json!({"nvidia.com/gpu": "500m"}), json!({}))]});
    assert_eq!(demand_with(half, &PLAIN), Err(DemandError::Gpus));
}

#[test]
fn a_quantity_that_cannot_be_read_names_its_place() {
    let spec = json!({"containers": [container("web", json!({"cpu": "lots"}), json!({}))]});
    let error = demand_with(spec, &PLAIN).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("container `web`: resource `cpu`: `lots` is no quantity"),
        "{error}"
    );
    let spec = json!({"containers": [container("web", json!({"memory": "-1Mi"}), json!({}))]});
    let error = demand_with(spec, &PLAIN).unwrap_err();
    assert_eq!(
        error.to_string(),
        "container `web`: resource `memory` is below zero"
    );
}

#[test]
fn one_port_number_for_two_protocols_is_one_for_mesos() {
    let spec = json!({"containers": [{"name": "dns", "ports": [
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP"},
        {"containerPort": 53, "hostPort": 53, "protocol": "TCP"},
    ]}]});
    let demand = demand(spec);
    assert_eq!(demand.host_ports.len(), 2);
    assert_eq!(demand.port_numbers(), [53]);
}
