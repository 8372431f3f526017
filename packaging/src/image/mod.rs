//! Container images from static programs: no base image, no shell, no daemon. The archive is at
//! once an OCI layout (containerd and skopeo read it as such), a Docker archive (`docker load`,
//! `ctr images import`), and what a Mesos agent reads from the directory that its
//! `--docker_registry` names; so no registry is needed to get an image onto a node.
//!
//! The same files give the same digests: times are zero, owners are root, and nothing depends on
//! the machine, the order of files, or who packs them.
//!
//! Which images this project has is written in `docker/images.yaml` and read by [`definitions`].

pub mod archive;
pub mod definitions;
mod layer;
pub mod licenses;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

pub use layer::Compression;
pub use writer::Writer;

/// User and group of images whose program needs no privileges: `nonroot` of the distroless images.
pub const NON_ROOT: u32 = 65532;

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Absolute path in the image.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A file of this machine.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Full name with a tag: `registry.k8s.io/pause:3.10.2`.
    pub reference: String,
    /// Layers below the files, the lowest first; images that share them share their blobs.
    pub base: Vec<Vec<File>>,
    /// Files, static programs most of all: the uppermost layer.
    pub files: Vec<File>,
    /// What is run.
    pub entrypoint: Vec<String>,
    /// Numeric user and group.
    pub user: u32,
    /// `org.opencontainers.image.*` and others.
    pub labels: BTreeMap<String, String>,
    /// Working directory; empty leaves it to who runs the image: Mesos takes the sandbox then.
    pub working_dir: String,
}

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the image could not be read.
    #[error("read {path} for image {image}: {source}")]
    Read {
        /// The image.
        image: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("write image {image}: {source}")]
    Write {
        /// The image.
        image: String,
        /// Why.
        source: io::Error,
    },
    /// A name without a tag, or a path that is not absolute and plain.
    #[error("image {image}: {reason}")]
    Invalid {
        /// The image.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// A file was written to while it was packed. A retry helps.
    #[error("image {image}: its files changed while they were packed; try again")]
    Changed {
        /// The image.
        image: String,
    },
}

/// What an image became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image's name.
    pub reference: String,
    /// `sha256:...` of the manifest: what `repo@sha256:...` names.
    pub manifest_digest: String,
    /// `sha256:...` of the configuration: what Kubernetes shows as the image's id.
    pub image_id: String,
    /// Bytes of its layers as they are stored.
    pub size: u64,
}

impl Image {
    /// A static program at `/<name>` that runs as nobody in particular.
    pub fn of_program(reference: &str, name: &str, program: impl Into<PathBuf>) -> Self {
        let path = format!("/{name}");
        Self {
            reference: reference.to_owned(),
            base: Vec::new(),
            files: vec![File {
                path: path.clone(),
                mode: 0o755,
                content: Content::File(program.into()),
            }],
            entrypoint: vec![path],
            user: NON_ROOT,
            labels: BTreeMap::new(),
            working_dir: "/".to_owned(),
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes the archive, uncompressed: on one machine packing takes longer than moving.
    pub fn write(&self, out: impl Write) -> Result<Built, Error> {
        Writer::new(Compression::None).write(self, out)
    }

    /// All files.
    pub fn all_files(&self) -> impl Iterator<Item = &File> {
        self.base.iter().flatten().chain(&self.files)
    }

    /// Name and tag.
    fn name_and_tag(&self) -> Result<(&str, &str), Error> {
        self.reference
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.is_empty() && !tag.contains('/'))
            .ok_or_else(|| self.invalid("its name has no tag"))
    }

    fn invalid(&self, reason: &str) -> Error {
        Error::Invalid {
            image: self.reference.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// `sha256:` and 64 digits.
fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of what is read, and how much it was.
pub fn digest_reader(mut reader: impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let size = io::copy(&mut reader, &mut hasher)?;
    Ok((hex(&hasher.finalize()), size))
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests;
