//! Pushing an image of an archive.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::{Error, Registry};
use crate::archive::{Archive, Image, Layer};
use crate::digest::{Digest, HashingReader};
use crate::model::{Descriptor, Manifest, media};
use crate::reference::Reference;

/// In which words an image is described on the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Docker's, version 2 schema 2: understood by everything, and the only one that Mesos pulls.
    #[default]
    Docker,
    /// OCI's; a manifest that is there is kept as it is, and so is its digest.
    Oci,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest that names the image on the registry.
    pub digest: Digest,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that were there.
    pub there: usize,
}

/// Pushes an image by a name. `on_blob` hears which blob is worked on, and its size in bytes.
pub async fn push(
    registry: &Registry,
    archive: &Archive,
    image: &Image,
    name: &Reference,
    format: Format,
    mut on_blob: impl FnMut(&Digest, u64),
) -> Result<Pushed, Error> {
    let repository = name.canonical().repository().to_owned();
    let repository = repository.as_str();
    let (mut sent, mut there) = (0, 0);
    let mut layers = Vec::new();
    for layer in &image.layers {
        let (descriptor, path) = describe(archive, layer, format)?;
        on_blob(&descriptor.digest, descriptor.size);
        if registry.has_blob(repository, &descriptor.digest).await? {
            there += 1;
        } else {
            let open = || Ok(archive.open_file(&path)?);
            let size = descriptor.size;
            registry
                .push_blob(repository, &descriptor.digest, size, open)
                .await?;
            sent += 1;
        }
        layers.push(descriptor);
    }
    let config = Descriptor {
        media_type: match format {
            Format::Docker => media::DOCKER_CONFIG,
            Format::Oci => media::OCI_CONFIG,
        }
        .to_owned(),
        digest: image.id(),
        size: image.config_bytes.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    };
    if registry.has_blob(repository, &config.digest).await? {
        there += 1;
    } else {
        let open = || Ok(Box::new(std::io::Cursor::new(image.config_bytes.clone())) as _);
        registry
            .push_blob(repository, &config.digest, config.size, open)
            .await?;
        sent += 1;
    }
    let kind = match format {
        Format::Docker => media::DOCKER_MANIFEST,
        Format::Oci => media::OCI_MANIFEST,
    };
    let manifest = match (&image.manifest, format) {
        (Some(bytes), Format::Oci) => bytes.clone(),
        _ => {
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(kind.to_owned()),
                config,
                layers,
            };
            serde_json::to_vec(&manifest).map_err(|e| Error::Content {
                attempt: format!("describe {name}"),
                why: e.to_string(),
            })?
        }
    };
    let digest = Digest::of(&manifest);
    let version = match (name.tag(), name.digest()) {
        (Some(tag), _) => tag.to_owned(),
        (None, Some(_)) => digest.to_string(),
        (None, None) => "latest".to_owned(),
    };
    registry
        .put_manifest(repository, &version, kind, &manifest)
        .await?;
    Ok(Pushed {
        digest,
        sent,
        there,
    })
}

/// A layer as the registry gets it. Docker archives do not say the digests of their layers.
fn describe(
    archive: &Archive,
    layer: &Layer,
    format: Format,
) -> Result<(Descriptor, String), Error> {
    let mut reader = archive.open_file(&layer.path)?;
    let mut magic = [0; 2];
    let read = |source| Error::Io {
        attempt: "read image archive",
        path: archive.path().to_owned(),
        source,
    };
    let compressed = reader.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    let digest = match &layer.digest {
        Some(digest) => digest.clone(),
        None => {
            let whole = archive.open_file(&layer.path)?;
            HashingReader::new(whole).finish().map_err(read)?.0
        }
    };
    let media_type = match (format, compressed) {
        (Format::Docker, true) => media::DOCKER_LAYER_GZIP,
        (Format::Docker, false) => media::DOCKER_LAYER,
        (Format::Oci, true) => media::OCI_LAYER_GZIP,
        (Format::Oci, false) => media::OCI_LAYER,
    };
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: layer.size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    Ok((descriptor, layer.path.clone()))
}
