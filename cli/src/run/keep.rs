//! `k8sm run keep`: brings the artifacts to the directory in which this agent keeps them
//! ([`packaging::install::keep`]), and says over HTTP how far it is. It is killed and started again
//! without harm: a file is in its place only when it is whole, and what is there is not fetched
//! again.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use packaging::files::{Error as FileError, PUBLIC, make_dir, write_atomic};
use packaging::install::artifacts::{FILE, PAYLOAD, SUMS};
use packaging::install::keep::{KEEP_ENV, KEEP_PATH, Keep, Progress};
use packaging::marathon::Artifact;
use rand::Rng as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Error;
use crate::download;
use crate::preflight::facts::space_free;

/// Held by whoever is at work: agents may share a file system.
const LOCK: &str = ".lock";
/// How long one file may take: half a gigabyte on a slow line.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Between two attempts, the first time and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Room that is left on the disk besides the files, bytes.
const SPARE: u64 = 64 << 20;
/// Programs and files are for everybody.
const PROGRAM: u32 = 0o755;

/// Why an attempt failed. All are worth another one.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// A file did not come.
    #[error(transparent)]
    Download(#[from] download::Error),
    /// The directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk is full.
    #[error(
        "{} has {} MiB free, the artifacts want {} MiB: free some; a cluster that is not installed yet may have artifacts.agent_dir on a larger disk",
        dir, free >> 20, wanted >> 20
    )]
    Space {
        /// Where.
        dir: String,
        /// What is free, bytes.
        free: u64,
        /// What is wanted, bytes.
        wanted: u64,
    },
}

/// What is told.
type Board = Arc<Mutex<Progress>>;

/// Keeps, and answers until it is ended.
pub async fn run() -> Result<ExitCode, Error> {
    let (keep, port) = super::told::<Keep>(KEEP_ENV)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let board = Board::default();
    let failed = |source| Error::Listen { port, source };
    let listener = TcpListener::bind(("0.0.0.0", port)).await.map_err(failed)?;
    let router = Router::new()
        .route(KEEP_PATH, get(answer))
        .with_state(board.clone());
    let life = Duration::from_secs(keep.life_seconds);
    tokio::select! {
        served = axum::serve(listener, router) => served.map_err(failed)?,
        () = until_complete(&keep, &board) => {}
        _ = terminate.recv() => {}
        () = tokio::time::sleep(life) => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn answer(State(board): State<Board>) -> Json<Progress> {
    Json(lock(&board).clone())
}

fn lock(board: &Board) -> std::sync::MutexGuard<'_, Progress> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attempts until one succeeds; then waits for ever, so that it can be asked.
async fn until_complete(keep: &Keep, board: &Board) {
    let (mut pause, longest) = PAUSES;
    while let Err(trouble) = attempt(keep, board).await {
        let text = crate::error::chain(&trouble);
        tracing::warn!("not yet: {text}");
        lock(board).trouble = Some(text);
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(longest);
    }
    let mut progress = lock(board).clone();
    progress.complete = true;
    progress.trouble = None;
    tracing::info!("{} keeps {} bytes", keep.dir, progress.total);
    *lock(board) = progress;
    std::future::pending::<()>().await;
}

async fn attempt(keep: &Keep, board: &Board) -> Result<(), Trouble> {
    let dir = Path::new(&keep.dir);
    make_open(dir)?;
    let _lock = only_one(dir).await?;
    // First: it makes room.
    prune(keep, dir)?;
    let sizes = keep.list.files.values().map(|entry| entry.size);
    let missing: Vec<_> = keep
        .list
        .files
        .iter()
        .filter(|(name, entry)| !is_there(&dir.join(&entry.sha256).join(name), entry.size))
        .collect();
    let wanted: u64 = missing.iter().map(|(_, entry)| entry.size).sum();
    {
        let mut progress = lock(board);
        progress.total = sizes.sum();
        progress.done = progress.total - wanted;
    }
    let free = space_free(dir);
    if wanted > 0 && free < wanted + SPARE {
        return Err(Trouble::Space {
            dir: keep.dir.clone(),
            free,
            wanted: wanted + SPARE,
        });
    }
    for (name, entry) in missing {
        let folder = dir.join(&entry.sha256);
        make_dir(&folder, 0o755)?;
        let artifact = Artifact {
            uri: format!("{}/{}/{name}", keep.source, entry.sha256),
            sha256: entry.sha256.clone(),
            size: entry.size,
        };
        let mode = if name == PAYLOAD { PUBLIC } else { PROGRAM };
        let come = |bytes| lock(board).done += bytes;
        download::fetch(&artifact, &folder.join(name), mode, PATIENCE, come).await?;
    }
    let mut list = serde_json::to_vec_pretty(&keep.list).unwrap_or_default();
    list.push(b'\n');
    write_atomic(&dir.join(SUMS), keep.list.sums().as_bytes(), PUBLIC)?;
    Ok(write_atomic(&dir.join(FILE), &list, PUBLIC)?)
}

/// Makes a directory that everybody may read, whatever this process' mask: apps fetch as their own
/// user. What is there already stays as it is.
fn make_open(dir: &Path) -> Result<(), FileError> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|d| !d.exists()).collect();
    for dir in missing.into_iter().rev() {
        make_dir(dir, 0o755)?;
    }
    Ok(())
}

/// Waits until nobody else is at work on the directory.
async fn only_one(dir: &Path) -> Result<std::fs::File, Trouble> {
    let path = dir.join(LOCK);
    let locked = tokio::task::spawn_blocking(move || {
        let attempt = || -> io::Result<std::fs::File> {
            let file = std::fs::File::create(&path)?;
            file.lock()?;
            Ok(file)
        };
        attempt().map_err(|source| FileError::Write { path, source })
    });
    let locked = locked.await.map_err(|e| FileError::Write {
        path: dir.to_owned(),
        source: io::Error::other(e),
    })?;
    Ok(locked?)
}

/// Whether a file is in its place, where nothing comes that is not whole. That it still has the
/// content that was meant is seen by whoever runs it.
fn is_there(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == size)
}

/// Removes artifacts that nobody refers to any more, and what is left of interrupted attempts.
fn prune(keep: &Keep, dir: &Path) -> Result<(), Trouble> {
    let wanted: BTreeSet<&str> = keep
        .list
        .files
        .values()
        .map(|entry| entry.sha256.as_str())
        .chain(keep.also.iter().map(String::as_str))
        .collect();
    for name in names(dir)? {
        let path = dir.join(&name);
        let is_digest = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_digest {
            continue;
        }
        let write = |source| FileError::Write {
            path: path.clone(),
            source,
        };
        if !wanted.contains(name.as_str()) {
            std::fs::remove_dir_all(&path).map_err(write)?;
            continue;
        }
        for part in names(&path)?.iter().filter(|n| n.ends_with(".part")) {
            std::fs::remove_file(path.join(part)).map_err(write)?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, FileError> {
    let read = |source| FileError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(dir).map_err(read)?;
    entries
        .map(|entry| {
            Ok(entry
                .map_err(read)?
                .file_name()
                .to_string_lossy()
                .into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use packaging::install::artifacts::{Entry, Manifest, VERSION};
    use packaging::install::keep::digests;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::upstream::cache::hex;

    /// An artifacts directory with these files, served.
    fn source(files: &[(&str, &str)]) -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        let mut list = Manifest {
            version: VERSION,
            base_url: None,
            files: Default::default(),
            components: Default::default(),
        };
        for (name, content) in files {
            let sha256 = hex(&Sha256::digest(content));
            std::fs::create_dir_all(dir.path().join(&sha256)).unwrap();
            std::fs::write(dir.path().join(&sha256).join(name), content).unwrap();
            let size = content.len() as u64;
            list.files
                .insert((*name).to_owned(), Entry { sha256, size });
        }
        let bytes = serde_json::to_vec(&list).unwrap();
        std::fs::write(dir.path().join(FILE), bytes).unwrap();
        (dir, list)
    }

    async fn serve(dir: &Path) -> (String, crate::serving::Server) {
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = crate::artifacts::serve(dir, listen).await.unwrap();
        (format!("http://{}/", server.address()), server)
    }

    #[tokio::test]
    async fn everything_comes_once_and_what_nobody_refers_to_goes() {
        let kept = tempfile::tempdir().unwrap();
        let dir = kept.path().display().to_string();
        let board = Board::default();
        let (old, first) = source(&[("k8sm", "old"), ("payload.tar", "same")]);
        let (url, server) = serve(old.path()).await;
        let keep = Keep::new(&dir, &url, &first, BTreeSet::new());
        attempt(&keep, &board).await.unwrap();
        let progress = lock(&board).clone();
        assert_eq!((progress.done, progress.total), (7, 7));
        let path = |list: &Manifest, name: &str| kept.path().join(list.path(name).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path(&first, "k8sm")), 0o755);
        assert_eq!(mode(&path(&first, "payload.tar")), 0o644);
        // A second time nobody is asked.
        drop(server);
        attempt(&keep, &board).await.unwrap();

        let (new, second) = source(&[("k8sm", "new"), ("payload.tar", "same")]);
        let (url, _server) = serve(new.path()).await;
        let half = path(&first, "payload.tar").with_file_name("payload.tar.7.part");
        std::fs::write(&half, "sa").unwrap();
        let beside = Keep::new(&dir, &url, &second, digests(&first).collect());
        attempt(&beside, &board).await.unwrap();
        assert!(path(&first, "k8sm").exists(), "the way back");
        assert!(path(&second, "k8sm").exists() && !half.exists());
        attempt(&Keep::new(&dir, &url, &second, BTreeSet::new()), &board)
            .await
            .unwrap();
        assert!(!path(&first, "k8sm").exists());
        let list = std::fs::read(kept.path().join(FILE)).unwrap();
        assert_eq!(Manifest::parse(&list).unwrap(), second);
    }

    #[tokio::test]
    async fn a_disk_without_room_and_a_damaged_artifact_are_told_and_leave_no_list() {
        let kept = tempfile::tempdir().unwrap();
        let dir = kept.path().display().to_string();
        let (files, mut list) = source(&[("k8sm", "content")]);
        let (url, _server) = serve(files.path()).await;
        let board = Board::default();
        list.files.get_mut("k8sm").unwrap().size = 1 << 60;
        let keep = Keep::new(&dir, &url, &list, BTreeSet::new());
        let trouble = attempt(&keep, &board).await.unwrap_err().to_string();
        assert!(trouble.contains("artifacts.agent_dir"), "{trouble}");
        list.files.get_mut("k8sm").unwrap().size = 8;
        let keep = Keep::new(&dir, &url, &list, BTreeSet::new());
        let trouble = attempt(&keep, &board).await.unwrap_err().to_string();
        assert!(trouble.contains("7 of 8 bytes"), "{trouble}");
        assert!(!kept.path().join(FILE).exists());
    }
}
