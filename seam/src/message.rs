//! Messages between framework and executor. Mesos delivers them at most once and drops them
//! without a word, so nothing may depend on one arriving: each only makes something faster or
//! visible that also happens another way.

use serde::{Deserialize, Serialize};

/// From the framework to an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToExecutor {
    /// The API servers have moved. The executor also reads the list from the EndpointSlice
    /// `default/kubernetes`.
    ApiServers {
        /// `host:port`, in no order.
        servers: Vec<String>,
    },
}

/// From an executor to the framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToFramework {
    /// Something of the node's own machinery failed or came back; becomes an Event of the Node.
    Component {
        /// `kubelet`, `containerd`, `kube-proxy`, `network`, `payload`.
        component: String,
        /// CamelCase, as in Kubernetes events: `Restarted`, `BackOff`, `Recovered`.
        reason: String,
        /// One sentence for a person.
        message: String,
        /// Whether it is a warning.
        warning: bool,
    },
}
