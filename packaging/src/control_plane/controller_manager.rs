//! kube-controller-manager: pod ranges of nodes, signing of certificates, one service account per
//! controller. It starts only after the API server is ready, since it exits when the server's own
//! RBAC objects do not exist yet.

use super::{ConfigFile, ControlPlane, Process, Readiness, flag, loopback, path_flag};
use crate::cidr::Cidr;
use crate::pki::{Authority, Name, Pki};

/// A controller manager.
#[derive(Debug, Clone)]
pub struct ControllerManager {
    /// Name of the cluster.
    pub cluster: String,
    /// Certificates.
    pub pki: Pki,
    /// Its kubeconfig.
    pub kubeconfig: ConfigFile,
    /// Its port for health and metrics, loopback.
    pub port: u16,
    /// Whether there are several, of which one works.
    pub elect: bool,
    /// Range of pods.
    pub pod_cidr: Cidr,
    /// Range of services.
    pub service_cidr: Cidr,
    /// How long it may take to end, seconds.
    pub stop_seconds: u64,
    /// `Name=true`.
    pub feature_gates: Vec<String>,
    /// Further arguments.
    pub extra_args: Vec<String>,
}

/// User that the controller manager is to the API server.
pub const CONTROLLER_MANAGER_USER: &str = "system:kube-controller-manager";

impl ControllerManager {
    /// Its process.
    pub fn process(&self) -> Process {
        let pki = &self.pki;
        let cluster_ca = pki.authority_certificate(Authority::Cluster);
        let kubeconfig = &self.kubeconfig.path;
        let mut args = vec![
            path_flag("kubeconfig", kubeconfig),
            path_flag("authentication-kubeconfig", kubeconfig),
            path_flag("authorization-kubeconfig", kubeconfig),
            flag("bind-address", "127.0.0.1"),
            flag("secure-port", self.port),
            path_flag(
                "tls-cert-file",
                pki.certificate(Name::ControllerManagerServer),
            ),
            path_flag(
                "tls-private-key-file",
                pki.key(Name::ControllerManagerServer),
            ),
            path_flag("client-ca-file", &cluster_ca),
            path_flag(
                "requestheader-client-ca-file",
                pki.authority_certificate(Authority::FrontProxy),
            ),
            flag("cluster-name", &self.cluster),
            flag("allocate-node-cidrs", true),
            flag("cluster-cidr", self.pod_cidr),
            flag("service-cluster-ip-range", self.service_cidr),
            path_flag("cluster-signing-cert-file", &cluster_ca),
            path_flag(
                "cluster-signing-key-file",
                pki.authority_key(Authority::Cluster),
            ),
            path_flag("root-ca-file", &cluster_ca),
            path_flag(
                "service-account-private-key-file",
                pki.service_account_key(),
            ),
            flag("use-service-account-credentials", true),
            // Off unless they are named.
            flag("controllers", "*,bootstrapsigner,tokencleaner"),
            // With one instance an election would only cost 15 s after each restart.
            flag("leader-elect", self.elect),
            flag("profiling", false),
        ];
        if !self.feature_gates.is_empty() {
            args.push(flag("feature-gates", self.feature_gates.join(",")));
        }
        args.extend(self.extra_args.iter().cloned());
        Process {
            name: "kube-controller-manager".to_owned(),
            program: "kube-controller-manager".to_owned(),
            args,
            env: Vec::new(),
            files: vec![self.kubeconfig.clone()],
            directories: Vec::new(),
            readiness: Readiness::Https {
                address: loopback(self.port),
                path: "/healthz".to_owned(),
                authority: cluster_ca,
            },
            after: vec!["kube-apiserver".to_owned()],
            stop_seconds: self.stop_seconds,
        }
    }
}

pub(super) fn process(c: &ControlPlane) -> Process {
    ControllerManager {
        cluster: c.cluster.clone(),
        pki: c.pki.clone(),
        kubeconfig: c.kubeconfig_file(Name::ControllerManager, CONTROLLER_MANAGER_USER),
        port: c.ports.controller_manager,
        elect: false,
        pod_cidr: c.pod_cidr,
        service_cidr: c.service_cidr,
        stop_seconds: 5,
        feature_gates: Vec::new(),
        extra_args: Vec::new(),
    }
    .process()
}
