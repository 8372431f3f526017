//! Clusters on a Mesos with Marathon: `k8sm install`, `upgrade`, `stop`, `start`, `uninstall` and
//! what shows and saves them. What to do is decided by [`packaging::install`]; here is what talks
//! to Marathon, Mesos, etcd and Kubernetes.
//!
//! | module | what |
//! |---|---|
//! | [`record`] | what this machine knows of an installation |
//! | [`mesos_view`] | agents, frameworks and versions |
//! | `members` | a member of etcd is replaced |
//! | [`probe`] | what every agent says about itself |
//! | [`keep`] | artifacts for agents that keep them |
//! | [`sandboxes`] | what tasks said |
//! | [`site`] | Marathon, Mesos and the record together: what was found |
//! | [`keys`] | certificates, and what each app gets of them |
//! | [`render`] | options, choices and keys -> apps |
//! | [`work`] | goes through the steps |
//! | [`actions`] | steps that are no change of an app |
//! | [`rolling`] | the framework's way with its nodes to another revision: paused, followed |
//! | [`etcd`] | snapshots and health by etcdctl |

pub mod actions;
mod agents;
pub mod etcd;
mod executors;
pub mod keep;
pub mod keys;
mod members;
pub mod mesos_view;
pub mod probe;
pub mod record;
pub mod render;
pub mod rolling;
pub mod sandboxes;
pub mod site;
pub mod work;

use std::path::{Path, PathBuf};

use packaging::install::machine::Failure;
use packaging::install::preflight::Finding;

pub use record::{Home, Phase, Record};
pub use site::Site;

/// Why a command about an installed cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options.
    #[error("the options are not usable:\n{0}")]
    Options(#[from] packaging::options::Problems),
    /// An options file.
    #[error("read the options in {path}: {source}", path = .path.display())]
    OptionsFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Marathon. Worth a retry where [`crate::marathon::Error::retryable`] says so.
    #[error(transparent)]
    Marathon(#[from] crate::marathon::Error),
    /// Mesos.
    #[error("{action}: {reason}")]
    Mesos {
        /// What was tried.
        action: String,
        /// Why not.
        reason: String,
    },
    /// The pre-flight found what would fail.
    #[error("nothing was changed, because this would fail later:\n{}", listed(.0))]
    Unfit(Vec<Finding>),
    /// A step cannot go on.
    #[error("{0}")]
    Step(#[from] Failure),
    /// Nodes that did not come to another revision.
    #[error("{0}")]
    Nodes(String),
    /// Rendering.
    #[error(transparent)]
    Render(#[from] packaging::marathon::RenderError),
    /// Keys.
    #[error(transparent)]
    Pki(#[from] packaging::pki::Error),
    /// Keys of an app.
    #[error(transparent)]
    Bundle(#[from] packaging::pki::BundleError),
    /// A range.
    #[error(transparent)]
    Cidr(#[from] packaging::cidr::BadCidr),
    /// Artifacts.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::Error),
    /// The list of artifacts.
    #[error(transparent)]
    Manifest(#[from] packaging::install::artifacts::Error),
    /// Kubernetes.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// etcd.
    #[error(transparent)]
    Etcd(#[from] etcd::Error),
    /// The disk.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
    /// The disk.
    #[error("{action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no home directory.
    #[error("neither XDG_CONFIG_HOME nor HOME is set: name the directory with --state-dir")]
    NoHome,
    /// The record is damaged.
    #[error("{path} is damaged: {reason}; restore it from a copy, it names the keys of the cluster", path = .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another command is at work.
    #[error("another k8sm is at work on this cluster (it holds {}); wait for it", .0.display())]
    Locked(PathBuf),
    /// There is no record.
    #[error("there is no installation in {}: `k8sm install` makes one; one made elsewhere is found with --state-dir", .0.display())]
    None(PathBuf),
    /// Something is missing on the command line.
    #[error("{0}")]
    Usage(String),
    /// Somebody asked for it.
    #[error("paused at: {0}; `k8sm upgrade --resume` goes on")]
    Paused(String),
    /// Ctrl-C.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
    /// The command does not fit what is there.
    #[error("{0}")]
    State(String),
}

fn listed(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(|f| format!("  - {f}")).collect();
    lines.join("\n")
}

/// Apps that remove what members of etcd, and snapshots of it, leave in directories of agents. They
/// run there until they have done it, and are deleted then.
pub(crate) fn wipes(record: &Record) -> Result<Vec<packaging::install::plan::Wanted>, Error> {
    use packaging::marathon::EtcdStorage;
    let mut hosts: Vec<&str> = Vec::new();
    if record.choice.etcd_storage == EtcdStorage::HostPath {
        hosts.extend(record.choice.etcd_hosts.iter().map(|h| h.hostname.as_str()));
    }
    // Snapshots lie below the same directory.
    for snapshot in &record.snapshots {
        if !hosts.contains(&snapshot.host.as_str()) {
            hosts.push(&snapshot.host);
        }
    }
    let options = record.parsed_options()?;
    Ok(packaging::install::plan::wipes(
        &record.name,
        &record.id,
        &options.etcd.host_path,
        &hosts,
    ))
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
