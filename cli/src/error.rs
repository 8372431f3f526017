//! Errors of the commands and the exit codes that stand for them.

use std::fmt::Write as _;
use std::time::Duration;

use crate::{catalog, clean, cluster, http, instance, preflight, supervise};

/// Exit codes, documented in `k8sm --help`. 2 is clap's for a wrong command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// It did not work, for a reason that has no code of its own.
    Failure = 1,
    /// The machine lacks something; nothing was changed.
    Unfit = 3,
    /// Another command or another instance is in the way; try again later.
    Busy = 4,
    /// Something did not become ready in time; what was started goes on, and the command can be
    /// repeated.
    Timeout = 5,
    /// There is no cluster, or it does not run.
    NotUp = 6,
    /// Files of the instance are damaged.
    Damaged = 7,
    /// Ctrl-C.
    Interrupted = 130,
}

/// What a command failed with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine is not fit.
    #[error("{0}")]
    Preflight(#[from] preflight::Unfit),
    /// The instance's files or locks.
    #[error(transparent)]
    Instance(#[from] instance::Error),
    /// The supervisor.
    #[error(transparent)]
    Supervisor(#[from] supervise::client::Error),
    /// The supervisor itself, `k8sm dev supervise`.
    #[error(transparent)]
    Supervise(#[from] supervise::run::Error),
    /// Programs that are missing.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// Building the upstream components.
    #[error(transparent)]
    Upstream(#[from] crate::upstream::Error),
    /// Certificates, configuration, images, payload.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Removing what is left.
    #[error(transparent)]
    Clean(#[from] clean::Error),
    /// HTTP.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// There is no cluster, or it does not run.
    #[error("{0}")]
    NotUp(String),
    /// Something did not become ready.
    #[error("{what} was not ready within {} s{detail}", waited.as_secs())]
    Timeout {
        /// What.
        what: String,
        /// How long was waited.
        waited: Duration,
        /// Why, and where to look; begins with `: ` or is empty.
        detail: String,
    },
    /// Ctrl-C.
    #[error(
        "interrupted; run the same command again to go on, or `k8sm down` to remove everything"
    )]
    Interrupted,
    /// Input or output, or a program that was called.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A component of the control plane, `k8sm run`.
    #[error(transparent)]
    Run(#[from] crate::run::Error),
    /// The artifacts directory.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::Error),
    /// Images.
    #[error(transparent)]
    Images(#[from] crate::images::Error),
    /// The DC/OS package.
    #[error(transparent)]
    Package(#[from] crate::package::Error),
    /// `dcos kubernetes`.
    #[error(transparent)]
    Plugin(#[from] crate::dcos_plugin::Error),
    /// An installed cluster.
    #[error(transparent)]
    Install(#[from] crate::install::Error),
    /// The devcluster.
    #[error("{0}")]
    Mesos(String),
    /// An argument that clap cannot check.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The exit code that stands for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Preflight(_) => ExitCode::Unfit as u8,
            Self::Instance(instance::Error::Busy { .. })
            | Self::Supervise(supervise::run::Error::Instance(instance::Error::Busy { .. })) => {
                ExitCode::Busy as u8
            }
            Self::Instance(instance::Error::Damaged { .. })
            | Self::Cluster(cluster::Error::Pki(
                packaging::pki::Error::Damaged { .. } | packaging::pki::Error::Incomplete { .. },
            )) => ExitCode::Damaged as u8,
            Self::Timeout { .. } | Self::Supervisor(supervise::client::Error::Timeout { .. }) => {
                ExitCode::Timeout as u8
            }
            Self::Install(error) => install_code(error),
            Self::NotUp(_) => ExitCode::NotUp as u8,
            Self::Interrupted => ExitCode::Interrupted as u8,
            Self::Usage(_) => 2,
            _ => ExitCode::Failure as u8,
        }
    }

    /// Adapts an I/O error.
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// The exit code of an error about an installed cluster.
fn install_code(error: &crate::install::Error) -> u8 {
    use crate::install::Error as E;
    use packaging::install::machine::Failure;
    match error {
        E::Unfit(_) => ExitCode::Unfit as u8,
        E::Locked(_) => ExitCode::Busy as u8,
        E::Step(Failure::Timeout { .. }) => ExitCode::Timeout as u8,
        E::None(_) => ExitCode::NotUp as u8,
        E::Damaged { .. } => ExitCode::Damaged as u8,
        E::Interrupted => ExitCode::Interrupted as u8,
        E::Usage(_) | E::Options(_) => 2,
        _ => ExitCode::Failure as u8,
    }
}

/// An error and everything behind it, in one line: many libraries say the real reason only in the
/// last link.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text
}
