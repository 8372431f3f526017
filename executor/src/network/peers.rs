//! The other nodes, from the Kubernetes API: of each only its address and its pod range.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kube::api::ApiResource;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::plan::Peer;
use crate::credentials::api::{ApiAccess, PENDING_EVENTS, follow};

/// The part of a Node that is read.
pub type TrimmedNode = kube::core::Object<NodeSpec, NodeStatus>;

/// Trimmed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// `spec.podCIDR`.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
}

/// Trimmed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// `status.addresses`.
    pub addresses: Vec<NodeAddress>,
    /// `status.conditions`.
    pub conditions: Vec<NodeCondition>,
}

/// Trimmed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAddress {
    /// `InternalIP`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// Trimmed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCondition {
    /// `Ready`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// CamelCase.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// RFC 3339, whole seconds.
    pub last_heartbeat_time: Option<String>,
}

/// How Nodes are addressed in the API.
pub fn node_resource() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    }
}

/// What a Node means to the pod network; `None` until it has an address and a range.
pub fn peer(node: &TrimmedNode) -> Option<Peer> {
    let pods = node.spec.pod_cidr.as_ref()?.parse().ok()?;
    let node_ip: Ipv4Addr = node
        .status
        .as_ref()?
        .addresses
        .iter()
        .filter(|a| a.kind == "InternalIP")
        .find_map(|a| a.address.parse().ok())?;
    Some(Peer { node_ip, pods })
}

/// Watches all Nodes until `stop`, keeping `nodes` current.
pub async fn watch_nodes(
    access: &ApiAccess,
    nodes: &watch::Sender<Option<BTreeMap<String, Peer>>>,
    stop: &CancellationToken,
) {
    let resource = node_resource();
    let scope = |client: Client| Api::<TrimmedNode>::all_with(client, &resource);
    let config = watcher::Config::default();
    let mut listing: BTreeMap<String, Peer> = BTreeMap::new();
    let (tx, mut rx) = mpsc::channel::<watcher::Event<TrimmedNode>>(PENDING_EVENTS);
    let handle = async {
        while let Some(event) = rx.recv().await {
            match event {
                watcher::Event::Init => listing.clear(),
                watcher::Event::InitApply(node) => {
                    if let (Some(name), Some(peer)) = (&node.metadata.name, peer(&node)) {
                        listing.insert(name.clone(), peer);
                    }
                }
                watcher::Event::InitDone => {
                    let all = std::mem::take(&mut listing);
                    nodes.send_if_modified(|now| {
                        let changed = now.as_ref() != Some(&all);
                        *now = Some(all);
                        changed
                    });
                }
                watcher::Event::Apply(node) => {
                    let Some(name) = node.metadata.name.clone() else {
                        continue;
                    };
                    let peer = peer(&node);
                    nodes.send_if_modified(|now| {
                        let now = now.get_or_insert_default();
                        match peer {
                            Some(peer) => now.insert(name, peer) != Some(peer),
                            None => now.remove(&name).is_some(),
                        }
                    });
                }
                watcher::Event::Delete(node) => {
                    let name = node.metadata.name.unwrap_or_default();
                    nodes.send_if_modified(|now| {
                        now.as_mut().is_some_and(|now| now.remove(&name).is_some())
                    });
                }
            }
        }
    };
    tokio::join!(follow(access, scope, config, stop, tx), handle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> TrimmedNode {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_node_is_a_peer_once_it_has_an_address_and_a_range() {
        let whole = node(serde_json::json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n2", "labels": {"a": "b"}},
            "spec": {"podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"], "taints": []},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n2"},
                {"type": "InternalIP", "address": "fd00::2"},
                {"type": "InternalIP", "address": "192.0.2.2"}], "capacity": {"cpu": "4"}},
        }));
        let peer_of_whole = peer(&whole).unwrap();
        assert_eq!(peer_of_whole.node_ip, Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(peer_of_whole.pods.to_string(), "10.244.2.0/24");
        for missing in [
            serde_json::json!({"metadata": {"name": "n"}, "spec": {}}),
            serde_json::json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.2.0/24"}}),
            serde_json::json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "junk"}, "status": {"addresses": []}}),
        ] {
            assert_eq!(peer(&node(missing)), None);
        }
    }
}
