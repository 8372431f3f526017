//! The parts of a Pod that the executor reads, and what they mean. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kube::api::ApiResource;
use serde::{Deserialize, Serialize};

use crate::network::loopback::{LoopbackPort, Protocol};
use crate::report::{PodObservation, PodPhase, PodRef};

/// A Pod, trimmed.
pub type TrimmedPod = kube::core::Object<PodSpec, PodStatus>;

/// Trimmed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    host_network: bool,
    termination_grace_period_seconds: Option<u64>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    container_port: u16,
    host_port: u16,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

/// Trimmed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    phase: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    state: ContainerState,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerState {
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
    reason: Option<String>,
}

/// How Pods are addressed in the API.
pub fn pod_resource() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        plural: "pods".to_owned(),
    }
}

/// What a Pod says; `None` if it lacks a name or a uid, which no stored Pod does.
pub fn observe(pod: &TrimmedPod) -> Option<PodObservation> {
    let metadata = &pod.metadata;
    let none = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    let phase = match status.phase.as_deref() {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        // `Unknown` has not been written by any kubelet since 1.5.
        _ => PodPhase::Pending,
    };
    let failed = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .find_map(|c| {
            let ended = c.state.terminated.as_ref().filter(|t| t.exit_code != 0)?;
            Some((&c.name, ended))
        });
    let reason = status
        .reason
        .clone()
        .or_else(|| failed.and_then(|(_, t)| t.reason.clone()));
    let message = status.message.clone().or_else(|| {
        let (name, ended) = failed?;
        Some(format!("container {name} ended with {}", ended.exit_code))
    });
    Some(PodObservation {
        pod: PodRef {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
        },
        phase,
        ready: status
            .conditions
            .iter()
            .any(|c| c.kind == "Ready" && c.status == "True"),
        deleting: metadata.deletion_timestamp.is_some(),
        grace: pod
            .spec
            .termination_grace_period_seconds
            .map(Duration::from_secs),
        reason,
        message,
        ip: status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
    })
}

/// Ports of loopback addresses that the pod asks for, while it has an address to send them to.
pub fn loopback_ports(pod: &TrimmedPod) -> Vec<LoopbackPort> {
    let status = pod.status.as_ref();
    let ended = status
        .and_then(|s| s.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    let address = status.and_then(|s| s.pod_ip.as_deref()?.parse::<Ipv4Addr>().ok());
    let Some(address) = address.filter(|_| !ended && !pod.spec.host_network) else {
        return Vec::new();
    };
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    containers
        .flat_map(|c| &c.ports)
        .filter_map(|port| {
            let Ok(IpAddr::V4(on)) = port.host_ip.as_deref()?.parse() else {
                return None;
            };
            (on.is_loopback() && port.host_port != 0).then_some(LoopbackPort {
                address: on,
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: port.host_port,
                pod: address,
                target: port.container_port,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(status: serde_json::Value) -> PodObservation {
        let pod: TrimmedPod = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "ns", "name": "web", "uid": "u1", "managedFields": [{"manager": "x"}]},
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n1"},
            "status": status,
        }))
        .unwrap();
        observe(&pod).unwrap()
    }

    #[test]
    fn only_host_ports_on_loopback_addresses_are_mapped_apart() {
        let mut pod: TrimmedPod = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": "web", "uid": "u1"},
            "spec": {"containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
                {"containerPort": 80, "hostPort": 8080, "hostIP": "192.0.2.1"},
                {"containerPort": 81, "hostIP": "127.0.0.1"},
                {"containerPort": 53, "hostPort": 5353, "hostIP": "127.0.0.53", "protocol": "UDP"},
                {"containerPort": 80, "hostPort": 8080, "hostIP": "::1"}]}]},
            "status": {"phase": "Running", "podIP": "10.244.1.9"},
        }))
        .unwrap();
        let wanted = LoopbackPort {
            address: "127.0.0.53".parse().unwrap(),
            protocol: Protocol::Udp,
            port: 5353,
            pod: "10.244.1.9".parse().unwrap(),
            target: 53,
        };
        assert_eq!(loopback_ports(&pod), [wanted]);
        pod.spec.host_network = true;
        assert_eq!(loopback_ports(&pod), []);
        pod.spec.host_network = false;
        pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert_eq!(loopback_ports(&pod), []);
    }

    #[test]
    fn a_serving_pod_is_running_and_ready() {
        let pod = observed(serde_json::json!({
            "phase": "Running", "podIP": "10.244.3.7",
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "state": {"running": {"startedAt": "2026-11-21T07:00:00Z"}}}],
        }));
        assert_eq!(pod.phase, PodPhase::Running);
        assert!(pod.ready && !pod.deleting);
        assert_eq!(pod.ip, "10.244.3.7".parse().ok());
        assert_eq!(pod.reason, None);
    }

    #[test]
    fn a_pod_out_of_memory_says_so() {
        let pod = observed(serde_json::json!({
            "phase": "Failed",
            "containerStatuses": [
                {"name": "ok", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "leak", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}],
        }));
        assert_eq!(pod.phase, PodPhase::Failed);
        assert_eq!(pod.reason.as_deref(), Some("OOMKilled"));
        assert_eq!(
            pod.message.as_deref(),
            Some("container leak ended with 137")
        );
    }

    #[test]
    fn kubelets_own_reason_comes_first() {
        let pod = observed(
            serde_json::json!({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}),
        );
        assert_eq!(pod.reason.as_deref(), Some("Evicted"));
        assert_eq!(pod.message.as_deref(), Some("low on disk"));
    }

    #[test]
    fn a_pod_that_kubelet_has_not_seen_yet_is_pending() {
        assert_eq!(observed(serde_json::json!({})).phase, PodPhase::Pending);
    }
}
