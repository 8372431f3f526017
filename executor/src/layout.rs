//! Where things are on an agent (docs/contracts.md, "Directories on an agent").

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The two roots that the command line gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    data_dir: PathBuf,
    run_dir: PathBuf,
}

impl Paths {
    /// `data_dir` survives reboots (`/var/lib/k8sm`), `run_dir` need not (`/run/k8sm`).
    pub fn new(data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            run_dir: run_dir.into(),
        }
    }

    /// Survives reboots.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Sockets and state that a reboot may end.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Where payloads are unpacked, one directory per digest.
    pub fn payloads(&self) -> PathBuf {
        self.data_dir.join("payload")
    }

    /// Where the payload of that digest is unpacked.
    pub fn payload(&self, sha256: &str) -> PathBuf {
        self.payloads().join(sha256)
    }

    /// The clean-up lists of all nodes, one file each.
    pub fn manifests(&self) -> PathBuf {
        self.data_dir.join("cleanup")
    }

    /// The directories of one node.
    pub fn node(&self, node_name: &str) -> NodePaths {
        let hash = short_hash(node_name);
        NodePaths {
            root: self.data_dir.join("nodes").join(node_name),
            run: self.run_dir.join(&hash),
            manifest: self.manifests().join(node_name),
            hash,
        }
    }
}

/// Eight hexadecimal digits that stand for a node's name where names must be short
/// (sockets: 107 bytes, network links: 15).
pub fn short_hash(node_name: &str) -> String {
    let digest = Sha256::digest(node_name.as_bytes());
    digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// The directories of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePaths {
    /// `<data-dir>/nodes/<node name>`: removed when the node is given up.
    pub root: PathBuf,
    /// `<run-dir>/<short hash>`: sockets, containerd's state.
    pub run: PathBuf,
    /// See [`short_hash`].
    pub hash: String,
    /// What the guard and the next start remove, see [`crate::guard::manifest`]. Outside `root`,
    /// because removing `root` may be part of it.
    pub manifest: PathBuf,
}

impl NodePaths {
    /// containerd's root (images, snapshots).
    pub fn containerd_root(&self) -> PathBuf {
        self.root.join("containerd")
    }

    /// containerd's state (bundles, network namespaces).
    pub fn containerd_state(&self) -> PathBuf {
        self.run.join("containerd")
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// A link to the payload that the node uses.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// Where kubelet says that it is well.
    pub fn kubelet_notify_socket(&self) -> PathBuf {
        self.run.join("kubelet.notify")
    }

    /// kubelet's root.
    pub fn kubelet_root(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// Keys and certificates, mode 0700.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Authorities of registries that containerd trusts besides the machine's.
    pub fn registry_cas(&self) -> PathBuf {
        self.config().join("registry-cas")
    }

    /// Rendered configuration files, mode 0700.
    pub fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// State of the CNI plugins.
    pub fn cni_state(&self) -> PathBuf {
        self.root.join("cni")
    }

    /// Logs of the node's own processes: `<component>.log`.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Logs of the pods' containers.
    pub fn pod_logs(&self) -> PathBuf {
        self.root.join("pod-logs")
    }

    /// What the supervisor knows of its children, for adoption after `exec`.
    pub fn children(&self) -> PathBuf {
        self.root.join("children")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_short_directory_for_sockets() {
        let paths = Paths::new("/var/lib/k8sm", "/run/k8sm").node(&"n".repeat(63));
        assert_eq!(paths.hash.len(), 8);
        let socket = paths.containerd_socket();
        assert!(socket.as_os_str().len() < 107, "{}", socket.display());
    }
}
