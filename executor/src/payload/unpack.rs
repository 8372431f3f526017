//! Unpacks an archive whose digest was right, trusting nothing in it still.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::EntryType;

use super::PayloadError;

/// What one archive may unpack to.
const UNPACKED_MAX: u64 = 16 << 30;
/// Bytes that are read and written at once.
const BUFFER: usize = 256 << 10;
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
        Box::new(GzDecoder::new(BufReader::with_capacity(BUFFER, file)))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, file))
    };
    let mut archive = tar::Archive::new(reader.take(UNPACKED_MAX));
    let entries = archive
        .entries()
        .map_err(|e| bad(format!("no tar archive: {e}")))?;
    let mut count = 0_u64;
    let mut buffer = vec![0; BUFFER];
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
                fs::create_dir_all(&target).map_err(PayloadError::writing("making", &target))?;
            }
            EntryType::Regular | EntryType::Continuous => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent).map_err(PayloadError::writing("making", parent))?;
                }
                let mut out = File::options()
                    .write(true)
                    .create_new(true)
                    .open(&target)
                    .map_err(PayloadError::writing("making", &target))?;
                copy(&mut entry, &mut out, &mut buffer).map_err(|e| match e {
                    CopyError::Read(e) => bad(format!("`{}`: {e}", name.display())),
                    CopyError::Write(e) => PayloadError::writing("writing", &target)(e),
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

enum CopyError {
    Read(std::io::Error),
    Write(std::io::Error),
}

/// All of an entry. Whose fault it is matters: the archive's, or our disk's.
fn copy(from: &mut impl Read, to: &mut File, buffer: &mut [u8]) -> Result<(), CopyError> {
    loop {
        let length = match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        to.write_all(buffer.get(..length).unwrap_or_default())
            .map_err(CopyError::Write)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Cut;

    impl Read for Cut {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_archive() {
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let copied = copy(&mut &b"bytes"[..], &mut full, &mut [0; 16]);
        assert!(matches!(copied, Err(CopyError::Write(_))));
        let mut null = File::options().write(true).open("/dev/null").unwrap();
        let copied = copy(&mut Cut, &mut null, &mut [0; 16]);
        assert!(matches!(copied, Err(CopyError::Read(_))));
    }
}
