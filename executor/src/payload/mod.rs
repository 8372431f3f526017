//! The node's programs and images: fetched by digest, unpacked once per machine.
//!
//! The archive is checked while it streams to disk, and unpacked only once it is whole and
//! right. It is unpacked beside its place and renamed into it, so whatever is at
//! `<data-dir>/payload/<sha256>` is complete. A lock per payload keeps two executors of one
//! machine from doing the work twice, and the payload from being removed while it is used.

mod fetch;
mod unpack;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::layout::Paths;
use crate::report::PayloadDir;

/// What is fetched: from the node task.
pub type Source = seam::node::Payload;

/// Archives beyond this are refused, whatever their declared size.
const SIZE_MAX: u64 = 8 << 30;
/// Free space needed: the archive, and what it unpacks to, estimated as so many times its size.
const SPACE_FACTOR: u64 = 4;
/// How long another executor may take to fetch the same payload.
const LOCK_DEADLINE: Duration = Duration::from_secs(600);

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not a digest.
    #[error("`{0}` is no SHA-256 digest (64 lower-case hexadecimal digits)")]
    BadDigest(String),
    /// More than [`SIZE_MAX`], or nothing.
    #[error("payload {sha256} of {size} bytes: between 1 and {SIZE_MAX} are accepted")]
    BadSize {
        /// Its digest.
        sha256: String,
        /// Its declared size.
        size: u64,
    },
    /// No place has it.
    #[error("payload {sha256} could not be fetched: {}", failures.join("; "))]
    Fetch {
        /// Its digest.
        sha256: String,
        /// One per attempt, each names its URL.
        failures: Vec<String>,
    },
    /// No space.
    #[error(
        "payload {sha256} needs {needed} bytes below {}, {free} are free: make room, or set the executor's --data-dir elsewhere",
        dir.display()
    )]
    NoSpace {
        /// Its digest.
        sha256: String,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// Where.
        dir: PathBuf,
    },
    /// The space ended while it was written.
    #[error("writing {}: {source}: make room, or set the executor's --data-dir elsewhere", path.display())]
    Full {
        /// What was written.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// The certificates that its places are to be checked against are none.
    #[error("payload {sha256}: the CA certificates for its places cannot be read: {reason}")]
    BadCa {
        /// Its digest.
        sha256: String,
        /// Why not.
        reason: String,
    },
    /// The archive has the right digest and is still not usable.
    #[error("payload {sha256}: {reason}")]
    BadArchive {
        /// Its digest.
        sha256: String,
        /// What is wrong.
        reason: String,
    },
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another executor holds the lock.
    #[error("another executor has been fetching payload {0} for {seconds} s", seconds = LOCK_DEADLINE.as_secs())]
    Locked(String),
}

impl PayloadError {
    /// Whether the same may work later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Fetch { .. } | Self::NoSpace { .. } | Self::Full { .. } | Self::Locked(_) => true,
            Self::BadDigest(_)
            | Self::BadSize { .. }
            | Self::BadArchive { .. }
            | Self::BadCa { .. }
            | Self::Io { .. } => false,
        }
    }

    /// A file operation that failed, a full disk told apart.
    fn writing(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, source }
            }
            _ => Self::io(action, &path)(source),
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// A payload in use: it is not removed while this lives.
#[derive(Debug)]
pub struct Payload {
    /// Where it is unpacked.
    pub dir: PayloadDir,
    _lock: File,
}

/// Makes sure that a payload is there, fetching it if need be.
pub async fn provide(paths: &Paths, source: &Source) -> Result<Payload, PayloadError> {
    let sha256 = &source.sha256;
    accept(source)?;
    let root = paths.payloads();
    fs::create_dir_all(&root).map_err(PayloadError::writing("making", &root))?;
    let dir = paths.payload(sha256);
    let lock_path = root.join(format!("{sha256}.lock"));
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(PayloadError::writing("opening", &lock_path))?;
    if !dir.exists() {
        let locked = lock_exclusively(&lock, &lock_path, &dir, sha256).await?;
        if locked && !dir.exists() {
            fetch_and_unpack(&root, &dir, source).await?;
        }
    }
    share(&lock).map_err(PayloadError::io("locking", &lock_path))?;
    if !dir.exists() {
        // Removed as unused between the look and the lock; a second attempt fetches it.
        return Err(PayloadError::Locked(sha256.clone()));
    }
    Ok(Payload {
        dir: PayloadDir(dir),
        _lock: lock,
    })
}

/// Waits for the lock, or until somebody else has done the work: `false`.
async fn lock_exclusively(
    lock: &File,
    path: &Path,
    dir: &Path,
    sha256: &str,
) -> Result<bool, PayloadError> {
    let start = tokio::time::Instant::now();
    loop {
        if dir.exists() {
            return Ok(false);
        }
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_DEADLINE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(TryLockError::WouldBlock) => return Err(PayloadError::Locked(sha256.to_owned())),
            Err(TryLockError::Error(error)) => {
                return Err(PayloadError::io("locking", path)(error));
            }
        }
    }
}

/// An exclusive lock becomes a shared one.
fn share(lock: &File) -> io::Result<()> {
    match lock.try_lock_shared() {
        Ok(()) => Ok(()),
        // A remover holds it for the moment of a rename.
        Err(TryLockError::WouldBlock) => lock.lock_shared(),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Fetches one file, checked, into `path`; a file that is right already stays.
pub async fn fetch_file(paths: &Paths, source: &Source, path: &Path) -> Result<(), PayloadError> {
    accept(source)?;
    let dir = path.parent().unwrap_or_else(|| paths.data_dir());
    room_for(dir, source.size, source)?;
    let fetched = fetch::fetch(source, path).await;
    if fetched.is_err() {
        let _ = fs::remove_file(path);
    }
    fetched
}

/// Whether that can be an artifact at all.
fn accept(source: &Source) -> Result<(), PayloadError> {
    let sha256 = &source.sha256;
    let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if sha256.len() != 64 || !sha256.bytes().all(hexadecimal) {
        return Err(PayloadError::BadDigest(sha256.clone()));
    }
    if source.size == 0 || source.size > SIZE_MAX {
        return Err(PayloadError::BadSize {
            sha256: sha256.clone(),
            size: source.size,
        });
    }
    Ok(())
}

fn room_for(dir: &Path, needed: u64, source: &Source) -> Result<(), PayloadError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|e| PayloadError::io("measuring free space of", dir)(e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        return Err(PayloadError::NoSpace {
            sha256: source.sha256.clone(),
            needed,
            free,
            dir: dir.to_owned(),
        });
    }
    Ok(())
}

async fn fetch_and_unpack(root: &Path, dir: &Path, source: &Source) -> Result<(), PayloadError> {
    let sha256 = &source.sha256;
    room_for(root, source.size.saturating_mul(SPACE_FACTOR), source)?;
    let archive = root.join(format!(".{sha256}.archive"));
    let unpacked = root.join(format!(".{sha256}.unpacking"));
    let result = async {
        fetch::fetch(source, &archive).await?;
        let (from, to, digest) = (archive.clone(), unpacked.clone(), sha256.clone());
        tokio::task::spawn_blocking(move || unpack::unpack(&from, &to, &digest))
            .await
            .map_err(|error| PayloadError::BadArchive {
                sha256: sha256.clone(),
                reason: format!("unpacking broke: {error}"),
            })??;
        fs::rename(&unpacked, dir).map_err(PayloadError::io("placing", dir))
    }
    .await;
    let _ = fs::remove_file(&archive);
    if result.is_err() {
        let _ = fs::remove_dir_all(&unpacked);
    }
    result
}

/// Removes payloads that no executor of this machine uses, save `keep`.
pub fn remove_unused(paths: &Paths, keep: &str) {
    let Ok(entries) = fs::read_dir(paths.payloads()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(sha256) = name
            .to_str()
            .filter(|name| name.len() == 64 && *name != keep)
        else {
            continue;
        };
        let lock_path = paths.payloads().join(format!("{sha256}.lock"));
        let Ok(lock) = File::options().write(true).open(&lock_path) else {
            continue;
        };
        if lock.try_lock().is_err() {
            continue;
        }
        // Renamed first, so that what is at its place is complete at every instant.
        let doomed = paths.payloads().join(format!(".{sha256}.removing"));
        if fs::rename(entry.path(), &doomed).is_ok() {
            tracing::info!("removing the unused payload {sha256}");
            let _ = fs::remove_dir_all(&doomed);
        }
    }
}

#[cfg(test)]
mod tests;
