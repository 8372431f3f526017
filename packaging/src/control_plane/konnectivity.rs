//! konnectivity's server: the way from the API server to nodes, pods and services. Its agents run
//! as pods ([`crate::addons`]), dial this server, and prove who they are with a service account
//! token of their own audience.

use std::path::PathBuf;

use super::{ConfigFile, ControlPlane, Process, Readiness, flag, loopback, path_flag};
use crate::pki::plan::KONNECTIVITY_USER;
use crate::pki::{Name, Pki};

/// Audience of the agents' tokens.
pub const AUDIENCE: &str = "system:konnectivity-server";
/// Service account of the agents, in `kube-system`.
pub const SERVICE_ACCOUNT: &str = "konnectivity-agent";

/// konnectivity's server beside one API server.
#[derive(Debug, Clone)]
pub struct Konnectivity {
    /// Certificates.
    pub pki: Pki,
    /// Its kubeconfig: it has the agents' tokens reviewed.
    pub kubeconfig: ConfigFile,
    /// Its socket for the API server.
    pub socket: PathBuf,
    /// Port for agents, all addresses.
    pub agent_port: u16,
    /// Port of its metrics, loopback.
    pub admin_port: u16,
    /// Port of its health, loopback.
    pub health_port: u16,
    /// How many there are in the cluster: agents connect to each of them.
    pub servers: u32,
    /// Further arguments.
    pub extra_args: Vec<String>,
}

impl Konnectivity {
    /// Its process.
    pub fn process(&self) -> Process {
        let health = loopback(self.health_port);
        let mut args = vec![
            flag("mode", "grpc"),
            path_flag("uds-name", &self.socket),
            flag("delete-existing-uds-file", true),
            // No TCP port for API servers, only the socket.
            flag("server-port", 0),
            flag("agent-port", self.agent_port),
            path_flag(
                "cluster-cert",
                self.pki.certificate(Name::KonnectivityServer),
            ),
            path_flag("cluster-key", self.pki.key(Name::KonnectivityServer)),
            flag("agent-namespace", "kube-system"),
            flag("agent-service-account", SERVICE_ACCOUNT),
            flag("authentication-audience", AUDIENCE),
            path_flag("kubeconfig", &self.kubeconfig.path),
            // An agent on the destination's own node first: it also reaches what listens on that
            // node only.
            flag("proxy-strategies", "destHost,default"),
            flag("admin-bind-address", "127.0.0.1"),
            flag("admin-port", self.admin_port),
            flag("health-bind-address", "127.0.0.1"),
            flag("health-port", self.health_port),
            flag("logtostderr", true),
            // Its default, 4, logs every connection.
            flag("v", 1),
        ];
        if self.servers > 1 {
            args.push(flag("server-count", self.servers));
        }
        args.extend(self.extra_args.iter().cloned());
        Process {
            name: "konnectivity-server".to_owned(),
            program: "proxy-server".to_owned(),
            args,
            env: Vec::new(),
            files: vec![self.kubeconfig.clone()],
            directories: self
                .socket
                .parent()
                .map(std::path::Path::to_owned)
                .into_iter()
                .collect(),
            readiness: Readiness::Http {
                address: health,
                // `/readyz` would wait for agents, which need the API server.
                path: "/healthz".to_owned(),
            },
            after: Vec::new(),
            stop_seconds: 5,
        }
    }
}

pub(super) fn process(c: &ControlPlane) -> Process {
    Konnectivity {
        pki: c.pki.clone(),
        kubeconfig: c.kubeconfig_file(Name::KonnectivityClient, KONNECTIVITY_USER),
        socket: c.konnectivity_socket(),
        agent_port: c.ports.konnectivity_agent,
        admin_port: c.ports.konnectivity_admin,
        health_port: c.ports.konnectivity_health,
        servers: 1,
        extra_args: Vec::new(),
    }
    .process()
}
