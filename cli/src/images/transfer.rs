//! Images to and from registries.

use std::path::{Path, PathBuf};

use oci::credentials::{Credentials, Login};
use oci::registry::{self, Format, Options, Registry};
use oci::{Archive, Reference};

use super::{Error, List};

/// Largest image that is pulled, in bytes.
const LARGEST: u64 = 32 << 30;

/// How a registry is reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// HTTP without TLS.
    pub plain_http: bool,
    /// Certificates of the authorities that sign the registry's certificate.
    pub authority: Option<PathBuf>,
    /// User and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// Docker's `config.json`.
    pub docker_config: Option<PathBuf>,
}

impl Access {
    fn registry(&self, host: &str) -> Result<Registry, Error> {
        let authority = match &self.authority {
            Some(path) => Some(std::fs::read(path).map_err(Error::io("read", path))?),
            None => None,
        };
        let credentials = match (&self.login, &self.docker_config) {
            (Some((user, file)), _) => {
                let password = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
                let password = password.trim_end_matches(['\r', '\n']);
                Credentials::one(host, Login::new(user, password))
            }
            (None, Some(path)) => Credentials::load(path)?,
            (None, None) => Credentials::default(),
        };
        let options = Options {
            plain_http: self.plain_http,
            authority,
            credentials,
        };
        Ok(Registry::new(host, &options)?)
    }
}

/// An image that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its name on the registry.
    pub name: String,
    /// The digest that names it there.
    pub digest: String,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that were there.
    pub there: usize,
}

/// Pushes images of a directory, all where none is named, below `to` (`registry.example.org/k8sm`)
/// or by their own names. `on_blob` hears the image and the bytes that are worked on.
pub async fn push(
    dir: &Path,
    names: &[String],
    to: Option<&str>,
    access: &Access,
    format: Format,
    mut on_blob: impl FnMut(&str, u64),
) -> Result<Vec<Sent>, Error> {
    let list = List::read(dir)?;
    let mut all = Vec::new();
    for image in list.of(dir, names)? {
        let own: Reference = image.reference.parse()?;
        let target = match to {
            Some(prefix) => own.moved_to(prefix)?,
            None => own.clone(),
        };
        let canonical = target.canonical();
        let host = canonical.registry().unwrap_or_default();
        let registry = access.registry(host)?;
        let archive = Archive::open(&dir.join(&image.file))?;
        let found = archive.image(&own)?;
        let name = image.name.as_str();
        let pushed = registry::push(&registry, &archive, &found, &target, format, |_, size| {
            on_blob(name, size);
        })
        .await?;
        all.push(Sent {
            name: target.to_string(),
            digest: pushed.digest.to_string(),
            sent: pushed.sent,
            there: pushed.there,
        });
    }
    Ok(all)
}

/// Pulls an image into an OCI layout, a directory. Returns its digest and size in bytes.
pub async fn pull(name: &str, dir: &Path, access: &Access) -> Result<(String, u64), Error> {
    let name: Reference = name.parse()?;
    let canonical = name.canonical();
    let registry = access.registry(canonical.registry().unwrap_or_default())?;
    let found = registry::resolve(&registry, &name).await?;
    registry::fetch(&registry, &found, dir, LARGEST).await?;
    Ok((found.digest().to_string(), found.size()))
}
