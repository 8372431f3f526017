//! cgroups of the executor: where pods, shims and the node's processes go, and the pods' parent limit.

use std::path::PathBuf;

/// Which kind of cgroups the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The executor's cgroups, made and filled. Paths are relative to a hierarchy's root and the
/// same in every hierarchy; they start with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupSetup {
    /// The machine's kind.
    pub version: CgroupVersion,
    /// Mount points of all hierarchies (one on v2).
    pub mounts: Vec<PathBuf>,
    /// The executor's own tree: the Mesos container's cgroup or `/k8sm/<container id>`.
    pub base: String,
    /// `<base>/k8s`: kubelet's `cgroupRoot`. Its limit is the executor's.
    pub pods: String,
    /// `<base>/k8s/shims`: containerd's `ShimCgroup`.
    pub shims: String,
    /// `<base>/node`: containerd, kubelet and kube-proxy. [`crate::supervise`] puts them there.
    pub node: String,
}
