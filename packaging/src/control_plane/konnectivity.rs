//! konnectivity's server: the way from the API server to nodes, pods and services. Its agents run
//! as pods ([`crate::addons`]), dial this server, and prove who they are with a service account
//! token of their own audience.

use super::{ControlPlane, Process, Readiness, flag, loopback, path_flag};
use crate::pki::Name;
use crate::pki::plan::KONNECTIVITY_USER;

/// Audience of the agents' tokens.
pub const AUDIENCE: &str = "system:konnectivity-server";
/// Service account of the agents, in `kube-system`.
pub const SERVICE_ACCOUNT: &str = "konnectivity-agent";

pub(super) fn process(c: &ControlPlane) -> Process {
    let kubeconfig = c.kubeconfig_file(Name::KonnectivityClient, KONNECTIVITY_USER);
    let health = loopback(c.ports.konnectivity_health);
    Process {
        name: "konnectivity-server".to_owned(),
        program: "proxy-server".to_owned(),
        args: vec![
            flag("mode", "grpc"),
            path_flag("uds-name", c.konnectivity_socket()),
            flag("delete-existing-uds-file", true),
            // No TCP port for API servers, only the socket.
            flag("server-port", 0),
            flag("agent-port", c.ports.konnectivity_agent),
            path_flag("cluster-cert", c.pki.certificate(Name::KonnectivityServer)),
            path_flag("cluster-key", c.pki.key(Name::KonnectivityServer)),
            flag("agent-namespace", "kube-system"),
            flag("agent-service-account", SERVICE_ACCOUNT),
            flag("authentication-audience", AUDIENCE),
            path_flag("kubeconfig", &kubeconfig.path),
            // An agent on the destination's own node first: it also reaches what listens on that
            // node only.
            flag("proxy-strategies", "destHost,default"),
            flag("admin-bind-address", "127.0.0.1"),
            flag("admin-port", c.ports.konnectivity_admin),
            flag("health-bind-address", "127.0.0.1"),
            flag("health-port", c.ports.konnectivity_health),
            flag("logtostderr", true),
            // Its default, 4, logs every connection.
            flag("v", 1),
        ],
        env: Vec::new(),
        files: vec![kubeconfig],
        directories: vec![c.run_dir.clone()],
        readiness: Readiness::Http {
            address: health,
            // `/readyz` would wait for agents, which need the API server.
            path: "/healthz".to_owned(),
        },
        after: Vec::new(),
        stop_seconds: 5,
    }
}
