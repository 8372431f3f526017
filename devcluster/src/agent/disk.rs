//! Files that must be whole after a crash at any instant: written beside their place, synced,
//! renamed, and the directory synced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file of the agent's own could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system refused. Worth a retry only once its cause (space, rights) is gone.
    #[error("{attempt} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, for instance `write`.
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file is there but is not what this program wrote. Never worth a retry.
    #[error("{path} is corrupt: {what}; remove it or the agent's work directory to start anew",
            path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where and how it differs.
        what: String,
    },
}

/// Makes an [`io::Error`] say what was attempted on which path.
pub fn io_error(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Io {
        attempt,
        path,
        source,
    }
}

/// How much of a file system is used, 0 to 1: of what somebody without privileges may use, as
/// `df` says it.
pub fn usage(path: &Path) -> Result<f64, DiskError> {
    let stat = nix::sys::statvfs::statvfs(path)
        .map_err(|errno| io_error("ask for the space of", path)(errno.into()))?;
    let used = stat.blocks().saturating_sub(stat.blocks_free()) as f64;
    let free = stat.blocks_available() as f64;
    Ok(match used + free {
        0.0 => 0.0,
        all => used / all,
    })
}

/// Makes a directory and its parents.
pub fn make_dir(path: &Path) -> Result<(), DiskError> {
    fs::create_dir_all(path).map_err(io_error("make directory", path))
}

/// Replaces a file as a whole. The parent directories are made when they are missing.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    make_dir(parent)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = parent.join(name);
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(bytes)
        .map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename to", path))?;
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", parent))
}

/// Reads a file, or `None` if there is none.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Writes a value as JSON, as a whole.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let bytes = serde_json::to_vec(value).map_err(|error| DiskError::Corrupt {
        path: path.to_owned(),
        what: format!("cannot be written as JSON: {error}"),
    })?;
    write_atomic(path, &bytes)
}

/// Reads a JSON value, or `None` if there is no file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let Some(bytes) = read_optional(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| DiskError::Corrupt {
            path: path.to_owned(),
            what: error.to_string(),
        })
}

/// The names in a directory, sorted; empty if there is no such directory.
pub fn list_dir(path: &Path) -> Result<Vec<String>, DiskError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", path))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Points the symbolic link `link` at `target`, replacing an earlier one in one step.
pub fn link_atomic(target: &Path, link: &Path) -> Result<(), DiskError> {
    let parent = link.parent().unwrap_or_else(|| Path::new("."));
    make_dir(parent)?;
    let mut name = link.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = parent.join(name);
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("remove", &temporary)(error)),
    }
    std::os::unix::fs::symlink(target, &temporary).map_err(io_error("link", &temporary))?;
    fs::rename(&temporary, link).map_err(io_error("rename to", link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/state.json");
        write_json(&path, &vec![1, 2]).unwrap();
        write_json(&path, &vec![3]).unwrap();
        assert_eq!(read_json::<Vec<i32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(list_dir(path.parent().unwrap()).unwrap(), ["state.json"]);
    }

    #[test]
    fn a_missing_file_is_none_and_a_corrupt_one_names_itself_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert_eq!(read_json::<Vec<i32>>(&path).unwrap(), None);
        fs::write(&path, b"[1,").unwrap();
        let error = read_json::<Vec<i32>>(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("line 1"), "{error}");
        assert!(error.contains("remove it"), "{error}");
    }

    #[test]
    fn a_link_moves_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("latest");
        link_atomic(Path::new("one"), &link).unwrap();
        link_atomic(Path::new("two"), &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("two"));
    }
}
