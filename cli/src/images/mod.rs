//! The project's images: built from the programs that are there, listed, saved, pushed and pulled.
//! What they are made of is defined by `docker/images.yaml` ([`packaging::image::definitions`]);
//! how they are stored is [`packaging::image`]'s, how they travel [`oci`]'s business.

mod build;
mod transfer;

use std::path::{Path, PathBuf};

use packaging::image::definitions::{self, Sources};

pub use build::{Built, LIST, List, build, ensure, save};
pub use transfer::{Access, Sent, pull, push};

use crate::upstream::Versions;

/// What went wrong with images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Their definitions and programs.
    #[error("{error}{hint}", error = .0, hint = hint(.0))]
    Definition(#[from] definitions::Error),
    /// Writing them.
    #[error(transparent)]
    Image(#[from] packaging::image::Error),
    /// Reading them.
    #[error(transparent)]
    Archive(#[from] oci::archive::Error),
    /// A name.
    #[error(transparent)]
    Name(#[from] oci::reference::BadReference),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] oci::registry::Error),
    /// Who one is there.
    #[error(transparent)]
    Credentials(#[from] oci::credentials::Error),
    /// This program's folder.
    #[error(transparent)]
    Catalog(#[from] crate::catalog::Error),
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
    /// There are no images in a directory.
    #[error("{} holds no images; `k8sm images build {}` writes them", .0.display(), .0.display())]
    None(PathBuf),
    /// The list of a directory is damaged.
    #[error("the list of images {path} is damaged: {reason}; `k8sm images build` writes it anew", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An image that is not in a directory.
    #[error("{dir} has no image `{name}`; it has {there}", dir = dir.display())]
    Missing {
        /// Where.
        dir: PathBuf,
        /// Which.
        name: String,
        /// What is there.
        there: String,
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

fn hint(error: &definitions::Error) -> &'static str {
    match error {
        definitions::Error::Program { .. } => {
            ": build all programs (`cargo build --workspace --bins`), and see `k8sm upstream build`"
        }
        _ => "",
    }
}

/// The programs of this machine.
#[derive(Debug, Clone)]
pub struct Programs {
    own: PathBuf,
    upstream: PathBuf,
    versions: Versions,
}

impl Programs {
    /// Only names and versions: what `k8sm` would build.
    pub fn pinned() -> Result<Self, Error> {
        Ok(Self {
            own: crate::catalog::own_dir()?,
            upstream: PathBuf::from("/nonexistent"),
            versions: Versions::pinned(),
        })
    }

    /// Programs in these folders; ours by default beside this one.
    pub fn new(own: Option<&Path>, upstream: &Path) -> Result<Self, Error> {
        Ok(Self {
            own: match own {
                Some(dir) => dir.to_owned(),
                None => crate::catalog::own_dir()?,
            },
            upstream: upstream.to_owned(),
            versions: Versions::of(upstream),
        })
    }
}

/// Whether a program is ours.
fn is_own(name: &str) -> bool {
    name == "k8sm" || name.starts_with("k8sm-")
}

impl Sources for Programs {
    fn program(&self, name: &str) -> Option<PathBuf> {
        let dir = if is_own(name) {
            &self.own
        } else {
            &self.upstream
        };
        Some(dir.join(name)).filter(|path| path.is_file())
    }

    fn version(&self, name: &str) -> Option<String> {
        if is_own(name) {
            return Some(env!("CARGO_PKG_VERSION").to_owned());
        }
        self.versions.get(name).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::prepare;
    use packaging::image::definitions::Choices;

    #[test]
    fn pods_name_the_images_that_nodes_get() {
        let programs = Programs::pinned().unwrap();
        let of = |name: &str| {
            let found = definitions::of(&[name.to_owned()]).unwrap().remove(0);
            found.reference(&programs, &Choices::default())
        };
        assert_eq!(of("pause"), prepare::PAUSE_IMAGE);
        assert_eq!(of("hello"), prepare::HELLO_IMAGE);
        assert_eq!(
            of("coredns"),
            prepare::coredns_image(&Versions::pinned()).unwrap()
        );
        let konnectivity = prepare::konnectivity_image(&Versions::pinned()).unwrap();
        assert_eq!(of("konnectivity-agent"), konnectivity);
    }

    #[test]
    fn every_program_of_an_image_has_a_version() {
        let programs = Programs::pinned().unwrap();
        for definition in definitions::all().unwrap() {
            for program in definition.layers.iter().flatten() {
                assert!(programs.version(program).is_some(), "{program}");
            }
        }
    }
}
