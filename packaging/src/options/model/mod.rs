//! The groups of options and their keys. A field's documentation is what users read about it in
//! `config.json`, on the reference page and in error messages.

mod access;
mod control_plane;
mod kubernetes;
mod mesos;

pub use access::{Audit, Encryption, HttpProxy, Oidc, Pki, Registry};
pub use control_plane::{ApiServer, ControllerManager, Etcd, Proxy};
pub use kubernetes::{Dns, Kubernetes, Nodes, Pods};
pub use mesos::{Artifacts, Framework, Images, Marathon, Mesos, Service};

use super::group::group;

group! {
    /// All options of a cluster.
    Options {} + {
        /// The service as a whole.
        service: Service,
        /// The Mesos cluster.
        mesos: Mesos,
        /// Marathon, which runs the control plane.
        marathon: Marathon,
        /// The framework, which places pods on Mesos' offers.
        framework: Framework,
        /// etcd, the store of the Kubernetes API.
        etcd: Etcd,
        /// The API servers, each with its konnectivity server.
        apiserver: ApiServer,
        /// The controller manager.
        controller_manager: ControllerManager,
        /// The front door: one address for all API servers.
        proxy: Proxy,
        /// The Kubernetes cluster.
        kubernetes: Kubernetes,
        /// Nodes: one per Mesos agent that runs pods.
        nodes: Nodes,
        /// What pods are given that say nothing themselves.
        pods: Pods,
        /// Certificates and keys.
        pki: Pki,
        /// Registries that nodes pull images from.
        registry: Registry,
        /// The HTTP proxy that nodes use to reach the outside world.
        http_proxy: HttpProxy,
        /// Users from an OpenID Connect provider.
        oidc: Oidc,
        /// The audit log of the API servers.
        audit: Audit,
        /// Encryption of Secrets in etcd.
        encryption: Encryption,
        /// How the programs reach the agents.
        images: Images,
        /// Files that Mesos fetches.
        artifacts: Artifacts,
    }
}
