//! Writes the artifacts directory. Files that are there already and come from the same sources
//! are kept, so that a second run takes no time; files of older versions are kept too, because
//! running apps may still be started from their URLs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use packaging::files::{PUBLIC, make_dir, read_optional, write_atomic};
use packaging::install::artifacts::{
    CONTROL_PLANE_PROGRAMS, Entry, FILE, Manifest, OWN_PROGRAMS, PAYLOAD, SUMS, VERSION,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::catalog::{Catalog, UPSTREAM, own_dir};
use crate::cluster::prepare;
use crate::upstream::Versions;

/// What to build from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Folder of our programs; this program's by default.
    pub programs: Option<PathBuf>,
    /// Folder of the upstream programs.
    pub upstream: PathBuf,
    /// Image archives that every node gets beside those that a cluster needs.
    pub images: Vec<PathBuf>,
}

/// Which file made an entry, so that an unchanged one is not read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    path: PathBuf,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
    sha256: String,
}

/// Where origins are noted, beside the list.
const ORIGINS: &str = ".origins.json";

/// Writes `dir`. `on_file` hears what is worked on.
pub fn build(
    dir: &Path,
    base_url: Option<&str>,
    sources: &Sources,
    mut on_file: impl FnMut(&str),
) -> Result<Manifest, Error> {
    make_dir(dir, 0o755)?;
    let own = match &sources.programs {
        Some(dir) => dir.clone(),
        None => own_dir()?,
    };
    let catalog = Catalog::new(Some(&own), &sources.upstream)?;
    on_file("images and payload");
    // Images and the payload are made in a folder of their own; the payload is linked from there.
    let work = dir.join(".work");
    make_dir(&work, 0o755)?;
    let payload = prepare::payload_in(&work, &sources.images, &catalog)?;

    let mut files: Vec<(&str, PathBuf, Way)> = Vec::new();
    for name in OWN_PROGRAMS {
        files.push((name, own.join(name), Way::Copy));
    }
    for name in CONTROL_PLANE_PROGRAMS {
        files.push((name, catalog.upstream(name), Way::Copy));
    }
    files.push((PAYLOAD, payload.path, Way::Link));

    let mut origins: BTreeMap<String, Origin> = read_optional(&dir.join(ORIGINS))?
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut list = Manifest {
        version: VERSION,
        base_url: base_url.map(|url| url.trim_end_matches('/').to_owned()),
        files: BTreeMap::new(),
        components: Versions::of(&sources.upstream).only(&UPSTREAM),
    };
    for (name, source, way) in files {
        on_file(name);
        let origin = place(dir, name, &source, way, origins.get(name))?;
        let entry = Entry {
            sha256: origin.sha256.clone(),
            size: origin.size,
        };
        list.files.insert(name.to_owned(), entry);
        origins.insert(name.to_owned(), origin);
    }
    write_atomic(&dir.join(ORIGINS), &json(&origins), PUBLIC)?;
    write_atomic(&dir.join(SUMS), list.sums().as_bytes(), PUBLIC)?;
    // Last: who reads the list finds everything that it names.
    write_atomic(&dir.join(FILE), &json(&list), PUBLIC)?;
    Ok(list)
}

/// Brings one file to `dir/<sha256>/<name>`.
fn place(
    dir: &Path,
    name: &str,
    source: &Path,
    way: Way,
    known: Option<&Origin>,
) -> Result<Origin, Error> {
    let metadata = match std::fs::metadata(source) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Err(Error::Program(source.to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Program(source.to_owned()));
        }
        Err(e) => return Err(Error::io("read", source)(e)),
    };
    let mut origin = Origin {
        path: source.to_owned(),
        size: metadata.len(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
        sha256: known.map(|o| o.sha256.clone()).unwrap_or_default(),
    };
    let there = |sha256: &str| {
        let path = dir.join(sha256).join(name);
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == metadata.len())
    };
    if known == Some(&origin) && there(&origin.sha256) {
        return Ok(origin);
    }
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let copied = match way {
        Way::Copy => copy(source, &temporary, 0o755),
        Way::Link => link(source, &temporary),
    };
    if copied.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    origin.sha256 = copied?;
    let folder = dir.join(&origin.sha256);
    make_dir(&folder, 0o755)?;
    let target = folder.join(name);
    std::fs::rename(&temporary, &target).map_err(Error::io("rename", &target))?;
    Ok(origin)
}

/// How a file gets into the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A program: its source may change at any time.
    Copy,
    /// Half a gigabyte that was made for this, and that nobody writes to again.
    Link,
}

/// Gives a file a second name, and digests it. Where that cannot be, it is copied.
fn link(source: &Path, target: &Path) -> Result<String, Error> {
    if std::fs::hard_link(source, target).is_err() {
        return copy(source, target, PUBLIC);
    }
    let file = File::open(target).map_err(Error::io("read", target))?;
    let (digest, _) =
        packaging::image::digest_reader(BufReader::new(file)).map_err(Error::io("read", target))?;
    Ok(digest)
}

/// Copies and digests in one pass: what is served is exactly what was digested, also when the
/// source changes meanwhile.
fn copy(source: &Path, target: &Path, mode: u32) -> Result<String, Error> {
    const PIECE: usize = 1 << 20;
    let file = File::open(source).map_err(Error::io("read", source))?;
    let mut input = BufReader::with_capacity(PIECE, file);
    let mut output = File::create(target).map_err(Error::io("write", target))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; PIECE];
    loop {
        let n = input.read(&mut buffer).map_err(Error::io("read", source))?;
        if n == 0 {
            break;
        }
        digest.update(&buffer[..n]);
        output
            .write_all(&buffer[..n])
            .map_err(Error::io("write", target))?;
    }
    output
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .and_then(|()| output.sync_all())
        .map_err(Error::io("write", target))?;
    Ok(crate::upstream::cache::hex(&digest.finalize()))
}

/// Plain data as indented JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lies_below_its_digest_and_is_not_copied_again() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("program");
        std::fs::write(&source, "abc").unwrap();
        let first = place(dir.path(), "etcd", &source, Way::Copy, None).unwrap();
        assert!(first.sha256.starts_with("ba7816bf"));
        let target = dir.path().join(&first.sha256).join("etcd");
        assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o777, 0o755);
        let inode = std::fs::metadata(&target).unwrap().ino();
        let second = place(dir.path(), "etcd", &source, Way::Copy, Some(&first)).unwrap();
        assert_eq!(first, second);
        assert_eq!(std::fs::metadata(&target).unwrap().ino(), inode);
        // A file that was removed is made again.
        std::fs::remove_file(&target).unwrap();
        place(dir.path(), "etcd", &source, Way::Copy, Some(&first)).unwrap();
        assert!(target.is_file());
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("k8sm-proxy");
        let error = place(dir.path(), "k8sm-proxy", &missing, Way::Copy, None).unwrap_err();
        assert!(
            error.to_string().contains("k8sm-proxy is missing"),
            "{error}"
        );
    }
}
