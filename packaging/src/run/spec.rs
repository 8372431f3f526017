//! What each component is told.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::options::{Audit, Oidc};

/// What a task runs; the tag `component` is the argument of `k8sm run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "component", rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "a process has one, or a few while they are rendered"
)]
pub enum Run {
    /// An etcd member.
    Etcd(EtcdRun),
    /// An API server with its konnectivity server.
    Apiserver(ApiServerRun),
    /// A controller manager.
    ControllerManager(ControllerManagerRun),
    /// A front door.
    Proxy(ProxyRun),
    /// The framework.
    Framework(FrameworkRun),
}

impl Run {
    /// The argument of `k8sm run`.
    pub fn component(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Apiserver(_) => "apiserver",
            Self::ControllerManager(_) => "controller-manager",
            Self::Proxy(_) => "proxy",
            Self::Framework(_) => "framework",
        }
    }
}

/// An etcd member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdRun {
    /// Its number; `members[number]` is itself.
    pub number: u8,
    /// All members, itself included.
    pub members: Vec<Member>,
    /// Tells the members of this cluster from those of others: made once per installation.
    pub token: String,
    /// Whether the cluster is about to form or has formed.
    pub state: MemberState,
    /// Last second (since 1970) in which a [`MemberState::New`] member may start empty without
    /// asking anybody: later, an empty directory is lost data.
    pub form_until: Option<u64>,
    /// Where its data are: in the sandbox when it is relative, else a directory of the agent.
    pub data_dir: String,
    /// Port for clients.
    pub client_port: u16,
    /// Port for members.
    pub peer_port: u16,
    /// Port for health and metrics, loopback.
    pub metrics_port: u16,
    /// Largest size of the store, bytes.
    pub quota_bytes: u64,
    /// Further arguments of etcd.
    pub extra_args: Vec<String>,
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name: `etcd-0`.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Whether a member helps to form a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// All members begin without data.
    New,
    /// It was added to a cluster that exists, and begins without data.
    Existing,
    /// The cluster has formed: a member without data has lost them, and must not start as if
    /// nothing had been.
    Formed,
    /// All members begin with the fetched snapshot `k8sm-snapshot.db`.
    Restore,
}

/// konnectivity's server's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KonnectivityPorts {
    /// For its agents, all addresses.
    pub agent: u16,
    /// Metrics, loopback.
    pub admin: u16,
    /// Health, loopback.
    pub health: u16,
}

/// An API server with its konnectivity server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiServerRun {
    /// etcd's addresses, `https://host:port`.
    pub etcd: Vec<String>,
    /// Its port.
    pub port: u16,
    /// konnectivity's ports.
    pub konnectivity: KonnectivityPorts,
    /// How many API servers there are.
    pub instances: u32,
    /// Range of services.
    pub service_cidr: String,
    /// Ports of services of type NodePort, `first-last`.
    pub node_port_range: String,
    /// Domain of the cluster.
    pub dns_domain: String,
    /// Seconds between being asked to stop and refusing requests.
    pub shutdown_delay: u32,
    /// Admission plugins besides the default ones.
    pub admission_plugins: Vec<String>,
    /// `Name=true`.
    pub feature_gates: Vec<String>,
    /// Users from an OpenID Connect provider.
    pub oidc: Option<Oidc>,
    /// The audit log.
    pub audit: Option<Audit>,
    /// Further arguments of kube-apiserver.
    pub extra_args: Vec<String>,
    /// Further arguments of konnectivity's server.
    pub konnectivity_extra_args: Vec<String>,
}

/// A controller manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerManagerRun {
    /// Where API servers are, `address:port`: on as many of these agents as there are instances.
    pub api_servers: Vec<String>,
    /// Its port for health and metrics, loopback.
    pub port: u16,
    /// How many controller managers there are; more than one elect a leader.
    pub instances: u32,
    /// Range of pods.
    pub pod_cidr: String,
    /// Range of services.
    pub service_cidr: String,
    /// `Name=true`.
    pub feature_gates: Vec<String>,
    /// Further arguments of kube-controller-manager.
    pub extra_args: Vec<String>,
}

/// A front door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyRun {
    /// Where API servers are, `address:port`: on as many of these agents as there are instances.
    pub api_servers: Vec<String>,
    /// Its port.
    pub port: u16,
    /// Port of the admin router's side.
    pub http_port: u16,
    /// Port of health and metrics.
    pub metrics_port: u16,
    /// Port on loopback; none without.
    pub legacy_port: Option<u16>,
    /// Most connections at a time.
    pub max_connections: u32,
    /// Further arguments of `k8sm-proxy`.
    pub extra_args: Vec<String>,
}

/// The framework.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameworkRun {
    /// Where API servers are, `address:port`: on as many of these agents as there are instances.
    pub api_servers: Vec<String>,
    /// Its port.
    pub port: u16,
    /// Its arguments; the kubeconfig, `--listen`, `--advertise` and the secret's file aside, which
    /// are known in its task only.
    pub args: Vec<String>,
}
