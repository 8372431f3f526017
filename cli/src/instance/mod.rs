//! An instance: one cluster of `k8sm up` on this machine. Its state directory holds everything
//! that must survive a reboot; a short directory in `/run` holds sockets and what is known of
//! running processes. Both names follow from the state directory's path, as do the names of
//! everything else that an instance makes on the machine, so that `k8sm down` finds it even when
//! the state directory is lost.

mod lock;
mod settings;

use std::io;
use std::path::{Path, PathBuf};

use packaging::files::{self, PUBLIC, make_dir, write_atomic};
use sha2::{Digest, Sha256};

use crate::procfs::ProcessId;

pub use lock::Lock;
pub use settings::{
    DEFAULT_API_PORT, DEFAULT_MESOS_PORT, FrontDoorPorts, MarathonPorts, Mesos, PortChooser,
    Settings, is_free, without_password,
};

/// Default state directory.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/k8sm-dev";

/// Folder of a state directory with the record of a cluster that is installed by way of Marathon.
pub const INSTALLED: &str = "cluster";

/// Where instances have their run directories.
pub const DEFAULT_RUN_ROOT: &str = "/run";

/// What is wrong with an instance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A lock is held. Worth a retry once the other is done.
    #[error("{what} holds {path}{holder}")]
    Busy {
        /// What.
        what: &'static str,
        /// The lock.
        path: PathBuf,
        /// Who, if that is known; begins with a blank or is empty.
        holder: String,
    },
    /// A file is damaged.
    #[error(
        "{path} is damaged: {reason}; `k8sm down` removes the instance, and `k8sm up` makes it anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer version of this program.
    #[error("{path} was written by a newer k8sm (version {found} of the file): use that one")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The directory belongs to something else.
    #[error("{path} exists, is not empty and is no instance of k8sm: choose another --state-dir")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The disk.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No port is free.
    #[error("no free port near {near} for {what}")]
    NoPort {
        /// What for.
        what: &'static str,
        /// Where it was looked for.
        near: u16,
    },
}

/// Where an instance's things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
    run_root: PathBuf,
    run: PathBuf,
    short: String,
}

impl Paths {
    /// The paths of the instance in `state`, which need not exist.
    pub fn new(state: &Path) -> Result<Self, Error> {
        Self::with_run_root(state, Path::new(DEFAULT_RUN_ROOT))
    }

    /// The same with another directory in the place of `/run`.
    pub fn with_run_root(state: &Path, run_root: &Path) -> Result<Self, Error> {
        let state = std::path::absolute(state).map_err(|source| Error::Io {
            action: "find",
            path: state.to_owned(),
            source,
        })?;
        let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
        let short: String = digest.iter().take(3).map(|b| format!("{b:02x}")).collect();
        Ok(Self {
            run: run_root.join(format!("k8sm-{short}")),
            run_root: run_root.to_owned(),
            state,
            short,
        })
    }

    /// Six digits that stand for the instance in names.
    pub fn short(&self) -> &str {
        &self.short
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where the directories of all instances are: `/run`.
    pub fn run_root(&self) -> &Path {
        &self.run_root
    }

    /// The directory in `/run`.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// What was chosen when the instance was made.
    pub fn settings(&self) -> PathBuf {
        self.state.join("settings.json")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// Configuration files of the control plane.
    pub fn config(&self) -> PathBuf {
        self.state.join("config")
    }

    /// The address of a Mesos that exists: it may hold a password.
    pub fn mesos_url(&self) -> PathBuf {
        self.pki().join("mesos-url")
    }

    /// etcd's data.
    pub fn etcd(&self) -> PathBuf {
        self.state.join("etcd")
    }

    /// Image archives and the payload.
    pub fn artifacts(&self) -> PathBuf {
        self.state.join("artifacts")
    }

    /// The record of a cluster that is installed by way of Marathon, with its keys: what
    /// `--state-dir` of the installer's commands names.
    pub fn installed(&self) -> PathBuf {
        self.state.join(INSTALLED)
    }

    /// Work directories of the Mesos master and agents.
    pub fn mesos(&self) -> PathBuf {
        self.state.join("mesos")
    }

    /// Data of a node that lives in the machine's own namespaces.
    pub fn node_data(&self) -> PathBuf {
        self.state.join("node")
    }

    /// Sockets of such a node; short, since a socket's path has at most 107 bytes.
    pub fn node_run(&self) -> PathBuf {
        self.run.join("n")
    }

    /// The caller's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// Kubeconfig of `super-admin`, for this program alone.
    pub fn super_kubeconfig(&self) -> PathBuf {
        self.config().join("super-admin.kubeconfig")
    }

    /// Kubeconfig of the framework.
    pub fn framework_kubeconfig(&self) -> PathBuf {
        self.config().join("framework.kubeconfig")
    }

    /// Logs of supervised processes.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Log of one process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Records of running processes.
    pub fn pids(&self) -> PathBuf {
        self.run.join("pids")
    }

    /// What the supervisor shall run.
    pub fn spec(&self) -> PathBuf {
        self.run.join("spec.json")
    }

    /// What the supervisor says about it.
    pub fn status(&self) -> PathBuf {
        self.run.join("status.json")
    }

    fn supervisor_record(&self) -> PathBuf {
        self.run.join("supervisor.json")
    }

    /// The cgroup that the devcluster's agents use as their root, below each hierarchy.
    pub fn cgroups_root(&self) -> String {
        format!("k8sm-{}", self.short)
    }

    /// Prefix of network namespaces and links of the devcluster's agents.
    pub fn link_prefix(&self) -> String {
        format!("km{}", &self.short[..4])
    }

    /// Makes the directories.
    pub fn create(&self) -> Result<(), Error> {
        // Open for reading, so that the caller's kubeconfig below is reachable.
        make_dir(&self.state, 0o755)?;
        make_dir(&self.run, 0o755)?;
        for dir in [
            self.pki(),
            self.config(),
            self.etcd(),
            self.mesos(),
            self.logs(),
            self.pids(),
        ] {
            make_dir(&dir, 0o700)?;
        }
        // Fetched by executors that may run as others.
        make_dir(&self.artifacts(), 0o755)?;
        Ok(())
    }

    /// Whether there is an instance.
    pub fn exists(&self) -> bool {
        self.settings().is_file()
    }

    /// Notes the running supervisor: this process.
    pub fn note_supervisor(&self) -> Result<(), files::Error> {
        let id = ProcessId::of(std::process::id());
        let bytes = serde_json::to_vec(&id).unwrap_or_default();
        write_atomic(&self.supervisor_record(), &bytes, PUBLIC)
    }

    /// Forgets the supervisor.
    pub fn forget_supervisor(&self) {
        let _ = std::fs::remove_file(self.supervisor_record());
    }

    /// The supervisor that was noted last; it may have ended.
    pub fn supervisor(&self) -> Option<ProcessId> {
        let bytes = files::read_optional(&self.supervisor_record()).ok()??;
        serde_json::from_slice(&bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_state_directory() {
        let one = Paths::new(Path::new("/var/lib/k8sm-dev")).unwrap();
        let other = Paths::new(Path::new("/var/lib/k8sm-dev2")).unwrap();
        assert_ne!(one.run(), other.run());
        assert_eq!(one, Paths::new(Path::new("/var/lib/k8sm-dev")).unwrap());
        // Links have at most 15 bytes; the prefix leaves room for a number and a side.
        assert!(one.link_prefix().len() <= 8);
        let socket = one
            .node_run()
            .join("01234567/containerd/s/")
            .join("x".repeat(64));
        assert!(socket.as_os_str().len() < 107);
    }
}
