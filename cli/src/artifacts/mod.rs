//! The artifacts directory: written by [`build`], served by [`serve`], described by
//! [`packaging::install::artifacts`].

pub mod build;
pub mod serve;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use packaging::install::artifacts::{FILE, Manifest};

pub use build::build;
pub use serve::{router, serve};

/// What went wrong with the artifacts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list.
    #[error("{path}: {source}", path = path.display())]
    Manifest {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: packaging::install::artifacts::Error,
    },
    /// There is no artifacts directory.
    #[error("{} holds no artifacts; `k8sm artifacts build {}` writes them", .0.display(), .0.display())]
    None(PathBuf),
    /// A program is missing.
    #[error(transparent)]
    Catalog(#[from] crate::catalog::Error),
    /// A program that is only needed here is missing.
    #[error("{} is missing: build all programs (`cargo build --workspace --bins`), and see `k8sm upstream build`", .0.display())]
    Program(PathBuf),
    /// Images and payload.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// The upstream components.
    #[error(transparent)]
    Upstream(#[from] crate::upstream::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
    /// A file.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The address to serve at.
    #[error("serve the artifacts at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Reads the list of a directory.
pub fn manifest(dir: &Path) -> Result<Manifest, Error> {
    let bytes = packaging::files::read_optional(&dir.join(FILE))?
        .ok_or_else(|| Error::None(dir.to_owned()))?;
    Manifest::parse(&bytes).map_err(|source| Error::Manifest {
        path: dir.to_owned(),
        source,
    })
}
