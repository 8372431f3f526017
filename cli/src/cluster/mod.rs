//! Makes an instance's files and says what its processes are: certificates, configuration,
//! images and the node payload ([`prepare`]), the processes ([`processes`], [`front_door`]), and what is done
//! through the Kubernetes API ([`api`], [`hello`]).

pub mod api;
pub mod front_door;
pub mod hello;
pub mod prepare;
pub mod processes;
pub mod teardown;

use std::path::PathBuf;

/// What could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] packaging::pki::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
    /// A program whose version nobody knows.
    #[error(
        "nobody knows which version of {0} there is, which names its image: the artifacts list none, and the program says none. `k8sm upstream build` and `k8sm artifacts build` make both anew"
    )]
    NoVersion(&'static str),
    /// A range in the settings.
    #[error(transparent)]
    Cidr(#[from] packaging::cidr::BadCidr),
    /// An image.
    #[error(transparent)]
    Image(#[from] packaging::image::Error),
    /// An image's archive.
    #[error(transparent)]
    Images(#[from] crate::images::Error),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] packaging::payload::Error),
    /// A file that is neither of the above.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The Kubernetes API. Worth a retry while the API server starts.
    #[error("{action}: {reason}")]
    Api {
        /// What was tried.
        action: String,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// A call that failed.
    pub(crate) fn api(action: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::Api {
            action: action.into(),
            reason: crate::error::chain(error),
        }
    }
}
