//! Brings one artifact to a file: loaded over HTTP or copied from this machine, checked against
//! its size and its SHA-256 while it comes, and in its place only when it is whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use packaging::files::Error as FileError;
use packaging::marathon::Artifact;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::upstream::cache::hex;

/// How long a server may take to begin its answer, and be silent in the midst of it.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes that are copied at once.
const PIECE: usize = 1 << 18;

/// Why it did not come. All of it may be better a moment later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From where it should come.
    #[error("fetch {uri}: {reason}")]
    Source {
        /// From where, without a password.
        uri: String,
        /// Why not.
        reason: String,
    },
    /// Where it should go.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Where the bytes come from.
enum Input {
    Answer(reqwest::Response),
    File(tokio::fs::File),
}

/// Brings `artifact` to `path`, whose directory exists, within `patience`. `on_bytes` hears how many
/// have come with each piece.
///
/// # Errors
///
/// Whatever was wrong; nothing is at `path` then that was not there before.
pub async fn fetch(
    artifact: &Artifact,
    path: &Path,
    mode: u32,
    patience: Duration,
    mut on_bytes: impl FnMut(u64),
) -> Result<(), Error> {
    let half = half(path);
    let fetched = tokio::time::timeout(patience, write(artifact, &half, mode, &mut on_bytes)).await;
    let fetched = fetched.unwrap_or_else(|_| {
        Err(failed(
            artifact,
            format!("it has not come within {} s", patience.as_secs()),
        ))
    });
    if fetched.is_err() {
        let _ = tokio::fs::remove_file(&half).await;
        return fetched;
    }
    let renamed = tokio::fs::rename(&half, path).await;
    Ok(renamed.map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })?)
}

/// The name of a file that is not whole yet: another one for each process.
fn half(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

fn failed(artifact: &Artifact, reason: String) -> Error {
    Error::Source {
        uri: crate::instance::without_password(&artifact.uri),
        reason,
    }
}

async fn write(
    artifact: &Artifact,
    half: &Path,
    mode: u32,
    on_bytes: &mut impl FnMut(u64),
) -> Result<(), Error> {
    let no_write = |source| FileError::Write {
        path: half.to_owned(),
        source,
    };
    let failed = |reason| failed(artifact, reason);
    let mut input = open(artifact).await?;
    // What a killed predecessor of the same pid left may be somebody else's by now.
    let _ = tokio::fs::remove_file(half).await;
    let mut file = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(half)
        .await
        .map_err(no_write)?;
    let (mut digest, mut size) = (Sha256::new(), 0);
    while let Some(bytes) = piece(&mut input).await.map_err(failed)? {
        let come = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        size += come;
        if size > artifact.size {
            return Err(failed(format!("it has more than {} bytes", artifact.size)));
        }
        digest.update(&bytes);
        file.write_all(&bytes).await.map_err(no_write)?;
        on_bytes(come);
    }
    if size < artifact.size {
        let wanted = artifact.size;
        return Err(failed(format!("it ended after {size} of {wanted} bytes")));
    }
    let found = hex(&digest.finalize());
    if found != artifact.sha256 {
        let wanted = &artifact.sha256;
        return Err(failed(format!(
            "it has the SHA-256 {found}, where {wanted} is wanted"
        )));
    }
    // The mask of this process may be narrower than what others need.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    file.set_permissions(mode).await.map_err(no_write)?;
    Ok(file.sync_all().await.map_err(no_write)?)
}

async fn open(artifact: &Artifact) -> Result<Input, Error> {
    let failed = |reason| failed(artifact, reason);
    let uri = &artifact.uri;
    let local = uri
        .strip_prefix("file://")
        .or_else(|| uri.starts_with('/').then_some(uri));
    if let Some(path) = local {
        let file = tokio::fs::File::open(path).await;
        return Ok(Input::File(file.map_err(|e| failed(e.to_string()))?));
    }
    let https = uri.starts_with("https:");
    // The whole time is the caller's.
    let client = crate::http::public_client(None, https, Duration::from_secs(24 * 3600))
        .map_err(|e| failed(crate::error::chain(&e)))?;
    let wrong = |e: reqwest::Error| failed(crate::error::chain(&e.without_url()));
    let answer = tokio::time::timeout(SILENCE, client.get(uri).send()).await;
    let answer = answer.map_err(|_| failed(silent()))?.map_err(wrong)?;
    Ok(Input::Answer(answer.error_for_status().map_err(wrong)?))
}

fn silent() -> String {
    format!("nothing came for {} s", SILENCE.as_secs())
}

async fn piece(input: &mut Input) -> Result<Option<axum::body::Bytes>, String> {
    match input {
        Input::Answer(answer) => {
            let next = tokio::time::timeout(SILENCE, answer.chunk()).await;
            next.map_err(|_| silent())?
                .map_err(|e| crate::error::chain(&e.without_url()))
        }
        Input::File(file) => {
            let mut bytes = Vec::with_capacity(PIECE);
            let read = file.read_buf(&mut bytes).await.map_err(|e| e.to_string())?;
            Ok((read > 0).then(|| bytes.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CONTENT: &str = "#!/bin/sh\n";
    const PATIENCE: Duration = Duration::from_secs(20);

    fn artifact(uri: String) -> Artifact {
        Artifact {
            uri,
            sha256: hex(&Sha256::digest(CONTENT)),
            size: CONTENT.len() as u64,
        }
    }

    async fn served() -> (Artifact, crate::serving::Server) {
        let router = axum::Router::new().route("/p", axum::routing::get(|| async { CONTENT }));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.unwrap();
        let uri = format!("http://{}/p", listener.local_addr().unwrap());
        let server = crate::serving::Server::on(listener, router, "artifacts").unwrap();
        (artifact(uri), server)
    }

    #[tokio::test]
    async fn a_file_comes_whole_with_its_mode_and_says_how_far_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (remote, _server) = served().await;
        let path = dir.path().join("program");
        let mut come = 0;
        fetch(&remote, &path, 0o755, PATIENCE, |n| come += n)
            .await
            .unwrap();
        assert_eq!(come, remote.size);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), CONTENT);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let copy = dir.path().join("copy");
        let local = artifact(format!("file://{}", path.display()));
        fetch(&local, &copy, 0o644, PATIENCE, |_| ()).await.unwrap();
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), CONTENT);
    }

    #[tokio::test]
    async fn what_is_not_what_was_meant_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (good, _server) = served().await;
        let path = dir.path().join("program");
        for (wrong, why) in [
            (
                Artifact {
                    size: good.size - 1,
                    ..good.clone()
                },
                "more than 9 bytes",
            ),
            (
                Artifact {
                    size: good.size + 1,
                    ..good.clone()
                },
                "ended after 10 of 11 bytes",
            ),
            (
                Artifact {
                    sha256: "0".repeat(64),
                    ..good.clone()
                },
                "SHA-256",
            ),
            (
                Artifact {
                    uri: format!("{}/none", good.uri),
                    ..good.clone()
                },
                "404",
            ),
            (artifact("file:///no/such/file".to_owned()), "No such file"),
        ] {
            let error = fetch(&wrong, &path, 0o755, PATIENCE, |_| ()).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
