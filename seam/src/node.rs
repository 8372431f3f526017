//! The data of a node task: everything that an executor needs in order to make a node.
//!
//! It travels in `TaskInfo.data` of the node task, never in ExecutorInfo, because ExecutorInfo
//! must stay byte for byte the same while the executor lives and these values may change.
//! It holds one secret, the bootstrap token, which lives minutes and is good for one node's
//! certificates only.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// `TaskInfo.data` of a node task (JSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Name of the Kubernetes node. The framework has created the Node object already, with
    /// its labels, annotations and pod range.
    pub node_name: String,
    /// The node's InternalIP: the address of its Mesos agent.
    pub node_ip: IpAddr,
    /// The pod range of this node, for instance `10.244.3.0/24`.
    pub pod_cidr: String,
    /// The cluster.
    pub cluster: ClusterConfig,
    /// Short-lived token (`<id>.<secret>`) with which kubelet and kube-proxy ask for their
    /// certificates.
    pub bootstrap_token: String,
    /// Host ports of the node's own processes, taken from the offer.
    pub ports: NodePorts,
    /// What the node may give to pods.
    pub allocatable: Allocatable,
    /// Limits of what the node's own processes take.
    pub overhead: Overhead,
    /// The archive with the node's programs and images.
    pub payload: Payload,
    /// Options of kubelet and others that an operator may change.
    #[serde(default)]
    pub options: NodeOptions,
}

/// What is the same for all nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Name of the cluster (the framework's name). Names directories and links on the agent.
    pub name: String,
    /// API servers, `host:port`. The executor balances over them on loopback.
    pub api_servers: Vec<String>,
    /// The cluster's CA certificates (PEM).
    pub ca: String,
    /// Range of all pods, for instance `10.244.0.0/16`.
    pub pod_cidr: String,
    /// Range of services, for instance `10.96.0.0/16`.
    pub service_cidr: String,
    /// Address of the cluster's DNS service.
    pub dns_ip: IpAddr,
    /// Domain of the cluster's DNS, `cluster.local`.
    pub dns_domain: String,
    /// VXLAN network identifier of the pod network, unique per cluster on one underlay.
    pub vxlan_id: u32,
    /// UDP port of the pod network's VXLAN (8472, Linux' own default).
    pub vxlan_port: u16,
}

/// Host ports of the node's own processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePorts {
    /// kubelet's HTTPS port.
    pub kubelet: u16,
    /// kube-proxy's health check.
    pub proxy_health: u16,
    /// kube-proxy's metrics, loopback only.
    pub proxy_metrics: u16,
    /// The executor's balancer to the API servers, loopback only.
    pub balancer: u16,
}

impl NodePorts {
    /// How many ports a node takes from its offer.
    pub const COUNT: usize = 4;
}

/// What the node may give to pods: its Mesos agent's resources less the node task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocatable {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of ephemeral storage.
    pub disk_bytes: u64,
    /// Pods (kubelet's `maxPods`).
    pub pods: u32,
    /// Devices of `nvidia.com/gpu`.
    #[serde(default)]
    pub gpus: u32,
}

/// What the node task itself was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overhead {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk: the budget for images, logs and kubelet's directories.
    pub disk_bytes: u64,
    /// Bytes of memory added to each pod's task for its shim and sandbox.
    pub pod_memory_bytes: u64,
}

/// The node's programs and images: one archive, named by its digest.
pub type Payload = Artifact;

/// A file that agents fetch, named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it can be fetched; tried in this order. `http`, `https` and `file`.
    pub urls: Vec<String>,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// CA certificates (PEM) that `https` places are checked against; empty: those that the
    /// machine trusts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
}

/// Options that an operator may set, each with upstream's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeOptions {
    /// Verbosity (`-v`) of kubelet and kube-proxy; `None` for upstream's own.
    pub verbosity: Option<u8>,
    /// More arguments of kubelet, as they are.
    pub kubelet_args: Vec<String>,
    /// More arguments of kube-proxy, as they are.
    pub kube_proxy_args: Vec<String>,
    /// Mirrors of registries: `(host or "_default", URL)`.
    pub registry_mirrors: Vec<(String, String)>,
    /// PEM certificates of authorities of registries, besides those of the machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub registry_cas: Vec<String>,
    /// The way to registries.
    #[serde(skip_serializing_if = "HttpProxy::is_none")]
    pub http_proxy: HttpProxy,
}

/// The HTTP proxy through which images are pulled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpProxy {
    /// Proxy for `http://`, a URL.
    pub http: Option<String>,
    /// Proxy for `https://`, a URL.
    pub https: Option<String>,
    /// Names, domains and ranges that are reached without it.
    pub no_proxy: Vec<String>,
}

impl HttpProxy {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }
}

/// What may change while a node lives and its pods run.
///
/// Everything else of a [`NodeConfig`] is Mesos' grant or the node's identity, and stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// The cluster.
    pub cluster: ClusterConfig,
    /// The node's programs and images.
    pub payload: Artifact,
    /// Options.
    #[serde(default)]
    pub options: NodeOptions,
    /// The executor's own program; `None`: it stays what it is.
    #[serde(default)]
    pub executor: Option<Artifact>,
}

impl Revision {
    /// Names it: the first 16 hexadecimal digits of a SHA-256 over everything that a node would
    /// have to be changed for. Places to fetch from and the addresses of API servers are left
    /// out, since they move without anything becoming different.
    pub fn digest(&self) -> String {
        let mut same = self.clone();
        same.cluster.api_servers.clear();
        for artifact in std::iter::once(&mut same.payload).chain(&mut same.executor) {
            artifact.urls.clear();
            artifact.ca.clear();
        }
        let json = serde_json::to_vec(&same).expect("plain data has a JSON form");
        let digest = Sha256::digest(json);
        digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// Why a node config could not be read.
#[derive(Debug, thiserror::Error)]
#[error("node configuration in the task's data: {0}")]
pub struct BadNodeConfig(#[from] serde_json::Error);

impl NodeConfig {
    /// Reads `TaskInfo.data`.
    pub fn from_data(data: &[u8]) -> Result<Self, BadNodeConfig> {
        Ok(serde_json::from_slice(data)?)
    }

    /// What of it may change. The executor's program is not in it.
    pub fn revision(&self) -> Revision {
        Revision {
            cluster: self.cluster.clone(),
            payload: self.payload.clone(),
            options: self.options.clone(),
            executor: None,
        }
    }

    /// The same node after that change.
    pub fn revised(&self, revision: &Revision) -> Self {
        Self {
            cluster: revision.cluster.clone(),
            payload: revision.payload.clone(),
            options: revision.options.clone(),
            ..self.clone()
        }
    }

    /// Writes `TaskInfo.data`.
    pub fn to_data(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data has a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::node_config;

    #[test]
    fn a_revision_is_named_by_what_a_node_would_have_to_change_for() {
        let revision = node_config().revision();
        let digest = revision.digest();
        assert_eq!(digest.len(), 16);

        let mut moved = revision.clone();
        moved.payload.urls = vec!["http://elsewhere/p".to_owned()];
        moved.cluster.api_servers = vec!["192.0.2.200:6443".to_owned()];
        assert_eq!(moved.digest(), digest);

        let mut upgraded = revision.clone();
        upgraded.payload.sha256 = "1".repeat(64);
        assert_ne!(upgraded.digest(), digest);
        let mut louder = revision.clone();
        louder.options.verbosity = Some(4);
        assert_ne!(louder.digest(), digest);
        let mut newer = revision.clone();
        newer.executor = Some(newer.payload.clone());
        assert_ne!(newer.digest(), digest);
    }

    #[test]
    fn a_revised_node_keeps_what_mesos_granted_and_who_it_is() {
        let node = node_config();
        let mut revision = node.revision();
        revision.payload.sha256 = "1".repeat(64);
        let revised = node.revised(&revision);
        assert_eq!(revised.payload.sha256, "1".repeat(64));
        assert_eq!(revised.revision(), revision);
        assert_eq!(
            (revised.node_name, revised.ports, revised.allocatable),
            (node.node_name, node.ports, node.allocatable)
        );
    }
}
