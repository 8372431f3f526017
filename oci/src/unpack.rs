//! Layers become a root file system: each is applied over those below it, with its whiteouts.
//!
//! Paths are resolved within the root, symbolic links of the image included, as if the root were
//! entered: nothing is ever written outside, whatever a layer says. Device files are left out: who
//! runs the image brings its own `/dev`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::archive::{self, Archive, Image, Layer};
use crate::digest::{Digest, HashingReader};

/// A file of this name hides the one of the rest of the name.
const WHITEOUT: &str = ".wh.";
/// A file of this name hides everything in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// Most symbolic links on the way to a file, as Linux limits them.
const MOST_LINKS: u32 = 40;

/// Why an image could not be unpacked. Another copy of the image helps, or more room.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A layer is not what it should be.
    #[error("layer {digest} of the image is damaged: {why}")]
    Layer {
        /// Which.
        digest: Digest,
        /// What is wrong.
        why: String,
    },
    /// The file system refused.
    #[error("unpack {path} of layer {digest}: {source}", path = path.display())]
    Io {
        /// Which layer.
        digest: Digest,
        /// Which file of it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image is larger than what there is room for.
    #[error("the image is larger than the {limit} bytes that are allowed for it")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
}

/// Unpacks all layers of an image into an empty directory, at most `limit` bytes. Every layer is
/// checked against its digests. Owners are kept for root only. Returns the bytes of all files.
pub fn image(archive: &Archive, image: &Image, root: &Path, limit: u64) -> Result<u64, Error> {
    let mut left = limit;
    for layer in &image.layers {
        let reader = archive.open_file(&layer.path)?;
        left = apply(reader, layer, root, left).map_err(|e| match e {
            Error::TooLarge { .. } => Error::TooLarge { limit },
            other => other,
        })?;
    }
    Ok(limit - left)
}

/// Applies one layer and returns what is left of the limit.
fn apply(stored: impl Read, layer: &Layer, root: &Path, limit: u64) -> Result<u64, Error> {
    let damaged = |why: String| Error::Layer {
        digest: layer.digest.clone().unwrap_or(layer.diff_id.clone()),
        why,
    };
    let cut = |e: io::Error| damaged(format!("it breaks off or is no archive: {e}"));
    let mut stored = HashingReader::new(stored);
    let mut magic = [0; 4];
    let read = fill(&mut stored, &mut magic).map_err(cut)?;
    let start = io::Cursor::new(magic[..read].to_vec());
    let (diff_id, left) = if magic.starts_with(&[0x1f, 0x8b]) {
        let chained = start.chain(&mut stored);
        tar(
            flate2::read::MultiGzDecoder::new(chained),
            layer,
            root,
            limit,
        )?
    } else if magic == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(damaged(
            "it is compressed by zstd, which is not supported; push the image with gzip".to_owned(),
        ));
    } else {
        tar(start.chain(&mut stored), layer, root, limit)?
    };
    let (digest, _) = stored.finish().map_err(cut)?;
    if let Some(said) = &layer.digest
        && *said != digest
    {
        return Err(damaged(format!("its content has the digest {digest}")));
    }
    if layer.diff_id != diff_id {
        return Err(damaged(format!(
            "its content has the digest {diff_id}, where the image's configuration says {}",
            layer.diff_id
        )));
    }
    Ok(left)
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn tar(plain: impl Read, layer: &Layer, root: &Path, limit: u64) -> Result<(Digest, u64), Error> {
    let digest = || layer.digest.clone().unwrap_or(layer.diff_id.clone());
    let cut = |e: io::Error| Error::Layer {
        digest: digest(),
        why: format!("it breaks off or is no archive: {e}"),
    };
    let mut plain = HashingReader::new(plain);
    let mut left = limit;
    {
        let mut archive = tar::Archive::new(&mut plain);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(is_root());
        archive.set_overwrite(true);
        let mut own = BTreeSet::new();
        for entry in archive.entries().map_err(cut)? {
            let mut entry = entry.map_err(cut)?;
            let path = entry.path().map_err(cut)?.into_owned();
            // An entry without content takes room too.
            let size = entry.size().saturating_add(512);
            left = left.checked_sub(size).ok_or(Error::TooLarge { limit })?;
            place(&mut entry, root, &path, &mut own).map_err(|source| Error::Io {
                digest: digest(),
                path,
                source,
            })?;
        }
    }
    let (diff_id, _) = plain.finish().map_err(cut)?;
    Ok((diff_id, left))
}

/// Whether owners can be kept.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Puts one entry of a layer in its place. `own` are the paths of this layer.
fn place(
    entry: &mut tar::Entry<'_, impl Read>,
    root: &Path,
    path: &Path,
    own: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    use tar::EntryType as Kind;
    let Some((parent, name)) = split(path) else {
        // The root itself: its permissions are the runtime's choice.
        return Ok(());
    };
    let parent = directory(root, &parent)?;
    let text = name.to_string_lossy().into_owned();
    if text == OPAQUE {
        return empty(&parent, own);
    }
    if let Some(hidden) = text.strip_prefix(WHITEOUT) {
        let plain = !hidden.is_empty() && hidden != "." && hidden != "..";
        let hidden = parent.join(hidden);
        if plain {
            hide(&hidden, own)?;
        }
        return Ok(());
    }
    let target = parent.join(&name);
    let kind = entry.header().entry_type();
    let is_dir = fs::symlink_metadata(&target).map(|m| m.is_dir()).ok();
    match kind {
        // A directory over a directory keeps what is in it.
        Kind::Directory if is_dir == Some(true) => {}
        Kind::Directory | Kind::Regular | Kind::Continuous | Kind::GNUSparse | Kind::Symlink => {
            remove(&target)?;
        }
        Kind::Link => {
            let link = entry.link_name()?;
            let link = link.ok_or_else(|| invalid("a hard link without a target"))?;
            let (dir, name) = split(&link).ok_or_else(|| invalid("a hard link to the root"))?;
            let source = directory(root, &dir)?.join(name);
            if source == target {
                return Ok(());
            }
            remove(&target)?;
            fs::hard_link(source, &target)?;
            own.insert(target);
            return Ok(());
        }
        // Devices, pipes, and what describes other entries.
        _ => return Ok(()),
    }
    entry.unpack(&target)?;
    own.insert(target);
    Ok(())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Parent and last part of a path of a layer, without `.` and leading slashes; none for the root.
fn split(path: &Path) -> Option<(Vec<std::ffi::OsString>, std::ffi::OsString)> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    let name = parts.pop()?;
    Some((parts, name))
}

/// The directory of these parts below the root, with symbolic links resolved as within the root.
/// What is missing is made; a file in the way is replaced.
fn directory(root: &Path, parts: &[std::ffi::OsString]) -> io::Result<PathBuf> {
    let mut todo: Vec<std::ffi::OsString> = parts.iter().rev().cloned().collect();
    // Always the root and names of real directories below it.
    let mut at = root.to_owned();
    let mut depth = 0_usize;
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            if depth > 0 {
                at.pop();
                depth -= 1;
            }
            continue;
        }
        let next = at.join(&part);
        match fs::symlink_metadata(&next) {
            Ok(m) if m.is_symlink() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(invalid("too many symbolic links"));
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    at = root.to_owned();
                    depth = 0;
                }
                for part in target.components().rev() {
                    match part {
                        Component::Normal(name) => todo.push(name.to_owned()),
                        Component::ParentDir => todo.push("..".into()),
                        _ => {}
                    }
                }
                continue;
            }
            Ok(m) if m.is_dir() => {}
            Ok(_) => {
                fs::remove_file(&next)?;
                fs::create_dir(&next)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir(&next)?,
            Err(e) => return Err(e),
        }
        at = next;
        depth += 1;
    }
    Ok(at)
}

/// Removes what lower layers have put into a directory.
fn empty(dir: &Path, own: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        hide(&entry?.path(), own)?;
    }
    Ok(())
}

/// Removes a path as far as lower layers have brought it.
fn hide(path: &Path, own: &BTreeSet<PathBuf>) -> io::Result<()> {
    // Paths sort by their parts: what is below `path` follows it at once.
    let kept = own.range(path.to_owned()..).next();
    if !kept.is_some_and(|kept| kept.starts_with(path)) {
        return remove(path);
    }
    match fs::symlink_metadata(path)?.is_dir() {
        true => empty(path, own),
        false => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if metadata.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests;
