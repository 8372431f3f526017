//! The node payload: one archive with everything that a node runs (`docs/contracts.md`), named by
//! its SHA-256. The same programs and images give the same archive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::image::archive::Archive;
use crate::image::digest_reader;

/// Programs in `bin/`. `nft`, `mount` and other tools of the system are the agent's own.
pub const PROGRAMS: [&str; 6] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "kube-proxy",
    "kubelet",
    "runc",
];
/// CNI plugins in `cni/`.
pub const CNI_PLUGINS: [&str; 6] = [
    "bridge",
    "firewall",
    "host-local",
    "loopback",
    "portmap",
    "ptp",
];

/// What goes into a payload.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Where the programs and plugins are.
    pub programs: PathBuf,
    /// Versions by component, shown by `k8sm status` and in events.
    pub components: BTreeMap<String, String>,
    /// Image archives with the name that each gets in `images/`; the pause image first.
    pub images: Vec<(String, PathBuf)>,
    /// Name of the pause image.
    pub pause: String,
    /// A directory with licence texts, if there is one.
    pub licenses: Option<PathBuf>,
}

/// A payload on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The archive.
    pub path: PathBuf,
    /// Its SHA-256, 64 digits.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a payload could not be made. A retry helps once the file is there or there is space.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program or image is missing or cannot be read.
    #[error("read {path} for the node payload: {source}{hint}", hint = missing_hint(source))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("write the node payload {path}: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn missing_hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::NotFound {
        " (`k8sm upstream build` makes the upstream programs)"
    } else {
        ""
    }
}

impl Contents {
    /// The files of the archive in their order: path, mode, source.
    fn files(&self) -> Result<Vec<(String, u32, PathBuf)>, Error> {
        let mut files = Vec::new();
        for name in PROGRAMS {
            files.push((format!("bin/{name}"), 0o755, self.programs.join(name)));
        }
        for name in CNI_PLUGINS {
            files.push((format!("cni/{name}"), 0o755, self.programs.join(name)));
        }
        for (name, path) in &self.images {
            files.push((format!("images/{name}"), 0o644, path.clone()));
        }
        if let Some(licenses) = &self.licenses {
            let mut found = Vec::new();
            list(licenses, &mut found, 0)?;
            found.sort();
            for path in found {
                if let Ok(relative) = path.strip_prefix(licenses) {
                    files.push((format!("licenses/{}", relative.display()), 0o644, path));
                }
            }
        }
        Ok(files)
    }

    /// A digest of what would be packed, from the sources' paths, sizes and times: cheap, to know
    /// whether an archive is still good without reading 400 MB.
    pub fn fingerprint(&self) -> Result<String, Error> {
        use std::os::unix::fs::MetadataExt;
        let mut text = self.manifest();
        for (name, _, path) in self.files()? {
            let m = fs::metadata(&path).map_err(|source| Error::Read {
                path: path.clone(),
                source,
            })?;
            text.push_str(&format!(
                "{name} {} {} {} {}\n",
                path.display(),
                m.len(),
                m.mtime(),
                m.mtime_nsec()
            ));
        }
        // Reading from memory cannot fail.
        Ok(digest_reader(text.as_bytes())
            .map(|d| d.0)
            .unwrap_or_default())
    }

    fn manifest(&self) -> String {
        let images: Vec<String> = self
            .images
            .iter()
            .map(|(name, _)| format!("images/{name}"))
            .collect();
        let mut text = json!({
            "version": 1,
            "components": self.components,
            "images": images,
            "pause": self.pause,
        })
        .to_string();
        text.push('\n');
        text
    }

    /// Packs the payload into `dir/<sha256>.tar`. Plain tar: on one machine and one network
    /// compressing 400 MB takes longer than moving them.
    pub fn write(&self, dir: &Path) -> Result<Built, Error> {
        let temporary = dir.join(format!("payload.{}.tmp", std::process::id()));
        let written = self.write_to(&temporary).and_then(|(sha256, size)| {
            let path = dir.join(format!("{sha256}.tar"));
            fs::rename(&temporary, &path).map_err(|source| Error::Write {
                path: path.clone(),
                source,
            })?;
            Ok(Built { path, sha256, size })
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn write_to(&self, path: &Path) -> Result<(String, u64), Error> {
        let write = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        let out = File::create(path).map_err(write)?;
        let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, out));
        archive
            .bytes("payload.json", 0o644, self.manifest().as_bytes())
            .map_err(write)?;
        let mut directories = Vec::new();
        for (name, mode, source_path) in self.files()? {
            for (end, _) in name.match_indices('/') {
                let directory = &name[..=end];
                if !directories.iter().any(|d| d == directory) {
                    archive.directory(directory).map_err(write)?;
                    directories.push(directory.to_owned());
                }
            }
            let read = |source| Error::Read {
                path: source_path.clone(),
                source,
            };
            let file = File::open(&source_path).map_err(read)?;
            let size = file.metadata().map_err(read)?.len();
            archive
                .file(&name, mode, size, BufReader::with_capacity(1 << 20, file))
                .map_err(write)?;
        }
        let mut out = archive.finish().map_err(write)?;
        out.flush().map_err(write)?;
        let file = out.into_inner().map_err(|e| write(e.into_error()))?;
        file.set_permissions(fs::Permissions::from_mode(0o644))
            .and_then(|()| file.sync_all())
            .map_err(write)?;
        drop(file);
        File::open(path)
            .and_then(|f| digest_reader(BufReader::with_capacity(1 << 20, f)))
            .map_err(write)
    }
}

/// Files below a directory; licence listings are at most a few levels deep.
fn list(dir: &Path, found: &mut Vec<PathBuf>, depth: u8) -> Result<(), Error> {
    const DEEPEST: u8 = 8;
    let read = |source| Error::Read {
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        let kind = entry.file_type().map_err(read)?;
        if kind.is_dir() && depth < DEEPEST {
            list(&entry.path(), found, depth + 1)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(dir: &Path) -> Contents {
        let programs = dir.join("programs");
        fs::create_dir(&programs).unwrap();
        for name in PROGRAMS.iter().chain(&CNI_PLUGINS) {
            fs::write(programs.join(name), format!("program {name}")).unwrap();
        }
        let licenses = dir.join("licenses");
        fs::create_dir_all(licenses.join("runc")).unwrap();
        fs::write(licenses.join("runc/LICENSE"), "text").unwrap();
        let pause = dir.join("pause.tar");
        fs::write(&pause, "image").unwrap();
        Contents {
            programs,
            components: [("kubelet".to_owned(), "v1.37.1".to_owned())].into(),
            images: vec![("pause.tar".to_owned(), pause)],
            pause: "registry.k8s.io/pause:3.10.2".to_owned(),
            licenses: Some(licenses),
        }
    }

    #[test]
    fn a_payload_is_named_by_its_digest_and_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let contents = contents(dir.path());
        let first = contents.write(dir.path()).unwrap();
        let second = contents.write(dir.path()).unwrap();
        assert_eq!(first, second);
        assert_eq!(first.path, dir.path().join(format!("{}.tar", first.sha256)));
        assert_eq!(fs::metadata(&first.path).unwrap().len(), first.size);
        let mut archive = tar::Archive::new(File::open(&first.path).unwrap());
        let listing: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                let mode = e.header().mode().unwrap();
                format!("{mode:o} {}", e.path().unwrap().display())
            })
            .collect();
        insta::assert_snapshot!(listing.join("\n"));
    }

    #[test]
    fn a_changed_program_changes_the_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let contents = contents(dir.path());
        let before = contents.fingerprint().unwrap();
        assert_eq!(contents.fingerprint().unwrap(), before);
        fs::write(contents.programs.join("runc"), "another program").unwrap();
        assert_ne!(contents.fingerprint().unwrap(), before);
    }

    #[test]
    fn a_missing_program_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let contents = contents(dir.path());
        fs::remove_file(contents.programs.join("kubelet")).unwrap();
        let error = contents.write(dir.path()).unwrap_err().to_string();
        assert!(error.contains("programs/kubelet"), "{error}");
        assert!(error.contains("k8sm upstream build"), "{error}");
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| {
                let name = e.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with("payload")
            })
            .collect();
        assert!(left.is_empty(), "nothing half written is left");
    }
}
