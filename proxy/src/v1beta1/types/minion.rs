//! Minions: nodes.

use std::collections::BTreeMap;

use super::container::Number;
use super::{object, part};

object! {
    /// A minion.
    pub struct Minion {
        /// Its address.
        #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
        pub host_ip: Option<String>,
        /// What it has.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub resources: Option<NodeResources>,
        /// Addresses of its pods.
        #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
        pub pod_cidr: Option<String>,
        /// Gets no new pods.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub unschedulable: Option<bool>,
        /// How it is; the server's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<MinionStatus>,
        /// Name in a machine database.
        #[serde(rename = "externalID", skip_serializing_if = "Option::is_none")]
        pub external_id: Option<String>,
    }
}

part! {
    /// What a minion has.
    pub struct NodeResources {
        /// Cores, bytes.
        pub capacity: BTreeMap<String, Number>,
    }
}

part! {
    /// How a minion is.
    pub struct MinionStatus {
        /// `Pending`, `Running`, `Terminated`.
        pub phase: String,
        /// `Ready` and the like.
        pub conditions: Vec<NodeCondition>,
        /// Addresses.
        pub addresses: Vec<NodeAddress>,
        /// Versions.
        pub node_info: NodeInfo,
    }
}

part! {
    /// A condition of a minion.
    pub struct NodeCondition {
        /// `Ready`.
        pub kind: String,
        /// `Full`, `None`, `Unknown`.
        pub status: String,
        /// RFC 3339.
        pub last_probe_time: String,
        /// RFC 3339.
        pub last_transition_time: String,
        /// In a word.
        pub reason: String,
        /// For people.
        pub message: String,
    }
}

part! {
    /// An address of a minion.
    pub struct NodeAddress {
        /// `Hostname`, `ExternalIP`, `InternalIP`.
        #[serde(rename = "type")]
        pub kind: String,
        /// The address.
        pub address: String,
    }
}

part! {
    /// Versions of a minion.
    pub struct NodeInfo {
        /// Of the machine.
        #[serde(rename = "machineID")]
        pub machine_id: String,
        /// Of the machine's board.
        #[serde(rename = "systemUUID")]
        pub system_uuid: String,
        /// Of this boot.
        #[serde(rename = "bootID")]
        pub boot_id: String,
        /// Kernel.
        pub kernel_version: String,
        /// Distribution.
        pub os_image: String,
        /// Container runtime.
        pub container_runtime_version: String,
        /// Kubelet.
        pub kubelet_version: String,
        /// Kube-proxy; nodes do not report it any more.
        pub kube_proxy_version: String,
    }
}
