//! The control plane as values: for each program its arguments, environment, configuration files
//! and how one knows that it is ready. Who starts the processes (the supervisor of `k8sm up`,
//! Marathon later) is not this module's business.

mod api_server;
mod controller_manager;
mod encryption;
mod etcd;
mod konnectivity;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

pub use api_server::ApiServer;
pub use controller_manager::{CONTROLLER_MANAGER_USER, ControllerManager};
pub use encryption::ensure_encryption_config;
pub use etcd::{Beginning, Member};
pub use konnectivity::{
    AUDIENCE as KONNECTIVITY_AUDIENCE, Konnectivity, SERVICE_ACCOUNT as KONNECTIVITY_AGENT,
};
use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::kubeconfig::{Kubeconfig, Source};
use crate::pki::{Authority, Name, Pki, Plan};

/// A process of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Unique name: `etcd`, `kube-apiserver`, ...
    pub name: String,
    /// Name of the binary.
    pub program: String,
    /// Arguments; no secret among them.
    pub args: Vec<String>,
    /// Environment in addition to what the supervisor gives; no secret in it.
    pub env: Vec<(String, String)>,
    /// Files that must be there before it starts.
    pub files: Vec<ConfigFile>,
    /// Directories that must be there before it starts, all with mode 0700.
    pub directories: Vec<PathBuf>,
    /// When it is ready.
    pub readiness: Readiness,
    /// Names of the processes that must be ready before it starts.
    pub after: Vec<String>,
    /// How long it may take to end after SIGTERM, in seconds.
    pub stop_seconds: u64,
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Where.
    pub path: PathBuf,
    /// What. Files that hold keys are not rendered here but refer to them.
    pub content: String,
    /// Permissions.
    pub mode: u32,
}

/// How one knows that a process is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// A GET answers 200.
    Http {
        /// Where.
        address: SocketAddr,
        /// The path.
        path: String,
    },
    /// A GET over TLS answers 200; the server's certificate is checked against `authority`.
    Https {
        /// Where.
        address: SocketAddr,
        /// The path.
        path: String,
        /// PEM file of the authority.
        authority: PathBuf,
    },
    /// It runs.
    Running,
}

/// Ports of the control plane on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The API server, all addresses.
    pub api: u16,
    /// etcd for clients, loopback.
    pub etcd: u16,
    /// etcd for members, loopback.
    pub etcd_peer: u16,
    /// etcd's health and metrics, loopback, no data.
    pub etcd_metrics: u16,
    /// The controller manager's health and metrics, loopback.
    pub controller_manager: u16,
    /// konnectivity's server for its agents, all addresses.
    pub konnectivity_agent: u16,
    /// konnectivity's metrics, loopback.
    pub konnectivity_admin: u16,
    /// konnectivity's health, loopback.
    pub konnectivity_health: u16,
}

/// Ports that services of type NodePort may take. Upstream's default, 30000-32767, overlaps
/// Mesos' default port resources, 31000-32000: kube-proxy would take other frameworks' ports.
pub const NODE_PORTS: (u16, u16) = (30000, 30999);

/// A control plane of one etcd member and one API server.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// Name of the cluster.
    pub cluster: String,
    /// Certificates.
    pub pki: Pki,
    /// Where configuration files go.
    pub config_dir: PathBuf,
    /// Where etcd keeps its data.
    pub data_dir: PathBuf,
    /// Where sockets go. Short: a socket's path has at most 107 bytes.
    pub run_dir: PathBuf,
    /// Address at which nodes and pods reach the API server.
    pub advertise: IpAddr,
    /// Ports.
    pub ports: Ports,
    /// Range of all pods.
    pub pod_cidr: Cidr,
    /// Range of services.
    pub service_cidr: Cidr,
    /// Domain of the cluster.
    pub dns_domain: String,
}

impl ControlPlane {
    /// Address of the service `default/kubernetes`.
    pub fn api_service_address(&self) -> IpAddr {
        IpAddr::V4(
            self.service_cidr
                .nth(1)
                .unwrap_or(std::net::Ipv4Addr::LOCALHOST),
        )
    }

    /// Address of the cluster's DNS service: the tenth of the service range, as everywhere.
    pub fn dns_address(&self) -> IpAddr {
        IpAddr::V4(
            self.service_cidr
                .nth(10)
                .unwrap_or(std::net::Ipv4Addr::LOCALHOST),
        )
    }

    /// What the certificates must say.
    pub fn certificate_plan(&self) -> Plan {
        Plan {
            api_addresses: vec![self.advertise],
            api_names: Vec::new(),
            api_service_address: self.api_service_address(),
            dns_domain: self.dns_domain.clone(),
            etcd_addresses: Vec::new(),
            konnectivity_addresses: vec![self.advertise],
        }
    }

    /// The file with the key that encrypts Secrets; see [`ensure_encryption_config`].
    pub fn encryption_config(&self) -> PathBuf {
        self.pki.dir().join("encryption.yaml")
    }

    /// konnectivity's socket for the API server.
    pub fn konnectivity_socket(&self) -> PathBuf {
        self.run_dir.join("konnectivity.sock")
    }

    /// The processes, in the order in which they start.
    pub fn processes(&self) -> Vec<Process> {
        vec![
            etcd::process(self),
            konnectivity::process(self),
            api_server::process(self),
            controller_manager::process(self),
        ]
    }

    /// A kubeconfig for a program beside the certificates.
    pub fn program_kubeconfig(&self, name: Name, user: &str) -> Kubeconfig {
        Kubeconfig {
            cluster: self.cluster.clone(),
            server: self.local_server(),
            server_name: None,
            authority: Source::File(self.pki.authority_certificate(Authority::Cluster)),
            user: user.to_owned(),
            certificate: Source::File(self.pki.certificate(name)),
            key: Source::File(self.pki.key(name)),
        }
    }

    /// The API server as programs on the same machine reach it.
    pub fn local_server(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    fn kubeconfig_file(&self, name: Name, user: &str) -> ConfigFile {
        kubeconfig_file(&self.config_dir, &self.program_kubeconfig(name, user), name)
    }
}

/// The file of a program's kubeconfig.
pub fn kubeconfig_file(dir: &std::path::Path, kubeconfig: &Kubeconfig, name: Name) -> ConfigFile {
    ConfigFile {
        path: dir.join(format!("{name}.kubeconfig")),
        content: kubeconfig.render(),
        mode: crate::files::SECRET,
    }
}

/// `--name=value`.
fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

/// `--name=path`.
fn path_flag(name: &str, path: impl AsRef<std::path::Path>) -> String {
    flag(name, path.as_ref().display())
}

/// An address on loopback.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests;
