//! The file in which Marathon's state outlives the process: written whole and atomically; one
//! that cannot be read stops the start rather than forgetting apps that run.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::core::Durable;

const FILE: &str = "marathon.json";
const FORMAT: u32 = 1;

/// Why the state cannot be kept or read. Not worth a retry without a person: the disk is full,
/// the directory is not ours, or the file is damaged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("Marathon's state {path}: cannot {attempted}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        attempted: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by another Marathon; end it, or give this one another --work-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file is not Marathon's state.
    #[error(
        "Marathon's state {path} is damaged ({reason}); put back a copy, or remove it to begin \
         with no apps (tasks that still run are then killed as unknown)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The work directory, held by this process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Locked as long as it is open.
    _lock: fs::File,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    state: &'a Durable,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    state: serde_json::Value,
}

impl Store {
    /// Opens a work directory and makes it if need be.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let fail = |attempted, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io {
                path,
                attempted,
                source,
            }
        };
        fs::create_dir_all(dir).map_err(fail("make the directory", dir))?;
        let path = dir.join("lock");
        let lock = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: dir.to_owned(),
            }),
            Err(fs::TryLockError::Error(source)) => Err(fail("lock", &path)(source)),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// What was kept; nothing at the first start.
    pub fn load(&self) -> Result<Durable, StoreError> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Durable::default()),
            Err(source) => {
                return Err(StoreError::Io {
                    path,
                    attempted: "read",
                    source,
                });
            }
        };
        let damaged = |reason: String| StoreError::Damaged {
            path: path.clone(),
            reason,
        };
        let read: Read = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if read.format != FORMAT {
            return Err(damaged(format!("format {} is unknown", read.format)));
        }
        serde_json::from_value(read.state).map_err(|e| damaged(e.to_string()))
    }

    /// Keeps the state: temporary file, sync, rename, sync of the directory. It is readable by
    /// its owner only, since environments of apps may hold what others must not see.
    pub fn save(&self, state: &Durable) -> Result<(), StoreError> {
        let path = self.path();
        let fail = |attempted: &'static str| {
            let path = path.clone();
            move |source| StoreError::Io {
                path,
                attempted,
                source,
            }
        };
        let written = Written {
            format: FORMAT,
            state,
        };
        let bytes =
            serde_json::to_vec(&written).map_err(|e| fail("encode")(std::io::Error::other(e)))?;
        let temporary = self.dir.join(format!("{FILE}.tmp"));
        let mut out = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(fail("create"))?;
        out.write_all(&bytes).map_err(fail("write"))?;
        out.sync_all().map_err(fail("sync"))?;
        fs::rename(&temporary, &path).map_err(fail("replace"))?;
        let dir = fs::File::open(&self.dir).map_err(fail("open the directory of"))?;
        dir.sync_all().map_err(fail("sync the directory of"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), Durable::default());
        let state = Durable {
            framework_id: Some("f".to_owned()),
            ..Durable::default()
        };
        store.save(&state).unwrap();
        assert_eq!(store.load().unwrap(), state);
    }

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("in use by another Marathon"), "{error}");
        drop(store);
        assert!(Store::open(dir.path()).is_ok());
    }

    #[test]
    fn a_damaged_state_is_named_and_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for text in [
            "",
            "{",
            r#"{"format":9,"state":{}}"#,
            r#"{"format":1,"state":[]}"#,
        ] {
            fs::write(store.path(), text).unwrap();
            let error = store.load().unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
    }
}
