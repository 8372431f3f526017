//! Archives of images: OCI layouts and what `docker save` writes, as tar files (plain or
//! compressed by gzip) or as directories.
//!
//! An archive is opened by listing what is in it; content is read from its place. Digests are
//! checked by whoever reads: [`Archive::read_blob`] and [`crate::unpack`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::model::{DockerImage, ImageConfig, Index, Manifest, Platform, media};
use crate::reference::Reference;

/// Longest manifest, index or configuration that is read, in bytes (as registries limit them).
pub const LONGEST_DOCUMENT: u64 = 4 << 20;
/// Most files of an archive.
const MOST_ENTRIES: usize = 100_000;
/// Longest archive after decompression, in bytes.
const LONGEST_ARCHIVE: u64 = 64 << 30;
/// How deep indexes may name indexes.
const DEEPEST_INDEX: u8 = 4;

/// Why an archive or an image of it cannot be used. Another copy of it may help, a retry does not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read image archive {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ends before it should, or is no archive.
    #[error("image archive {path} is damaged: {why}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It holds other images.
    #[error("image archive {path} has no image {wanted}; it has {found}", path = path.display())]
    NoImage {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What is there.
        found: String,
    },
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Where a file of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    At { offset: u64, size: u64 },
    Link(String),
}

/// An archive.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Dir,
    Tar {
        file: File,
        entries: BTreeMap<String, Place>,
    },
}

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its names as they are written there.
    pub names: Vec<String>,
    /// The manifest as it is written; none in archives that have none.
    pub manifest: Option<Vec<u8>>,
    /// The configuration as it is written.
    pub config_bytes: Vec<u8>,
    /// The configuration.
    pub config: ImageConfig,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// `sha256:...` of the configuration: the image's id.
    pub fn id(&self) -> Digest {
        Digest::of(&self.config_bytes)
    }

    /// Bytes of all layers as they are stored.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|l| l.size).sum()
    }
}

/// A layer in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where it is.
    pub path: String,
    /// Digest as it is stored, where the archive says it.
    pub digest: Option<Digest>,
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
    /// Bytes as it is stored.
    pub size: u64,
}

impl Archive {
    /// Opens a tar file or a directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        let content = if metadata.is_dir() {
            Content::Dir
        } else {
            let file = plain(path)?;
            let entries = list(path, &file)?;
            Content::Tar { file, entries }
        };
        let path = path.to_owned();
        Ok(Self { path, content })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, why: impl Into<String>) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    fn locate(&self, name: &str) -> Option<(u64, u64)> {
        let Content::Tar { entries, .. } = &self.content else {
            return None;
        };
        let mut name = name.to_owned();
        // A layer's second name is a link to its first.
        for _ in 0..4 {
            match entries.get(&name)? {
                Place::At { offset, size } => return Some((*offset, *size)),
                Place::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// Size of a file of the archive; none where there is no such file.
    pub fn size_of(&self, name: &str) -> Option<u64> {
        match &self.content {
            Content::Dir => {
                let path = join(&self.path, name)?;
                let metadata = std::fs::symlink_metadata(path).ok()?;
                metadata.is_file().then_some(metadata.len())
            }
            Content::Tar { .. } => self.locate(name).map(|(_, size)| size),
        }
    }

    /// Reads a file of the archive from its beginning.
    pub fn open_file(&self, name: &str) -> Result<Box<dyn Read + Send>, Error> {
        let missing = || self.damaged(format!("it has no file {name}"));
        match &self.content {
            Content::Dir => {
                self.size_of(name).ok_or_else(missing)?;
                let path = join(&self.path, name).ok_or_else(missing)?;
                let file = File::open(&path).map_err(Error::io(&path))?;
                Ok(Box::new(BufReader::with_capacity(1 << 18, file)))
            }
            Content::Tar { file, .. } => {
                let (offset, size) = self.locate(name).ok_or_else(missing)?;
                let part = Part {
                    file: file.try_clone().map_err(Error::io(&self.path))?,
                    offset,
                    left: size,
                };
                Ok(Box::new(BufReader::with_capacity(1 << 18, part)))
            }
        }
    }

    /// Reads a small file whole.
    fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let size = self
            .size_of(name)
            .ok_or_else(|| self.damaged(format!("it has no file {name}")))?;
        if size > LONGEST_DOCUMENT {
            return Err(self.damaged(format!("{name} has {size} bytes, too many for what it is")));
        }
        let mut bytes = Vec::new();
        self.open_file(name)?
            .read_to_end(&mut bytes)
            .map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    /// Reads a small blob of a layout, and checks it.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.document(&digest.blob_path())?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(self.damaged(format!(
                "the content of blob {digest} has the digest {found}"
            )));
        }
        Ok(bytes)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|e| self.damaged(format!("{name}: {e}")))
    }

    /// All images for this machine's architecture.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        if self.size_of("index.json").is_some() {
            let bytes = self.document("index.json")?;
            let index: Index = self.parse("index.json", &bytes)?;
            let mut found = Vec::new();
            self.of_index(&index, &[], DEEPEST_INDEX, &mut found)?;
            return Ok(found);
        }
        if self.size_of("manifest.json").is_some() {
            return self.of_docker();
        }
        Err(self.damaged(
            "it has neither index.json nor manifest.json: no image is in it, or the file is cut off",
        ))
    }

    /// The image of a name. An archive of one image without a name is that image.
    pub fn image(&self, wanted: &Reference) -> Result<Image, Error> {
        let mut images = self.images()?;
        let same = |image: &Image| {
            let named = image.names.iter().any(|name| names(name, wanted));
            let digest = image.manifest.as_deref().map(Digest::of);
            named || (wanted.digest().is_some() && wanted.digest() == digest.as_ref())
        };
        if let Some(i) = images.iter().position(same) {
            return Ok(images.swap_remove(i));
        }
        match images.as_slice() {
            [only] if only.names.is_empty() && wanted.digest().is_none() => {
                Ok(images.swap_remove(0))
            }
            _ => Err(Error::NoImage {
                path: self.path.clone(),
                wanted: wanted.to_string(),
                found: match images.iter().flat_map(|i| &i.names).collect::<Vec<_>>() {
                    names if names.is_empty() => "none with a name".to_owned(),
                    names => names.into_iter().cloned().collect::<Vec<_>>().join(", "),
                },
            }),
        }
    }

    fn of_index(
        &self,
        index: &Index,
        inherited: &[String],
        depth: u8,
        found: &mut Vec<Image>,
    ) -> Result<(), Error> {
        let here = Platform::here();
        for descriptor in &index.manifests {
            if descriptor.platform.as_ref().is_some_and(|p| *p != here) {
                continue;
            }
            let full = descriptor.annotations.get("io.containerd.image.name");
            let short = descriptor
                .annotations
                .get("org.opencontainers.image.ref.name");
            let mut names: Vec<String> = full.or(short).into_iter().cloned().collect();
            if names.is_empty() {
                names = inherited.to_vec();
            }
            let bytes = self.read_blob(&descriptor.digest)?;
            match descriptor.media_type.as_str() {
                media::OCI_INDEX | media::DOCKER_LIST => {
                    let depth = depth
                        .checked_sub(1)
                        .ok_or_else(|| self.damaged("indexes name indexes without end"))?;
                    let index = self.parse(descriptor.digest.as_str(), &bytes)?;
                    self.of_index(&index, &names, depth, found)?;
                }
                media::OCI_MANIFEST | media::DOCKER_MANIFEST => {
                    found.push(self.of_manifest(names, bytes)?);
                }
                // Signatures and other things that are no images.
                _ => {}
            }
        }
        Ok(())
    }

    fn of_manifest(&self, names: Vec<String>, bytes: Vec<u8>) -> Result<Image, Error> {
        let manifest: Manifest = self.parse("manifest", &bytes)?;
        let config_bytes = self.read_blob(&manifest.config.digest)?;
        let config: ImageConfig = self.parse("configuration", &config_bytes)?;
        let layers = manifest
            .layers
            .iter()
            .map(|l| (l.digest.blob_path(), Some(l.digest.clone())));
        let layers = self.layers(&config, layers.collect())?;
        for (layer, descriptor) in layers.iter().zip(&manifest.layers) {
            if layer.size != descriptor.size {
                return Err(self.damaged(format!(
                    "layer {} has {} bytes where {} are said",
                    descriptor.digest, layer.size, descriptor.size
                )));
            }
        }
        Ok(Image {
            names,
            manifest: Some(bytes),
            config_bytes,
            config,
            layers,
        })
    }

    fn of_docker(&self) -> Result<Vec<Image>, Error> {
        let bytes = self.document("manifest.json")?;
        let listed: Vec<DockerImage> = self.parse("manifest.json", &bytes)?;
        let mut found = Vec::new();
        for image in listed {
            let config_bytes = self.document(&image.config)?;
            let said = image.config.rsplit('/').next().unwrap_or_default();
            let said = said.strip_suffix(".json").unwrap_or(said);
            let id = Digest::of(&config_bytes);
            if said.len() == 64 && said != id.hex() {
                return Err(self.damaged(format!(
                    "the configuration {} has the digest {id}",
                    image.config
                )));
            }
            let config: ImageConfig = self.parse(&image.config, &config_bytes)?;
            let layers = image.layers.into_iter().map(|path| (path, None)).collect();
            found.push(Image {
                names: image.repo_tags,
                manifest: None,
                layers: self.layers(&config, layers)?,
                config_bytes,
                config,
            });
        }
        Ok(found)
    }

    fn layers(
        &self,
        config: &ImageConfig,
        stored: Vec<(String, Option<Digest>)>,
    ) -> Result<Vec<Layer>, Error> {
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != stored.len() {
            return Err(self.damaged(format!(
                "the configuration names {} layers, the manifest {}",
                diff_ids.len(),
                stored.len()
            )));
        }
        stored
            .into_iter()
            .zip(diff_ids)
            .map(|((path, digest), diff_id)| {
                let size = self
                    .size_of(&path)
                    .ok_or_else(|| self.damaged(format!("its layer {path} is missing")))?;
                Ok(Layer {
                    path,
                    digest,
                    diff_id: diff_id.clone(),
                    size,
                })
            })
            .collect()
    }
}

/// Whether a name in an archive stands for the wanted image. OCI layouts may say the tag alone.
fn names(name: &str, wanted: &Reference) -> bool {
    if wanted.digest().is_some() {
        // A digest is no tag: the manifest is asked.
        return false;
    }
    match name.parse::<Reference>() {
        Ok(found) => found.canonical() == wanted.canonical(),
        Err(_) => false,
    }
}

/// A path below a directory; none for one that leaves it.
fn join(dir: &Path, name: &str) -> Option<PathBuf> {
    let good = name.split('/').all(|p| !matches!(p, "" | "." | ".."));
    good.then(|| dir.join(name))
}

/// The tar file itself, unpacked into a file without a name when it is compressed.
fn plain(path: &Path) -> Result<File, Error> {
    let io = || Error::io(path);
    let mut file = File::open(path).map_err(io())?;
    let mut magic = [0; 2];
    let read = file.read(&mut magic).map_err(io())?;
    file.rewind().map_err(io())?;
    if read < 2 || magic != [0x1f, 0x8b] {
        return Ok(file);
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut unpacked = tempfile::tempfile_in(dir).map_err(io())?;
    let decoder = flate2::read::MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file));
    let copied = io::copy(&mut decoder.take(LONGEST_ARCHIVE + 1), &mut unpacked);
    let damaged = |why: String| Error::Damaged {
        path: path.to_owned(),
        why,
    };
    match copied {
        Ok(size) if size > LONGEST_ARCHIVE => Err(damaged(format!(
            "it is longer than {LONGEST_ARCHIVE} bytes when it is unpacked"
        ))),
        Ok(_) => Ok(unpacked),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::InvalidData
            ) =>
        {
            Err(damaged(format!("its compression breaks off: {e}")))
        }
        Err(e) => Err(Error::io(path)(e)),
    }
}

/// Where everything is.
fn list(path: &Path, file: &File) -> Result<BTreeMap<String, Place>, Error> {
    let damaged = |why: String| Error::Damaged {
        path: path.to_owned(),
        why,
    };
    let mut file = file.try_clone().map_err(Error::io(path))?;
    file.rewind().map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut entries = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    let broken = |e: io::Error| damaged(format!("no tar file, or one that breaks off: {e}"));
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        let name = name.trim_start_matches("./").to_owned();
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(damaged(format!(
                "{name} should have {size} bytes, but the file ends after {}",
                length.saturating_sub(offset)
            )));
        }
        let place = match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => Place::At { offset, size },
            kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                let Some(target) = entry.link_name().map_err(broken)? else {
                    continue;
                };
                let base = match kind {
                    tar::EntryType::Symlink => name.rsplit_once('/').map_or("", |(dir, _)| dir),
                    _ => "",
                };
                match resolve(base, &target.to_string_lossy()) {
                    Some(target) => Place::Link(target),
                    None => continue,
                }
            }
            _ => continue,
        };
        entries.insert(name, place);
        if entries.len() > MOST_ENTRIES {
            return Err(damaged(format!("it has more than {MOST_ENTRIES} files")));
        }
    }
    Ok(entries)
}

/// A link's target as a name of the archive.
fn resolve(base: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A part of a file, read from its own place, so that several can be read at a time.
#[derive(Debug)]
struct Part {
    file: File,
    offset: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
