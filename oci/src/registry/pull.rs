//! Pulling an image into an OCI layout, a directory that [`crate::Archive`] reads.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Error, Registry};
use crate::digest::Digest;
use crate::model::{Descriptor, Index, Manifest, Platform, media};
use crate::reference::Reference;

/// Most layers that an image may have; Docker allows 127.
const MOST_LAYERS: usize = 256;

/// An image that a registry has.
#[derive(Debug, Clone)]
pub struct Resolved {
    name: Reference,
    bytes: Vec<u8>,
    kind: String,
    manifest: Manifest,
}

impl Resolved {
    /// The digest of its manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The image's id: the digest of its configuration.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }

    /// Bytes of configuration and layers.
    pub fn size(&self) -> u64 {
        self.parts()
            .fold(0, |sum, blob| blob.size.saturating_add(sum))
    }

    fn parts(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifest.layers.iter().chain([&self.manifest.config])
    }

    fn content(&self, why: impl Into<String>) -> Error {
        content(&self.name, why)
    }
}

fn content(name: &Reference, why: impl Into<String>) -> Error {
    Error::Content {
        attempt: format!("pull {name}"),
        why: why.into(),
    }
}

/// Finds out what a name stands for: reads its manifest, that for this machine where there are
/// several.
pub async fn resolve(registry: &Registry, name: &Reference) -> Result<Resolved, Error> {
    let wanted = name.canonical();
    let repository = wanted.repository();
    let bad = |e: serde_json::Error| content(name, e.to_string());
    let (mut bytes, mut kind) = registry.manifest(repository, wanted.version()).await?;
    if matches!(kind.as_str(), media::OCI_INDEX | media::DOCKER_LIST) {
        let index: Index = serde_json::from_slice(&bytes).map_err(bad)?;
        let here = Platform::here();
        let own = index
            .manifests
            .iter()
            .find(|d| d.platform.as_ref() == Some(&here))
            .ok_or_else(|| {
                let kinds = index.manifests.iter().filter_map(|d| d.platform.as_ref());
                let kinds: Vec<String> = kinds
                    .map(|p| format!("{}/{}", p.os, p.architecture))
                    .collect();
                let here = format!("{}/{}", here.os, here.architecture);
                content(
                    name,
                    format!("there is none for {here}, only for {}", kinds.join(", ")),
                )
            })?;
        (bytes, kind) = registry.manifest(repository, own.digest.as_str()).await?;
    }
    if !matches!(kind.as_str(), media::OCI_MANIFEST | media::DOCKER_MANIFEST) {
        return Err(content(
            name,
            format!(
                "its manifest is of the kind `{kind}`, which is not supported; push it with a newer tool"
            ),
        ));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(bad)?;
    if manifest.layers.len() > MOST_LAYERS {
        return Err(content(
            name,
            format!("it has more than {MOST_LAYERS} layers"),
        ));
    }
    Ok(Resolved {
        name: name.clone(),
        bytes,
        kind,
        manifest,
    })
}

/// Receives an image into an empty or unfinished layout. `most` is the largest size that is
/// wanted, in bytes.
pub async fn fetch(
    registry: &Registry,
    found: &Resolved,
    dir: &Path,
    most: u64,
) -> Result<(), Error> {
    let wanted = found.name.canonical();
    let blobs = dir.join("blobs/sha256");
    if found.size() > most {
        return Err(found.content(format!(
            "it is larger than the {most} bytes that are allowed for it"
        )));
    }
    tokio::fs::create_dir_all(&blobs)
        .await
        .map_err(io("make", &blobs))?;
    for blob in found.parts() {
        let target = blobs.join(blob.digest.hex());
        // One that is there came complete and right.
        if !target.is_file() {
            registry
                .pull_blob(wanted.repository(), blob, &target)
                .await?;
        }
    }
    let digest = found.digest();
    write(&blobs.join(digest.hex()), &found.bytes).await?;
    let index = Index {
        schema_version: 2,
        media_type: Some(media::OCI_INDEX.to_owned()),
        manifests: vec![Descriptor {
            media_type: found.kind.clone(),
            digest,
            size: found.bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::from([(
                "io.containerd.image.name".to_owned(),
                wanted.to_string(),
            )]),
        }],
    };
    let index = serde_json::to_vec(&index).map_err(|e| found.content(e.to_string()))?;
    write(
        &dir.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .await?;
    // Last: who finds it finds everything.
    write(&dir.join("index.json"), &index).await
}

fn io(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        attempt,
        path,
        source,
    }
}

async fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    tokio::fs::write(path, bytes)
        .await
        .map_err(io("write", path))
}
