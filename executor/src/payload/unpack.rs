//! Unpacks an archive whose digest was right, trusting nothing in it still.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::EntryType;

use super::PayloadError;

/// What one archive may unpack to.
const UNPACKED_MAX: u64 = 16 << 30;
/// How many entries it may have.
const ENTRIES_MAX: u64 = 100_000;

/// Unpacks into `dir`, which is made anew.
pub fn unpack(archive: &Path, dir: &Path, sha256: &str) -> Result<(), PayloadError> {
    let bad = |reason: String| PayloadError::BadArchive {
        sha256: sha256.to_owned(),
        reason,
    };
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(PayloadError::io("removing", dir)(error));
        }
        _ => {}
    }
    fs::create_dir_all(dir).map_err(PayloadError::io("making", dir))?;
    let mut file = File::open(archive).map_err(PayloadError::io("opening", archive))?;
    let mut magic = [0; 2];
    let read = file
        .read(&mut magic)
        .and_then(|read| file.seek(SeekFrom::Start(0)).map(|_| read))
        .map_err(PayloadError::io("reading", archive))?;
    let reader: Box<dyn Read> = if read == 2 && magic == [0x1f, 0x8b] {
        Box::new(GzDecoder::new(BufReader::with_capacity(256 << 10, file)))
    } else {
        Box::new(BufReader::with_capacity(256 << 10, file))
    };
    let mut archive = tar::Archive::new(reader.take(UNPACKED_MAX));
    let entries = archive
        .entries()
        .map_err(|e| bad(format!("no tar archive: {e}")))?;
    let mut count = 0_u64;
    for entry in entries {
        let mut entry = entry.map_err(|e| bad(format!("after {count} entries: {e}")))?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(bad(format!("more than {ENTRIES_MAX} entries")));
        }
        let name = entry
            .path()
            .map_err(|e| bad(format!("entry {count}: {e}")))?
            .into_owned();
        let inside =
            safe(&name).ok_or_else(|| bad(format!("`{}` leads out of it", name.display())))?;
        if inside.as_os_str().is_empty() {
            continue;
        }
        let target = dir.join(&inside);
        let mode = entry.header().mode().unwrap_or(0o644);
        match entry.header().entry_type() {
            EntryType::Directory => {
                fs::create_dir_all(&target).map_err(PayloadError::io("making", &target))?;
            }
            EntryType::Regular | EntryType::Continuous => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent).map_err(PayloadError::io("making", parent))?;
                }
                let mut out = File::options()
                    .write(true)
                    .create_new(true)
                    .open(&target)
                    .map_err(PayloadError::io("making", &target))?;
                std::io::copy(&mut entry, &mut out).map_err(|e| {
                    if e.kind() == std::io::ErrorKind::StorageFull {
                        PayloadError::io("writing", &target)(e)
                    } else {
                        bad(format!("`{}`: {e}", name.display()))
                    }
                })?;
                // No set-uid bits, nothing that others may write.
                let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
                out.set_permissions(fs::Permissions::from_mode(mode))
                    .map_err(PayloadError::io("setting the mode of", &target))?;
            }
            EntryType::XGlobalHeader => {}
            other => {
                // Links could lead anywhere; payloads have none.
                return Err(bad(format!(
                    "`{}` is of kind {other:?}; only files and directories are accepted",
                    name.display()
                )));
            }
        }
    }
    if !dir.join("payload.json").is_file() {
        return Err(bad("it has no payload.json".to_owned()));
    }
    Ok(())
}

/// The path without `.`; `None` when it is absolute or climbs.
fn safe(path: &Path) -> Option<PathBuf> {
    let mut safe = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => safe.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(safe)
}
