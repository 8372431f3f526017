//! Minions: nodes.

use k8s_openapi::api::core::v1;

use super::meta::{self, Meta};
use super::types::{Minion, MinionStatus, NodeAddress, NodeCondition, NodeInfo, NodeResources};
use super::{Refused, Resource, pod, quantity, said, some};

/// A minion as v1. Its `status` is the server's and not looked at.
pub fn to_v1(minion: &Minion) -> Result<v1::Node, Refused> {
    let metadata = meta::to_v1(Resource::Minions, minion, None)?;
    let capacity = match minion.resources.as_ref().and_then(|r| r.capacity.as_ref()) {
        Some(capacity) => Some(quantity::to_v1("resources.capacity", capacity)?),
        None => None,
    };
    let address = said(minion.host_ip.as_ref()).map(|address| v1::NodeAddress {
        type_: "InternalIP".to_owned(),
        address,
    });
    let status = v1::NodeStatus {
        addresses: address.map(|a| vec![a]),
        capacity: capacity.filter(|c| !c.is_empty()),
        ..v1::NodeStatus::default()
    };
    let spec = v1::NodeSpec {
        pod_cidr: said(minion.pod_cidr.as_ref()),
        unschedulable: minion.unschedulable.filter(|u| *u),
        external_id: said(minion.external_id.as_ref()),
        ..v1::NodeSpec::default()
    };
    Ok(v1::Node {
        metadata,
        spec: (spec != v1::NodeSpec::default()).then_some(spec),
        status: (status != v1::NodeStatus::default()).then_some(status),
    })
}

/// A minion as v1beta1.
pub fn from_v1(node: &v1::Node) -> Minion {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    let internal = addresses.iter().find(|a| a.type_ == "InternalIP");
    let capacity = status.capacity.as_ref().map(quantity::from_v1);
    let conditions = status.conditions.unwrap_or_default();
    let mut out = Minion {
        host_ip: internal.map(|a| a.address.clone()),
        resources: capacity
            .filter(|c| !c.is_empty())
            .map(|capacity| NodeResources {
                capacity: Some(capacity),
            }),
        pod_cidr: said(spec.pod_cidr.as_ref()),
        unschedulable: spec.unschedulable.filter(|u| *u),
        external_id: said(spec.external_id.as_ref()),
        status: Some(MinionStatus {
            phase: said(status.phase.as_ref()),
            // The others' names are v1's own.
            conditions: some(
                conditions
                    .iter()
                    .filter(|c| c.type_ == "Ready")
                    .map(condition)
                    .collect(),
            ),
            addresses: some(
                addresses
                    .iter()
                    .map(|a| NodeAddress {
                        kind: Some(a.type_.clone()),
                        address: Some(a.address.clone()),
                    })
                    .collect(),
            ),
            node_info: status.node_info.as_ref().map(info),
        }),
        ..Minion::default()
    };
    out.set_meta(meta::from_v1(Resource::Minions, &node.metadata));
    out
}

fn condition(condition: &v1::NodeCondition) -> NodeCondition {
    NodeCondition {
        kind: Some(condition.type_.clone()),
        status: Some(pod::condition(&condition.status)),
        last_probe_time: condition.last_heartbeat_time.as_ref().and_then(meta::time),
        last_transition_time: condition.last_transition_time.as_ref().and_then(meta::time),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    }
}

fn info(info: &v1::NodeSystemInfo) -> NodeInfo {
    NodeInfo {
        machine_id: Some(info.machine_id.clone()),
        system_uuid: Some(info.system_uuid.clone()),
        boot_id: Some(info.boot_id.clone()),
        kernel_version: Some(info.kernel_version.clone()),
        os_image: Some(info.os_image.clone()),
        container_runtime_version: Some(info.container_runtime_version.clone()),
        kubelet_version: Some(info.kubelet_version.clone()),
        kube_proxy_version: said(Some(&info.kube_proxy_version)),
    }
}
