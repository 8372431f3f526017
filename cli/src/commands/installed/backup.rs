//! `k8sm backup` and `k8sm restore`: an archive of etcd's content and of the keys without which it
//! cannot be read, and a new cluster made of it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use packaging::files::make_dir;
use packaging::install::artifacts::{Entry, FILE, Manifest, VERSION};
use packaging::marathon::Artifact;
use packaging::run::SNAPSHOT_FILE;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::create::{Beginning, Changes, reachable, report, run, tempdir};
use super::{block_on, given_dir, home};
use crate::args::{ArtifactsSource, Backup, Restore};
use crate::artifacts;
use crate::error::Error;
use crate::install::{self, Home, Phase, Record, etcd};
use crate::progress::Progress;
use crate::serving::Server;

/// Version of an archive.
const ARCHIVE_VERSION: u32 = 1;
/// Names in an archive.
const ABOUT: &str = "backup.json";
const SNAPSHOT: &str = "etcd.db";
const KEYS: &str = "pki";
/// Largest file of an archive, the snapshot aside.
const LARGEST_SMALL: u64 = 4 << 20;

/// What an archive is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct About {
    version: u32,
    name: String,
    install: String,
    kubernetes_version: String,
    options: Value,
}

/// `k8sm backup`.
pub fn backup(state_dir: &Path, args: &Backup) -> Result<(), Error> {
    let (home, record) = home(state_dir, &args.which)?;
    let progress = Progress::new(false);
    let step = progress.step("backup");
    let size = block_on(save(&home, &record, args))?;
    step.done(&format!("{} ({} KiB)", args.file.display(), size / 1024));
    progress.note("It holds the cluster's keys: keep it where only administrators read it.");
    Ok(())
}

async fn save(home: &Home, record: &Record, args: &Backup) -> Result<u64, install::Error> {
    let options = record.parsed_options()?;
    let scratch = tempdir()?;
    let snapshot = scratch.0.join(SNAPSHOT);
    let ctl = etcd::Ctl::new(home, &options, &record.choice, args.upstream_dir.as_deref())?;
    ctl.snapshot(&snapshot).await?;
    let about = About {
        version: ARCHIVE_VERSION,
        name: record.name.clone(),
        install: record.id.clone(),
        kubernetes_version: install::render::kubernetes_version(&record.artifacts),
        options: record.options.clone(),
    };
    pack(&args.file, &about, &snapshot, &home.pki())
}

/// Writes the archive; it appears whole, and only its owner may read it.
fn pack(file: &Path, about: &About, snapshot: &Path, keys: &Path) -> Result<u64, install::Error> {
    let mut half = file.as_os_str().to_owned();
    half.push(".part");
    let half = PathBuf::from(half);
    let write = |e| install::Error::io("write", &half)(e);
    let _ = std::fs::remove_file(&half);
    let out = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)
        .map_err(write)?;
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::fast()));
    let packed = (|| {
        let text = json!(about).to_string();
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, ABOUT, text.as_bytes())?;
        archive.append_path_with_name(snapshot, SNAPSHOT)?;
        archive.append_dir_all(KEYS, keys)?;
        let out = archive.into_inner()?.finish()?;
        out.sync_all()?;
        out.metadata().map(|m| m.len())
    })();
    match packed {
        Ok(size) => {
            std::fs::rename(&half, file).map_err(install::Error::io("rename", file))?;
            Ok(size)
        }
        Err(error) => {
            let _ = std::fs::remove_file(&half);
            Err(write(error))
        }
    }
}

/// Takes an archive apart: the snapshot into `dir`, the keys into `keys`.
fn unpack(file: &Path, dir: &Path, keys: &Path) -> Result<About, install::Error> {
    let read = |e| install::Error::io("read", file)(e);
    let damaged = |reason: String| install::Error::Damaged {
        path: file.to_owned(),
        reason,
    };
    make_dir(keys, 0o700)?;
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(file).map_err(read)?));
    let mut about = None;
    let mut whole = false;
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let path = entry.path().map_err(read)?.into_owned();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if path == Path::new(SNAPSHOT) {
            let mut out = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(dir.join(SNAPSHOT))
                .map_err(install::Error::io("write", dir))?;
            std::io::copy(&mut entry, &mut out).map_err(read)?;
            whole = true;
            continue;
        }
        if entry.size() > LARGEST_SMALL {
            return Err(damaged(format!("{} is far too large", path.display())));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(read)?;
        if path == Path::new(ABOUT) {
            let found: About =
                serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
            if found.version > ARCHIVE_VERSION {
                return Err(damaged("it was written by a newer k8sm".to_owned()));
            }
            about = Some(found);
        } else if let Ok(name) = path.strip_prefix(KEYS)
            && name.components().count() == 1
            && let Some(name) = name.file_name()
        {
            // Only plain names, so nothing lands elsewhere.
            packaging::files::write_atomic(&keys.join(name), &bytes, packaging::files::SECRET)?;
        }
    }
    match (about, whole) {
        (Some(about), true) => Ok(about),
        _ => Err(damaged("it is no whole backup of k8sm's".to_owned())),
    }
}

/// `k8sm restore`.
pub fn restore(state_dir: &Path, args: &Restore) -> Result<(), Error> {
    let scratch = tempdir()?;
    let keys = scratch.0.join(KEYS);
    let about = unpack(&args.file, &scratch.0, &keys)?;
    let mut install = args.install.clone();
    let name = install
        .which
        .name
        .clone()
        .unwrap_or_else(|| about.name.clone());
    install.which.name = Some(name.clone());
    let home = Home::new(given_dir(state_dir), &name)?;
    // One that was interrupted goes on.
    let begun = home.read()?;
    if begun.as_ref().is_some_and(|r| r.phase != Phase::Restoring) {
        return Err(install::Error::State(format!(
            "{} is an installation already: a backup becomes a new cluster. Remove that one first, or choose another --name or --state-dir",
            home.dir().display()
        ))
        .into());
    }
    let progress = Progress::new(install.manner.quiet || install.manner.dry_run);
    progress.note(&format!(
        "- a backup of {} ({}), Kubernetes {}",
        about.name, about.install, about.kubernetes_version
    ));
    let mut options = about.options.clone();
    options["service"]["name"] = json!(name);
    // What depends on the place is chosen anew.
    if let Some(etcd) = options["etcd"].as_object_mut() {
        etcd.remove("agents");
    }
    if !install.manner.dry_run && begun.is_none() {
        home.create()?;
        // Only what is the cluster's; certificates for addresses are made anew where they differ.
        for entry in std::fs::read_dir(&keys).map_err(install::Error::io("read", &keys))? {
            let entry = entry.map_err(install::Error::io("read", &keys))?;
            let target = home.pki().join(entry.file_name());
            std::fs::copy(entry.path(), &target).map_err(install::Error::io("write", &target))?;
        }
    }
    let beginning = Beginning {
        snapshot: scratch.0.join(SNAPSHOT),
        options,
    };
    let work = run(
        &home,
        &install,
        Some(&beginning),
        Changes::Refused,
        &progress,
    );
    if let Some(record) = block_on(work)? {
        report(&home, &record, &progress);
    }
    Ok(())
}

/// Serves a snapshot to members of etcd while they begin with it.
pub(super) struct Restoring {
    artifact: Artifact,
    _server: Server,
    _dir: super::create::Scratch,
}

impl Restoring {
    /// Serves it on a free port, at the address at which artifacts are served.
    pub(super) async fn start(
        snapshot: &Path,
        source: &ArtifactsSource,
    ) -> Result<Self, install::Error> {
        let dir = tempdir()?;
        let file = File::open(snapshot).map_err(install::Error::io("read", snapshot))?;
        let (sha256, size) = packaging::image::digest_reader(std::io::BufReader::new(file))
            .map_err(install::Error::io("read", snapshot))?;
        let folder = dir.0.join(&sha256);
        make_dir(&folder, 0o700)?;
        let target = folder.join(SNAPSHOT_FILE);
        std::fs::copy(snapshot, &target).map_err(install::Error::io("write", &target))?;
        let list = Manifest {
            version: VERSION,
            base_url: None,
            files: [(
                SNAPSHOT_FILE.to_owned(),
                Entry {
                    sha256: sha256.clone(),
                    size,
                },
            )]
            .into(),
            components: Default::default(),
        };
        let path = dir.0.join(FILE);
        packaging::files::write_atomic(
            &path,
            json!(list).to_string().as_bytes(),
            packaging::files::SECRET,
        )?;
        let mut listen = source.serve_listen;
        listen.set_port(0);
        let server = artifacts::serve(&dir.0, listen).await?;
        let mut address = source.clone();
        // The port in --serve-address is that of the artifacts.
        address.serve_address = address
            .serve_address
            .map(|a| a.split(':').next().unwrap_or_default().to_owned());
        let base = format!("http://{}", reachable(&address, server.address())?);
        Ok(Self {
            artifact: Artifact {
                uri: list.url(Some(&base), SNAPSHOT_FILE)?,
                sha256,
                size,
            },
            _server: server,
            _dir: dir,
        })
    }

    /// The snapshot as agents fetch it.
    pub(super) fn artifact(&self) -> &Artifact {
        &self.artifact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn about() -> About {
        About {
            version: ARCHIVE_VERSION,
            name: "k".to_owned(),
            install: "i".to_owned(),
            kubernetes_version: "v1.37.1".to_owned(),
            options: json!({"etcd": {"count": 1}}),
        }
    }

    #[test]
    fn a_backup_is_whole_secret_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        make_dir(&keys, 0o700).unwrap();
        std::fs::write(keys.join("ca.key"), "key").unwrap();
        let snapshot = dir.path().join("snapshot");
        std::fs::write(&snapshot, "content").unwrap();
        let file = dir.path().join("backup.tar.gz");
        pack(&file, &about(), &snapshot, &keys).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let out = dir.path().join("out");
        make_dir(&out, 0o700).unwrap();
        let found = unpack(&file, &out, &out.join(KEYS)).unwrap();
        assert_eq!(found, about());
        assert_eq!(
            std::fs::read_to_string(out.join(SNAPSHOT)).unwrap(),
            "content"
        );
        assert_eq!(
            std::fs::read_to_string(out.join("pki/ca.key")).unwrap(),
            "key"
        );
    }

    #[test]
    fn a_truncated_backup_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        make_dir(&keys, 0o700).unwrap();
        let snapshot = dir.path().join("snapshot");
        std::fs::write(&snapshot, vec![7; 100_000]).unwrap();
        let file = dir.path().join("backup.tar.gz");
        pack(&file, &about(), &snapshot, &keys).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        let out = dir.path().join("out");
        make_dir(&out, 0o700).unwrap();
        assert!(unpack(&file, &out, &out.join(KEYS)).is_err());
    }
}
