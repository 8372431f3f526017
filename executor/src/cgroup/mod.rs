//! cgroups of the executor: where pods, shims and the node's processes go, and the pods' parent
//! limit. What is where and why: docs/architecture.md and the tables of Mesos' launchers.
//!
//! | | v1 | v2 |
//! |---|---|---|
//! | base | the Mesos container's cgroup, or `/k8sm/<container id>` where Mesos made none | `/k8sm/<container id>`, never inside Mesos' root |
//! | pods | `<base>/k8s` | the same |
//! | containerd, kubelet, kube-proxy | `<base>/node` | the same |
//! | guard | `/k8sm/<container id>/guard`, so that Mesos can destroy its container | the same |
//!
//! On v1 all of them exist in every hierarchy.

mod discover;
pub mod kill;
mod limits;
mod mirror;
mod setup;

use std::path::{Path, PathBuf};

use crate::guard::manifest::Leftover;
pub use discover::{Discovered, Hierarchy, discover, parse};
pub use limits::apply;
pub use mirror::Mirror;

/// Which kind of cgroups the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The executor's cgroups. Paths are relative to a hierarchy's root and the same in every
/// hierarchy; they start with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupSetup {
    /// The machine's kind.
    pub version: CgroupVersion,
    /// All hierarchies (one on v2).
    pub hierarchies: Vec<Hierarchy>,
    /// On v1: where the unified hierarchy is mounted too, without controllers. Container
    /// runtimes make cgroups there, which must go in the end; we make none.
    pub hybrid: Option<Hierarchy>,
    /// The executor's own tree: the Mesos container's cgroup or `/k8sm/<container id>`.
    pub base: String,
    /// On v2: Mesos' cgroup of the container, if its launcher made one. See [`Mirror`].
    pub granted: Option<String>,
    /// `<base>/k8s`: kubelet's `cgroupRoot`. Its limit is the executor's.
    pub pods: String,
    /// `<base>/k8s/shims`: containerd's `ShimCgroup`.
    pub shims: String,
    /// `<base>/node`: containerd, kubelet and kube-proxy. [`crate::supervise`] puts them there.
    pub node: String,
    /// `/k8sm/<container id>/guard`.
    pub guard: String,
}

/// Why cgroups could not be found, made or set.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Reading or writing failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No hierarchy is mounted.
    #[error(
        "no cgroup hierarchy is mounted: mount cgroup v2 at /sys/fs/cgroup, or the v1 controllers below it"
    )]
    NoneMounted,
    /// A controller that kubelet needs is missing.
    #[error(
        "cgroup controller `{0}` is missing, kubelet needs it: enable it in the kernel's command line"
    )]
    MissingController(&'static str),
    /// The container id cannot be a directory's name.
    #[error("container id `{0}` cannot name a cgroup")]
    BadContainerId(String),
}

impl CgroupError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether the same may work later: a limit below what is in use.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32))
    }
}

impl CgroupSetup {
    /// That cgroup's directory in every hierarchy.
    pub fn dirs(&self, cgroup: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|h| h.dir(cgroup)).collect()
    }

    /// Directory of that cgroup where that controller is.
    pub fn dir_of(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        match self.version {
            CgroupVersion::V2 => self.hierarchies.first().map(|h| h.dir(cgroup)),
            CgroupVersion::V1 => self
                .hierarchies
                .iter()
                .find(|h| h.controllers.iter().any(|c| c == controller))
                .map(|h| h.dir(cgroup)),
        }
    }

    /// Hierarchies in which Mesos made no cgroup for the container: the whole base is ours there.
    fn own(&self) -> impl Iterator<Item = &Hierarchy> {
        let inside = format!("{}/", self.base);
        self.hierarchies
            .iter()
            .filter(move |h| h.own != self.base && !h.own.starts_with(&inside))
            // Mesos' v1 launchers make nothing in it, so all of it is the container runtime's.
            .chain(&self.hybrid)
    }

    /// What must be killed and removed once the executor is gone, in this order.
    pub fn leftovers(&self) -> Vec<Leftover> {
        let trees = [self.dirs(&self.pods), self.dirs(&self.node)];
        let bases = self.own().map(|h| h.dir(&self.base));
        let mut leftovers: Vec<Leftover> = trees
            .into_iter()
            .flatten()
            .chain(bases)
            .map(Leftover::Cgroup)
            .collect();
        for hierarchy in self.own() {
            let base = hierarchy.dir(&self.base);
            leftovers.extend(
                base.ancestors()
                    .skip(1)
                    .take_while(|dir| *dir != hierarchy.mount)
                    .map(|dir| Leftover::CgroupParent(dir.to_owned())),
            );
        }
        leftovers
    }

    /// Whether no process is in that pod's cgroups. A pod without cgroups has none.
    pub fn pod_is_empty(&self, uid: &str) -> bool {
        let Some(dir) = self
            .dir_of("pids", &self.pods)
            .or_else(|| self.dir_of("memory", &self.pods))
        else {
            return true;
        };
        let kubepods = dir.join("kubepods");
        let name = format!("pod{uid}");
        [
            kubepods.join(&name),
            kubepods.join("burstable").join(&name),
            kubepods.join("besteffort").join(&name),
        ]
        .iter()
        .all(|dir| kill::processes(dir).is_empty())
    }
}
