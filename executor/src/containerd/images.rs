//! Imports the payload's images, so that a node starts without any registry. Only what is missing
//! is imported, and what is imported is pinned: kubelet's image collection leaves it alone, because
//! nothing could bring it back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::NAMESPACE;
use super::collect::Image;

/// Image of sandboxes that a payload without word of it brings (contracts, "Payload").
pub const DEFAULT_SANDBOX: &str = "registry.k8s.io/pause:3.10.2";
/// containerd's CRI plugin shows images with this label to kubelet as pinned.
const PINNED: &str = "io.cri-containerd.pinned=pinned";
/// Importing reads and unpacks; a slow disk and a large image take a while.
const IMPORT_DEADLINE: Duration = Duration::from_secs(300);
/// Listing takes milliseconds.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// `payload.json` and an archive's table of contents are small; what is larger is neither.
const MAX_TABLE: u64 = 4 << 20;

/// Why the images are not there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file cannot be read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is no {what}: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// `ctr` failed.
    #[error("{action}: {complaint}")]
    Ctr {
        /// What was tried.
        action: String,
        /// What it said.
        complaint: String,
    },
}

/// The part of `payload.json` that is about images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PayloadImages {
    /// Archives, relative to the payload's directory.
    pub images: Vec<PathBuf>,
    /// Name of the sandbox image.
    pub pause: Option<String>,
}

impl PayloadImages {
    /// Reads `<payload>/payload.json`.
    pub fn read(payload: &Path) -> Result<Self, ImageError> {
        let path = payload.join("payload.json");
        let text = std::fs::read(&path).map_err(|source| ImageError::Read {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|e| ImageError::Malformed {
            path,
            what: "description of a payload",
            reason: e.to_string(),
        })
    }

    /// Name of the sandbox image.
    pub fn sandbox(&self) -> &str {
        self.pause.as_deref().unwrap_or(DEFAULT_SANDBOX)
    }
}

/// How to reach containerd.
#[derive(Debug, Clone)]
pub struct Ctr {
    /// The payload's `ctr`.
    pub program: PathBuf,
    /// containerd's socket.
    pub socket: PathBuf,
}

impl Ctr {
    /// Names of the images that are there.
    pub async fn images(&self) -> Result<BTreeSet<String>, ImageError> {
        let args = ["images", "ls", "-q"];
        let out = self.run("listing images", &args, LIST_DEADLINE).await?;
        Ok(out.lines().map(str::to_owned).collect())
    }

    /// All images with what decides about their removal.
    pub async fn all_images(&self) -> Result<Vec<Image>, ImageError> {
        let args = ["images", "ls"];
        let out = self.run("listing images", &args, LIST_DEADLINE).await?;
        Ok(image_table(&out))
    }

    /// Names of the images of all containers, dead or alive.
    pub async fn images_in_use(&self) -> Result<BTreeSet<String>, ImageError> {
        let args = ["containers", "ls"];
        let out = self.run("listing containers", &args, LIST_DEADLINE).await?;
        let second = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
        Ok(out.lines().skip(1).filter_map(second).collect())
    }

    /// Removes names of images; content that no name holds is collected by containerd.
    pub async fn remove(&self, names: &[String]) -> Result<(), ImageError> {
        let mut args = vec!["images", "rm"];
        args.extend(names.iter().map(String::as_str));
        self.run("removing images", &args, IMPORT_DEADLINE).await?;
        Ok(())
    }

    /// Whether any container runs.
    pub async fn any_running(&self) -> Result<bool, ImageError> {
        let args = ["tasks", "ls"];
        let out = self.run("listing containers", &args, LIST_DEADLINE).await?;
        Ok(running(&out))
    }

    /// Imports an archive unless all its images are there. Whether it did.
    pub async fn import(&self, archive: &Path) -> Result<bool, ImageError> {
        let names = {
            let archive = archive.to_owned();
            tokio::task::spawn_blocking(move || names_in(&archive))
                .await
                .map_err(|e| ImageError::Ctr {
                    action: "reading an image archive".to_owned(),
                    complaint: e.to_string(),
                })??
        };
        let there = self.images().await?;
        if !names.is_empty() && names.iter().all(|name| there.contains(name)) {
            return Ok(false);
        }
        let path = archive.to_string_lossy();
        let action = format!("importing {path}");
        let args = ["images", "import", "--label", PINNED, &path];
        self.run(&action, &args, IMPORT_DEADLINE).await?;
        Ok(true)
    }

    async fn run(
        &self,
        action: &str,
        args: &[&str],
        deadline: Duration,
    ) -> Result<String, ImageError> {
        let failed = |complaint: String| ImageError::Ctr {
            action: action.to_owned(),
            complaint,
        };
        let output = Command::new(&self.program)
            .arg("--address")
            .arg(&self.socket)
            .args(["--namespace", NAMESPACE])
            .args(args)
            .env_clear()
            .env("PATH", crate::network::command::TOOL_PATH)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(deadline, output)
            .await
            .map_err(|_| failed(format!("not done within {} s", deadline.as_secs())))?
            .map_err(|e| failed(format!("{}: {e}", self.program.display())))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let text = String::from_utf8_lossy(&output.stderr);
            let end: String = text.trim().chars().take(400).collect();
            Err(failed(end))
        }
    }
}

/// Reads a table of images: name, type, digest, size, platforms, labels.
fn image_table(table: &str) -> Vec<Image> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Image {
                name: words.next()?.to_owned(),
                digest: words.nth(1)?.to_owned(),
                pinned: line.contains(PINNED),
            })
        })
        .collect()
}

/// Whether a table of tasks (name, pid, state) shows one that runs.
fn running(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        line.split_whitespace()
            .nth(2)
            .is_some_and(|state| state != "STOPPED" && state != "UNKNOWN")
    })
}

/// Names of the images in an archive, as containerd will call them: those of a Docker archive's
/// `manifest.json`, else those of an OCI layout's `index.json`.
pub fn names_in(archive: &Path) -> Result<Vec<String>, ImageError> {
    let read = |source| ImageError::Read {
        path: archive.to_owned(),
        source,
    };
    let malformed = |reason: String| ImageError::Malformed {
        path: archive.to_owned(),
        what: "image archive",
        reason,
    };
    let mut tar = tar::Archive::new(File::open(archive).map_err(read)?);
    let mut index: Option<Vec<String>> = None;
    for entry in tar.entries_with_seek().map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path().map_err(read)?.into_owned();
        let mut text = Vec::new();
        match path.to_str().map(|p| p.trim_start_matches("./")) {
            Some("manifest.json") => {
                entry.take(MAX_TABLE).read_to_end(&mut text).map_err(read)?;
                return docker_names(&text).map_err(|e| malformed(e.to_string()));
            }
            Some("index.json") => {
                entry.take(MAX_TABLE).read_to_end(&mut text).map_err(read)?;
                let names = oci_names(&text).map_err(|e| malformed(e.to_string()))?;
                index = Some(names);
            }
            _ => {}
        }
    }
    index.ok_or_else(|| malformed("it holds neither manifest.json nor index.json".to_owned()))
}

fn docker_names(text: &[u8]) -> serde_json::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "RepoTags", default)]
        tags: Option<Vec<String>>,
    }
    let images: Vec<Image> = serde_json::from_slice(text)?;
    Ok(images
        .into_iter()
        .flat_map(|i| i.tags.unwrap_or_default())
        .collect())
}

fn oci_names(text: &[u8]) -> serde_json::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Descriptor>,
    }
    #[derive(Deserialize)]
    struct Descriptor {
        #[serde(default)]
        annotations: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(text)?;
    Ok(index
        .manifests
        .into_iter()
        .filter_map(|mut m| m.annotations.remove("io.containerd.image.name"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.reopen().unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content.as_bytes())
                .unwrap();
        }
        tar.finish().unwrap();
        file
    }

    #[test]
    fn names_come_from_a_docker_archives_manifest() {
        let file = archive(&[
            ("blobs/sha256/aa", "layer"),
            (
                "manifest.json",
                r#"[{"Config":"c","RepoTags":["registry.k8s.io/pause:3.10.2"],"Layers":[]},{"Config":"d","RepoTags":null}]"#,
            ),
        ]);
        assert_eq!(
            names_in(file.path()).unwrap(),
            ["registry.k8s.io/pause:3.10.2"]
        );
    }

    #[test]
    fn names_come_from_an_oci_layout_too() {
        let file = archive(&[(
            "index.json",
            r#"{"manifests":[{"digest":"x","annotations":{"io.containerd.image.name":"docker.io/library/a:1"}},{"digest":"y"}]}"#,
        )]);
        assert_eq!(names_in(file.path()).unwrap(), ["docker.io/library/a:1"]);
    }

    #[test]
    fn what_is_no_archive_is_named() {
        let file = archive(&[("hello", "world")]);
        let error = names_in(file.path()).unwrap_err().to_string();
        assert!(error.contains("no image archive"), "{error}");
        let error = names_in(Path::new("/nonexistent.tar")).unwrap_err();
        assert!(error.to_string().starts_with("reading /nonexistent.tar"));
    }

    #[test]
    fn a_table_of_images_is_read_as_ctr_writes_it() {
        let table = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
            pause:3 application/vnd.oci.image.manifest.v1+json sha256:aa 5.1 MiB linux/amd64 io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned\n\
            sha256:f6 application/vnd.oci.image.manifest.v1+json sha256:bb 1.9 MiB linux/amd64 io.cri-containerd.image=managed\n";
        let images = image_table(table);
        assert_eq!(images.len(), 2);
        assert!(images[0].pinned && !images[1].pinned);
        assert_eq!(
            (images[1].name.as_str(), images[1].digest.as_str()),
            ("sha256:f6", "sha256:bb")
        );
    }

    #[test]
    fn containers_that_have_ended_do_not_run() {
        let head = "TASK    PID     STATUS\n";
        assert!(!running(head));
        assert!(!running(&format!("{head}a1    0    STOPPED\n")));
        assert!(running(&format!(
            "{head}a1    0    STOPPED\nb2   77   RUNNING\n"
        )));
    }

    #[test]
    fn a_payload_says_which_image_sandboxes_use() {
        let dir = tempfile::tempdir().unwrap();
        assert!(PayloadImages::read(dir.path()).is_err());
        let text = r#"{"version":1,"components":{},"images":["images/pause.tar"],"pause":"p:1"}"#;
        std::fs::write(dir.path().join("payload.json"), text).unwrap();
        let images = PayloadImages::read(dir.path()).unwrap();
        assert_eq!(images.sandbox(), "p:1");
        assert_eq!(PayloadImages::default().sandbox(), DEFAULT_SANDBOX);
    }
}
