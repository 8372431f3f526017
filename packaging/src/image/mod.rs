//! Container images from static programs: one layer, no base, no shell. The archive is at once an
//! OCI layout (containerd reads it as such) and a Docker archive (`docker load`, `ctr images
//! import`), so no registry is needed to get an image onto a node.
//!
//! The same files give the same digests: times are zero and nothing depends on the machine.

pub mod archive;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use archive::Archive;

/// User and group of images whose program needs no privileges: `nonroot` of the distroless images.
pub const NON_ROOT: u32 = 65532;

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute path in the image.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file of this machine.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// An image of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Full name with a tag: `registry.k8s.io/pause:3.10.2`.
    pub reference: String,
    /// Files, static programs most of all.
    pub files: Vec<File>,
    /// What is run.
    pub entrypoint: Vec<String>,
    /// Numeric user and group.
    pub user: u32,
    /// `org.opencontainers.image.*` and others.
    pub labels: BTreeMap<String, String>,
    /// Working directory.
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
}

impl Image {
    /// A static program at `/<name>` that runs as nobody in particular.
    pub fn of_program(reference: &str, name: &str, program: impl Into<PathBuf>) -> Self {
        let path = format!("/{name}");
        Self {
            reference: reference.to_owned(),
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

    /// Writes the archive. The layer is held in memory, uncompressed: images here are single
    /// programs of some tens of megabytes.
    pub fn write(&self, out: impl Write) -> Result<Built, Error> {
        let tag = self.tag()?;
        let layer = self.layer()?;
        let diff_id = digest(&layer);
        let config = to_json(&self.config(&diff_id));
        let config_digest = digest(&config);
        let manifest = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": diff_id,
                "size": layer.len(),
            }],
        }));
        let manifest_digest = digest(&manifest);
        let index = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest,
                "size": manifest.len(),
                "platform": {"architecture": architecture(), "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": self.reference,
                    "org.opencontainers.image.ref.name": tag,
                },
            }],
        }));
        // What `docker load` reads.
        let docker = to_json(&json!([{
            "Config": blob(&config_digest),
            "RepoTags": [self.reference],
            "Layers": [blob(&diff_id)],
        }]));
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        let write = || -> io::Result<()> {
            let mut archive = Archive::new(out);
            archive.directory("blobs/")?;
            archive.directory("blobs/sha256/")?;
            let blobs: BTreeMap<&str, &[u8]> = [
                (config_digest.as_str(), config.as_slice()),
                (manifest_digest.as_str(), manifest.as_slice()),
                (diff_id.as_str(), layer.as_slice()),
            ]
            .into();
            for (digest, content) in blobs {
                archive.bytes(&blob(digest), 0o644, content)?;
            }
            archive.bytes("index.json", 0o644, &index)?;
            archive.bytes("manifest.json", 0o644, &docker)?;
            archive.bytes("oci-layout", 0o644, layout)?;
            archive.finish()?.flush()
        };
        write().map_err(|source| Error::Write {
            image: self.reference.clone(),
            source,
        })?;
        Ok(Built {
            reference: self.reference.clone(),
            manifest_digest,
            image_id: config_digest,
        })
    }

    fn tag(&self) -> Result<&str, Error> {
        self.reference
            .rsplit_once(':')
            .map(|(_, tag)| tag)
            .filter(|tag| !tag.is_empty() && !tag.contains('/'))
            .ok_or_else(|| self.invalid("its name has no tag"))
    }

    fn invalid(&self, reason: &str) -> Error {
        Error::Invalid {
            image: self.reference.clone(),
            reason: reason.to_owned(),
        }
    }

    fn layer(&self) -> Result<Vec<u8>, Error> {
        let write = |source| Error::Write {
            image: self.reference.clone(),
            source,
        };
        let mut files: Vec<&File> = self.files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut archive = Archive::new(Vec::new());
        let mut directories = BTreeSet::new();
        for file in files {
            let path = file
                .path
                .strip_prefix('/')
                .filter(|p| !p.is_empty() && p.split('/').all(|c| !matches!(c, "" | "." | "..")))
                .ok_or_else(|| {
                    self.invalid(&format!("`{}` is no plain absolute path", file.path))
                })?;
            let parents = path.match_indices('/').map(|(end, _)| &path[..=end]);
            for directory in parents {
                if directories.insert(directory.to_owned()) {
                    archive.directory(directory).map_err(write)?;
                }
            }
            match &file.content {
                Content::Bytes(bytes) => archive.bytes(path, file.mode, bytes).map_err(write)?,
                Content::File(source) => {
                    let content = std::fs::read(source).map_err(|e| Error::Read {
                        image: self.reference.clone(),
                        path: source.clone(),
                        source: e,
                    })?;
                    archive.bytes(path, file.mode, &content).map_err(write)?;
                }
            }
        }
        archive.finish().map_err(write)
    }

    fn config(&self, diff_id: &str) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            // 1970: a real time would change the digest with every build.
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "User": format!("{0}:{0}", self.user),
                "Entrypoint": self.entrypoint,
                "WorkingDir": self.working_dir,
                "Env": ["PATH=/"],
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "k8sm"}],
        })
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

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn to_json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
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
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            reference: "example.org/hello:1".to_owned(),
            files: vec![
                File {
                    path: "/usr/bin/hello".to_owned(),
                    mode: 0o755,
                    content: Content::Bytes(b"#!".to_vec()),
                },
                File {
                    path: "/etc/passwd".to_owned(),
                    mode: 0o644,
                    content: Content::Bytes(b"nonroot:x:65532:65532::/:\n".to_vec()),
                },
            ],
            entrypoint: vec!["/usr/bin/hello".to_owned()],
            user: NON_ROOT,
            labels: BTreeMap::new(),
            working_dir: "/".to_owned(),
        }
        .label("org.opencontainers.image.title", "hello")
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let built = image().write(&mut first).unwrap();
        let mut reordered = image();
        reordered.files.reverse();
        assert_eq!(reordered.write(&mut second).unwrap(), built);
        assert_eq!(first, second);
    }

    #[test]
    fn an_archive_is_an_oci_layout_and_a_docker_archive() {
        let mut out = Vec::new();
        image().write(&mut out).unwrap();
        let mut listing = String::new();
        let mut archive = tar::Archive::new(out.as_slice());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            if path.ends_with(".json") || path == "oci-layout" {
                entry.read_to_string(&mut text).unwrap();
            }
            listing.push_str(&format!("{path} {} {text}\n", entry.size()));
        }
        if architecture() == "amd64" {
            insta::assert_snapshot!(listing);
        }
    }

    #[test]
    fn a_bad_name_or_path_is_refused() {
        let mut no_tag = image();
        no_tag.reference = "example.org:5000/hello".to_owned();
        assert!(matches!(
            no_tag.write(io::sink()),
            Err(Error::Invalid { .. })
        ));
        let mut escaping = image();
        escaping.files[0].path = "/../etc/shadow".to_owned();
        assert!(matches!(
            escaping.write(io::sink()),
            Err(Error::Invalid { .. })
        ));
        let mut missing = image();
        missing.files[0].content = Content::File("/nonexistent/program".into());
        let error = missing.write(io::sink()).unwrap_err().to_string();
        assert!(error.starts_with("read /nonexistent/program for image example.org/hello:1"));
    }
}
