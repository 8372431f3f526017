//! What the apps depend on besides the options: what the pre-flight found and chose. With the same
//! options and the same facts the same apps are rendered, byte for byte.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::pki::Component;
use crate::run::MemberState;

/// What the pre-flight found and chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Tells this installation from an earlier one of the same name; also etcd's cluster token.
    /// Lower-case letters, digits and `-`.
    pub install_id: String,
    /// Version of this project's programs: `0.1.0`.
    pub version: String,
    /// Version of Kubernetes: `v1.37.1`.
    pub kubernetes_version: String,
    /// Marathon's version, `(1, 10)`; what it does not know is left out.
    pub marathon_version: (u32, u32),
    /// The Mesos masters, should the options not say; Marathon's own setting.
    pub mesos_master: String,
    /// The agents of etcd's members, in the order of their numbers; empty for an external etcd.
    pub etcd_hosts: Vec<AgentHost>,
    /// Where etcd keeps its data, `auto` resolved.
    pub etcd_storage: EtcdStorage,
    /// Whether etcd's members form a cluster, by their numbers; a missing one means `new`.
    #[serde(default)]
    pub etcd_states: BTreeMap<u8, MemberState>,
    /// Until when (seconds since 1970) members may form the cluster; the installation's own time
    /// and a limit.
    #[serde(default)]
    pub etcd_form_until: Option<u64>,
    /// The snapshot that members begin with whose state is `restore`.
    #[serde(default)]
    pub etcd_snapshot: Option<Artifact>,
    /// The agents on which API servers may run, at least as many as there are instances. Clients
    /// know all of them and use those that answer.
    pub api_hosts: Vec<AgentHost>,
    /// How keys get to the apps, `auto` resolved.
    pub pki: PkiDelivery,
    /// Programs by name, for `images.runtime = artifacts`, and in any case what the framework's
    /// nodes need: `k8sm-executor` and `payload`.
    pub artifacts: BTreeMap<String, Artifact>,
    /// The agents that keep the artifacts, whose URIs are in a directory of theirs then; none where
    /// all agents fetch them from somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptBy>,
    /// Whether the framework's app is to bring up the others: the DC/OS package.
    #[serde(default)]
    pub one_app: bool,
}

/// Agents that keep artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptBy {
    /// In which directory.
    pub dir: String,
    /// Their host names: apps run nowhere else.
    pub agents: Vec<String>,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentHost {
    /// Its `hostname` in Mesos: what constraints match.
    pub hostname: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Where etcd keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EtcdStorage {
    /// A reserved Mesos volume.
    Persistent,
    /// A directory of the agent.
    HostPath,
    /// Not here: there is an etcd.
    External,
}

/// How keys get to the apps.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum PkiDelivery {
    /// Marathon's secrets, below this path.
    Secrets {
        /// `keys`: the API servers' keys are the secret `keys/pki-apiserver`. Empty: each secret is
        /// below the folder of its app, `kubernetes-cp/pki-apiserver` and
        /// `kubernetes/pki-framework`.
        path: String,
        /// SHA-256 of what each secret holds, for who puts it there: an app whose keys change
        /// changes with them, and Marathon starts it again. Empty where an operator brings them.
        #[serde(default)]
        digests: BTreeMap<Component, String>,
    },
    /// Files `<component>.json` in this directory of the agents.
    File {
        /// The directory.
        directory: String,
    },
    /// Files `<component>.json` that agents fetch.
    Uri {
        /// Where they are.
        base: String,
    },
    /// The apps' environment.
    Env {
        /// Each component's [`crate::pki::Bundle`] as JSON.
        bundles: BTreeMap<Component, String>,
    },
}

impl std::fmt::Debug for PkiDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secrets { path, .. } => f.debug_struct("Secrets").field("path", path).finish(),
            Self::File { directory } => f
                .debug_struct("File")
                .field("directory", directory)
                .finish(),
            Self::Uri { base } => f.debug_struct("Uri").field("base", base).finish(),
            Self::Env { bundles } => f
                .debug_struct("Env")
                .field("components", &bundles.keys().collect::<Vec<_>>())
                .finish(),
        }
    }
}

/// A file that agents fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Where it is. Agents keep fetched files by their URI, so a new content has a new URI.
    pub uri: String,
    /// Of its content, hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}
