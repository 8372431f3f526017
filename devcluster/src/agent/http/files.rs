//! Sandbox files over HTTP: browse, read, download. Only what is in a sandbox is shown, by its
//! real path or by the virtual one that ends in `latest`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use crate::agent::core::Core;

/// Most that one read gives, bytes (Mesos: sixteen pages).
const MAX_READ: u64 = 64 << 10;
/// Most that one download gives, bytes.
pub const MAX_DOWNLOAD: u64 = 1 << 30;

/// What is shown: names and the sandboxes behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown(Vec<(String, PathBuf)>);

/// A file that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none, or it is in no sandbox.
    #[error("no such file")]
    NotFound,
    /// It is not the kind of file that was asked for.
    #[error("{0}")]
    Kind(&'static str),
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its path, as it was asked for.
    pub path: String,
    /// Hard links.
    pub nlink: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Type and permissions.
    pub mode: u32,
    /// Owner, by name where it has one.
    pub user: String,
    /// Group, by name where it has one.
    pub group: String,
}

impl Shown {
    /// The sandboxes of an agent.
    pub fn of(core: &Core) -> Self {
        let mut shown = Vec::new();
        let all = core.frameworks.values().chain(&core.completed_frameworks);
        for framework in all {
            let id = framework.id();
            let executors = framework.executors.values().chain(&framework.completed);
            for executor in executors {
                let real = executor.directory.clone();
                let latest = format!("/frameworks/{id}/executors/{}/runs/latest", executor.id);
                if let Some(runs) = real.parent() {
                    let path = runs.join("latest").display().to_string();
                    shown.push((path, real.clone()));
                }
                shown.push((latest, real.clone()));
                shown.push((real.display().to_string(), real));
            }
        }
        shown.sort();
        // Of several runs the newest is the last one made.
        shown.dedup_by(|a, b| a.0 == b.0);
        Self(shown)
    }

    /// `/files/debug`.
    pub fn debug(&self) -> Value {
        self.0
            .iter()
            .map(|(name, path)| (name.clone(), Value::from(path.display().to_string())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// The real path of what is asked for, links followed, still inside its sandbox.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, FileError> {
        let asked = path.trim_end_matches('/');
        if Path::new(asked)
            .components()
            .any(|c| c == Component::ParentDir)
        {
            return Err(FileError::NotFound);
        }
        let (root, rest) = self
            .0
            .iter()
            .filter_map(|(name, root)| {
                let rest = asked.strip_prefix(name.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then_some((root, rest))
            })
            .next()
            .ok_or(FileError::NotFound)?;
        let root = fs::canonicalize(root).map_err(|_| FileError::NotFound)?;
        let real = fs::canonicalize(root.join(rest.trim_start_matches('/')))
            .map_err(|_| FileError::NotFound)?;
        if real.starts_with(&root) {
            Ok(real)
        } else {
            Err(FileError::NotFound)
        }
    }
}

/// The entries of a directory, sorted by path.
pub fn list(asked: &str, real: &Path) -> Result<Vec<Entry>, FileError> {
    if !real.is_dir() {
        return Err(FileError::NotFound);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut entries = Vec::new();
    for entry in fs::read_dir(real)? {
        let entry = entry?;
        // It may be gone by now.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        entries.push(Entry {
            path: format!(
                "{}/{}",
                asked.trim_end_matches('/'),
                entry.file_name().to_string_lossy()
            ),
            nlink: metadata.nlink(),
            size: metadata.len(),
            mtime: metadata.mtime(),
            mode: metadata.permissions().mode(),
            user: name_of(&users, metadata.uid()),
            group: name_of(&groups, metadata.gid()),
        });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Users and groups have their numbers in the same column.
fn name_of(table: &str, id: u32) -> String {
    let id = id.to_string();
    table
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == id).then(|| name.to_owned())
        })
        .unwrap_or(id)
}

/// A part of a file and the file's size. Without an offset there is no part.
pub fn read(
    real: &Path,
    offset: Option<u64>,
    length: Option<u64>,
) -> Result<(Vec<u8>, u64), FileError> {
    if real.is_dir() {
        return Err(FileError::Kind("Cannot read a directory.\n"));
    }
    let mut file = File::open(real)?;
    let size = file.metadata()?.len();
    let Some(offset) = offset.filter(|offset| *offset < size) else {
        return Ok((Vec::new(), size));
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut data = Vec::new();
    file.take(length.unwrap_or(MAX_READ).min(MAX_READ))
        .read_to_end(&mut data)?;
    Ok((data, size))
}

/// The permissions as `ls` shows them.
pub fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o140_000 => 's',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        _ => '-',
    };
    let bits = (0..9).rev().zip("rwxrwxrwx".chars());
    let bits = bits.map(|(bit, letter)| if mode & (1 << bit) != 0 { letter } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

/// An entry as `/files/browse` shows it.
pub fn browse_entry(entry: &Entry) -> Value {
    json!({
        "gid": entry.group,
        "mode": mode_text(entry.mode),
        "mtime": entry.mtime as f64,
        "nlink": entry.nlink,
        "path": entry.path,
        "size": entry.size,
        "uid": entry.user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> (tempfile::TempDir, Shown) {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("runs/c1");
        fs::create_dir_all(sandbox.join("sub")).unwrap();
        fs::write(sandbox.join("stdout"), "hello world\n").unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../../secret", sandbox.join("link")).unwrap();
        let shown = Shown(vec![(
            "/frameworks/F/executors/e/runs/latest".into(),
            sandbox,
        )]);
        (dir, shown)
    }

    #[test]
    fn only_what_is_in_a_sandbox_is_shown() {
        let (_dir, shown) = sandbox();
        let latest = "/frameworks/F/executors/e/runs/latest";
        assert!(shown.resolve(latest).is_ok());
        assert!(shown.resolve(&format!("{latest}/stdout")).is_ok());
        for outside in [
            "/etc/passwd".to_owned(),
            format!("{latest}/../../secret"),
            format!("{latest}/link"),
            format!("{latest}x"),
            format!("{latest}/nope"),
            String::new(),
        ] {
            assert!(shown.resolve(&outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn a_file_is_read_in_parts() {
        let (_dir, shown) = sandbox();
        let path = shown
            .resolve("/frameworks/F/executors/e/runs/latest/stdout")
            .unwrap();
        let text = |offset, length| {
            let (data, size) = read(&path, offset, length).unwrap();
            (String::from_utf8(data).unwrap(), size)
        };
        assert_eq!(text(Some(0), Some(100)), ("hello world\n".into(), 12));
        assert_eq!(text(Some(5), None), (" world\n".into(), 12));
        assert_eq!(text(None, None), (String::new(), 12));
        assert_eq!(text(Some(99), None), (String::new(), 12));
    }

    #[test]
    fn modes_and_names_are_those_of_ls() {
        assert_eq!(mode_text(0o100_644), "-rw-r--r--");
        assert_eq!(mode_text(0o040_755), "drwxr-xr-x");
        assert_eq!(name_of("root:x:0:0::/:\nweb:x:33:\n", 33), "web");
        assert_eq!(name_of("root:x:0:0::/:\n", 7), "7");
    }
}
