//! kube-controller-manager: pod ranges of nodes, signing of certificates, one service account per
//! controller. It starts only after the API server is ready, since it exits when the server's own
//! RBAC objects do not exist yet.

use super::{ControlPlane, Process, Readiness, flag, loopback, path_flag};
use crate::pki::{Authority, Name};

pub(super) fn process(c: &ControlPlane) -> Process {
    let pki = &c.pki;
    let kubeconfig = c.kubeconfig_file(Name::ControllerManager, "system:kube-controller-manager");
    let cluster_ca = pki.authority_certificate(Authority::Cluster);
    Process {
        name: "kube-controller-manager".to_owned(),
        program: "kube-controller-manager".to_owned(),
        args: vec![
            path_flag("kubeconfig", &kubeconfig.path),
            path_flag("authentication-kubeconfig", &kubeconfig.path),
            path_flag("authorization-kubeconfig", &kubeconfig.path),
            flag("bind-address", "127.0.0.1"),
            flag("secure-port", c.ports.controller_manager),
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
            flag("cluster-name", &c.cluster),
            flag("allocate-node-cidrs", true),
            flag("cluster-cidr", c.pod_cidr),
            flag("service-cluster-ip-range", c.service_cidr),
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
            // One instance: an election would cost 15 s after each restart.
            flag("leader-elect", false),
            flag("profiling", false),
        ],
        env: Vec::new(),
        files: vec![kubeconfig],
        directories: Vec::new(),
        readiness: Readiness::Https {
            address: loopback(c.ports.controller_manager),
            path: "/healthz".to_owned(),
            authority: cluster_ca,
        },
        after: vec!["kube-apiserver".to_owned()],
        stop_seconds: 5,
    }
}
