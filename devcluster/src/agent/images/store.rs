//! Unpacked images, and where they come from. What is unpacked lies below the image's id, appears
//! by one rename, and is read by any number of containers, each with a layer of its own over it.
//!
//! ```text
//! <store>/images/<id>/{rootfs/,image.json}    unpacked images
//! <store>/names/<SHA-256 of the name>.json    which image a name stood for when it was last read
//! <store>/work/                               what is not finished; emptied at each start
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use oci::model::RunConfig;
use oci::registry::{self, Options, Registry};
use oci::{Archive, Digest, Reference, archive, unpack};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::rootfs::ContainerImage;
use super::{ImagesConfig, Origin, Wanted};
use crate::agent::disk::{self, DiskError};
use crate::agent::paths::Layout;

/// Largest image, unpacked or not, in bytes.
const LARGEST_IMAGE: u64 = 32 << 30;

/// Why there is no image. Whether a retry helps is up to the framework, as with Mesos.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("Failed to find archive for image '{name}' at '{}'", path.display())]
    NoArchive {
        /// The image.
        name: Box<Reference>,
        /// Where it should be.
        path: PathBuf,
    },
    /// The archive is of no use.
    #[error("Failed to read image '{name}': {source}")]
    Archive {
        /// The image.
        name: Box<Reference>,
        /// Why.
        source: archive::Error,
    },
    /// A layer is of no use, or there is no room.
    #[error("Failed to unpack image '{name}': {source}")]
    Unpack {
        /// The image.
        name: Box<Reference>,
        /// Why.
        source: unpack::Error,
    },
    /// The registry.
    #[error("Failed to pull image '{name}': {source}")]
    Registry {
        /// The image.
        name: Box<Reference>,
        /// Why.
        source: registry::Error,
    },
    /// It is for other machines.
    #[error("image '{name}' is for {found}, this agent is {here}")]
    Platform {
        /// The image.
        name: Box<Reference>,
        /// What it is for.
        found: String,
        /// What this is.
        here: String,
    },
    /// The store's own files.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A thread of this program fell.
    #[error("unpack image '{0}': the work was given up")]
    GivenUp(Box<Reference>),
}

/// An unpacked image.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its root file system, only to be read.
    pub rootfs: PathBuf,
    /// What it runs.
    pub run: RunConfig,
    /// Keeps it from being removed until the container's own note of it is written.
    _lease: Arc<Lease>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    /// Bytes.
    size: u64,
    run: RunConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    name: String,
    id: Digest,
    /// Size and time of the archive that was read; nothing for a registry.
    archive: Option<(u64, i64, i64)>,
}

/// The images of an agent.
#[derive(Debug)]
pub struct Store {
    config: ImagesConfig,
    layout: Layout,
    /// One lock per name, so that an image is got once however many ask for it.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    leases: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// A claim on an image.
#[derive(Debug)]
struct Lease {
    id: String,
    leases: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = lock(&self.leases);
        if let Some(count) = leases.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                leases.remove(&self.id);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens a store; what an earlier process left unfinished goes.
    pub fn open(config: ImagesConfig, layout: Layout) -> Result<Self, Error> {
        let work = config.store_dir.join("work");
        match fs::remove_dir_all(&work) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(disk::io_error("empty", &work)(e).into());
            }
            _ => {}
        }
        for dir in ["images", "names", "work"] {
            disk::make_dir(&config.store_dir.join(dir))?;
        }
        Ok(Self {
            config,
            layout,
            busy: Mutex::default(),
            leases: Arc::default(),
        })
    }

    /// An image, unpacked.
    pub async fn get(&self, wanted: &Wanted) -> Result<Stored, Error> {
        let name = &wanted.name;
        let key = name.canonical().to_string();
        let own = Arc::clone(lock(&self.busy).entry(key.clone()).or_default());
        let one_at_a_time = own.lock_owned().await;
        let stored = self.find_or_make(wanted, &key).await;
        drop(one_at_a_time);
        // Locks that nobody holds any more are forgotten with the next image.
        lock(&self.busy).retain(|_, lock| Arc::strong_count(lock) > 1);
        stored
    }

    async fn find_or_make(&self, wanted: &Wanted, key: &str) -> Result<Stored, Error> {
        let name = &wanted.name;
        let note = self
            .config
            .store_dir
            .join("names")
            .join(format!("{:x}.json", sha2::Sha256::digest(key.as_bytes())));
        let known: Option<Named> = disk::read_json(&note)?;
        let known = known.filter(|known| known.name == key);
        let work = self
            .config
            .store_dir
            .join("work")
            .join(uuid::Uuid::new_v4().to_string());
        let named = match self.source(wanted) {
            Source::Archive(path) => {
                let stamp = stamp(&path).ok_or_else(|| Error::NoArchive {
                    name: Box::new(name.clone()),
                    path: path.clone(),
                })?;
                if let Some(known) = known.filter(|k| k.archive == Some(stamp))
                    && let Some(stored) = self.there(&known.id)?
                {
                    return Ok(stored);
                }
                let id = self.unpack(name.clone(), path, work).await?;
                Named {
                    name: key.to_owned(),
                    id,
                    archive: Some(stamp),
                }
            }
            Source::Registry(host, options) => {
                if wanted.cached
                    && let Some(known) = known
                    && let Some(stored) = self.there(&known.id)?
                {
                    return Ok(stored);
                }
                let id = self.pull(wanted, &host, &options, work).await?;
                Named {
                    name: key.to_owned(),
                    id,
                    archive: None,
                }
            }
        };
        disk::write_json(&note, &named)?;
        match self.there(&named.id)? {
            Some(stored) => {
                self.make_room()?;
                Ok(stored)
            }
            None => Err(Error::GivenUp(Box::new(name.clone()))),
        }
    }

    /// Where an image is looked for: a name with a registry of its own is pulled from there,
    /// unless images come from a directory.
    fn source(&self, wanted: &Wanted) -> Source {
        match &self.config.origin {
            Origin::Directory(dir) => Source::Archive(dir.join(format!("{}.tar", wanted.name))),
            Origin::Registry { host, plain_http } => {
                let named = wanted.name.registry();
                let options = Options {
                    plain_http: *plain_http && named.is_none_or(|named| named == host),
                    authority: self.config.authority.clone(),
                    credentials: match &wanted.credentials {
                        Some(own) => own.clone(),
                        None => self.config.credentials.clone(),
                    },
                };
                Source::Registry(named.unwrap_or(host).to_owned(), Box::new(options))
            }
        }
    }

    async fn pull(
        &self,
        wanted: &Wanted,
        host: &str,
        options: &Options,
        work: PathBuf,
    ) -> Result<Digest, Error> {
        let name = &wanted.name;
        let failed = |source| Error::Registry {
            name: Box::new(name.clone()),
            source,
        };
        let registry = Registry::new(host, options).map_err(failed)?;
        let found = registry::resolve(&registry, name).await.map_err(failed)?;
        if self.there(found.id())?.is_some() {
            return Ok(found.id().clone());
        }
        let layout = work.join("layout");
        disk::make_dir(&layout)?;
        let pulled = registry::fetch(&registry, &found, &layout, LARGEST_IMAGE).await;
        if let Err(error) = pulled {
            let _ = fs::remove_dir_all(&work);
            return Err(failed(error));
        }
        self.unpack(name.clone(), layout, work).await
    }

    /// Unpacks an archive and gives the image's id.
    async fn unpack(&self, name: Reference, from: PathBuf, work: PathBuf) -> Result<Digest, Error> {
        let images = self.config.store_dir.join("images");
        let given_up = Error::GivenUp(Box::new(name.clone()));
        // Reading and writing hundreds of megabytes is no work for the reactor.
        tokio::task::spawn_blocking(move || {
            let done = unpack_into(&name, &from, &work, &images);
            let _ = fs::remove_dir_all(&work);
            done
        })
        .await
        .unwrap_or(Err(given_up))
    }

    /// An image that is there already. It is claimed and counts as used now.
    fn there(&self, id: &Digest) -> Result<Option<Stored>, Error> {
        let hex = id.hex().to_owned();
        let mut leases = lock(&self.leases);
        let dir = self.config.store_dir.join("images").join(&hex);
        let note = dir.join("image.json");
        let Some(read) = disk::read_json::<Note>(&note)? else {
            return Ok(None);
        };
        // The time of the note is when the image was last used.
        let touched = fs::File::options()
            .append(true)
            .open(&note)
            .and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::warn!(image = %id, %error, "an image's last use cannot be noted");
        }
        *leases.entry(hex.clone()).or_default() += 1;
        drop(leases);
        Ok(Some(Stored {
            rootfs: dir.join("rootfs"),
            run: read.run,
            _lease: Arc::new(Lease {
                id: hex,
                leases: Arc::clone(&self.leases),
            }),
        }))
    }

    /// Removes images that were not used for the longest time until the rest fits.
    fn make_room(&self) -> Result<(), Error> {
        let images = self.config.store_dir.join("images");
        let leases = lock(&self.leases);
        let mut used: BTreeSet<String> = leases.keys().cloned().collect();
        used.extend(self.mounted()?);
        let mut all = Vec::new();
        let mut total = 0_u64;
        for id in disk::list_dir(&images)? {
            let note = images.join(&id).join("image.json");
            let size = disk::read_json::<Note>(&note)?.map_or(0, |n| n.size);
            let time = fs::metadata(&note).and_then(|m| m.modified()).ok();
            total += size;
            all.push((time, id, size));
        }
        all.sort();
        for (_, id, size) in all {
            if total <= self.config.store_bytes {
                break;
            }
            if used.contains(&id) {
                continue;
            }
            tracing::info!(image = id, bytes = size, "an image that is not used goes");
            // First out of sight, so that half of it is never taken for it.
            let grave = self
                .config
                .store_dir
                .join("work")
                .join(uuid::Uuid::new_v4().to_string());
            let dir = images.join(&id);
            fs::rename(&dir, &grave).map_err(disk::io_error("remove", &dir))?;
            let _ = fs::remove_dir_all(&grave);
            total -= size;
        }
        Ok(())
    }

    /// Ids of the images that containers of this agent use, those of an earlier process included.
    fn mounted(&self) -> Result<BTreeSet<String>, Error> {
        let containers = self.layout.runtime_dir.join("containers");
        let mut used = BTreeSet::new();
        for name in disk::list_dir(&containers)? {
            let path = containers.join(name).join(ContainerImage::FILE);
            let image: Option<ContainerImage> = disk::read_json(&path)?;
            let dir = image.and_then(|i| Some(i.rootfs.lower.parent()?.to_owned()));
            let id = dir.as_deref().and_then(Path::file_name);
            used.extend(id.map(|id| id.to_string_lossy().into_owned()));
        }
        Ok(used)
    }
}

enum Source {
    Archive(PathBuf),
    Registry(String, Box<Options>),
}

/// Size and time of a file, or of a layout's index: another archive has another one.
fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    let index = path.join("index.json");
    let metadata = fs::metadata(&index).or_else(|_| fs::metadata(path)).ok()?;
    Some((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

fn unpack_into(name: &Reference, from: &Path, work: &Path, images: &Path) -> Result<Digest, Error> {
    let failed = |source| Error::Archive {
        name: Box::new(name.clone()),
        source,
    };
    let archive = Archive::open(from).map_err(failed)?;
    let image = archive.image(name).map_err(failed)?;
    let here = oci::model::Platform::here();
    let found = &image.config;
    if !found.architecture.is_empty() && found.architecture != here.architecture {
        return Err(Error::Platform {
            name: Box::new(name.clone()),
            found: format!("{}/{}", found.os, found.architecture),
            here: format!("{}/{}", here.os, here.architecture),
        });
    }
    let id = image.id();
    let target = images.join(id.hex());
    if target.join("image.json").exists() {
        return Ok(id);
    }
    let half = work.join("image");
    let root = half.join("rootfs");
    disk::make_dir(&root)?;
    let size =
        unpack::image(&archive, &image, &root, LARGEST_IMAGE).map_err(|source| Error::Unpack {
            name: Box::new(name.clone()),
            source,
        })?;
    let note = Note {
        size,
        run: image.config.config.unwrap_or_default(),
    };
    disk::write_json(&half.join("image.json"), &note)?;
    match fs::rename(&half, &target) {
        // Another name of the same image was quicker.
        Err(_) if target.join("image.json").exists() => {}
        other => other.map_err(disk::io_error("keep", &target))?,
    }
    Ok(id)
}

#[cfg(test)]
mod tests;
