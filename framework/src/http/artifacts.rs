//! Files that agents and executors fetch, by digest.

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use packaging::install::artifacts::{FILE, Manifest};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::App;
use super::range::{self, Slice};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// A file that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it lies.
    path: PathBuf,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its name in the URL.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    modified: SystemTime,
}

impl Artifact {
    /// Its URL on a server, for instance `http://10.0.0.1:31000`.
    pub fn url(&self, base: &str) -> String {
        format!(
            "{}/artifacts/{}/{}",
            base.trim_end_matches('/'),
            self.sha256,
            self.name
        )
    }
}

/// A file that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// It cannot be read.
    #[error("serve {}: {source}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// A directory without a list that can be read.
    #[error("serve the artifacts of {}: {reason}", path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Its name does not go into a URL as it is.
    #[error("serve {}: the file's name may have letters, digits, `.`, `-`, `_` and `+` only", path.display())]
    Name {
        /// Its path.
        path: PathBuf,
    },
}

/// The files that are served.
#[derive(Debug, Clone, Default)]
pub struct Artifacts {
    files: Arc<RwLock<BTreeMap<String, Arc<Artifact>>>>,
    /// The list of a whole directory.
    list: Arc<OnceLock<Vec<u8>>>,
}

impl Artifacts {
    /// Reads the file for its digest and serves it from now on.
    pub async fn add(&self, path: &Path) -> Result<Arc<Artifact>, ArtifactError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name
            .filter(|n| n.bytes().all(plain))
            .ok_or_else(|| ArtifactError::Name {
                path: path.to_owned(),
            })?;
        let (sha256, size, modified) =
            digest(path).await.map_err(|source| ArtifactError::Read {
                path: path.to_owned(),
                source,
            })?;
        let artifact = Arc::new(Artifact {
            path: path.to_owned(),
            sha256: sha256.clone(),
            name: name.to_owned(),
            size,
            modified,
        });
        self.insert(artifact.clone());
        Ok(artifact)
    }

    /// Serves all files of a directory, and its list, from now on. Whoever made the directory has
    /// checked their digests: they are in the paths. A file that is missing is left out, and said.
    pub async fn add_all(&self, dir: &Path) -> Result<(), ArtifactError> {
        let path = dir.join(FILE);
        let bad = |reason: String| ArtifactError::List {
            path: path.clone(),
            reason,
        };
        let bytes = tokio::fs::read(&path).await;
        let bytes = bytes.map_err(|e| bad(e.to_string()))?;
        let list = Manifest::parse(&bytes).map_err(|e| bad(e.to_string()))?;
        for (name, entry) in &list.files {
            let path = dir.join(&entry.sha256).join(name);
            let seen = tokio::fs::metadata(&path).await;
            match seen.and_then(|m| Ok((m.len(), m.modified()?))) {
                Ok((size, modified)) if size == entry.size => self.insert(Arc::new(Artifact {
                    path,
                    sha256: entry.sha256.clone(),
                    name: name.clone(),
                    size,
                    modified,
                })),
                Ok((size, _)) => {
                    let wanted = entry.size;
                    tracing::warn!(path = %path.display(), size, wanted, "an artifact is damaged and not served");
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "an artifact is missing and not served");
                }
            }
        }
        // The first one's, should there be two.
        let _ = self.list.set(bytes);
        Ok(())
    }

    fn insert(&self, artifact: Arc<Artifact>) {
        let mut files = self
            .files
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        files.insert(artifact.sha256.clone(), artifact);
    }

    fn get(&self, digest: &str, name: &str) -> Option<Arc<Artifact>> {
        let files = self
            .files
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        files.get(digest).filter(|a| a.name == name).cloned()
    }
}

async fn digest(path: &Path) -> std::io::Result<(String, u64, SystemTime)> {
    let mut file = File::open(path).await?;
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 16 * CHUNK];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
    let hex = hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok((hex, size, metadata.modified()?))
}

/// `GET /artifacts/artifacts.json`.
pub(super) async fn list(State(app): State<App>) -> Response {
    match app.artifacts.list.get() {
        Some(bytes) => {
            ([(header::CONTENT_TYPE, "application/json")], bytes.clone()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "the artifacts are elsewhere\n").into_response(),
    }
}

/// `GET` and `HEAD /artifacts/<sha256>/<name>`.
pub(super) async fn serve(
    State(app): State<App>,
    UrlPath((digest, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(artifact) = app.artifacts.get(&digest, &name) else {
        return (StatusCode::NOT_FOUND, "no such artifact\n").into_response();
    };
    let etag = format!("\"{}\"", artifact.sha256);
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let matches_etag = |list: &str| {
        list.split(',').any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.trim_start_matches("W/") == etag
        })
    };
    if header(header::IF_NONE_MATCH).is_some_and(matches_etag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    // A range of another version than the client has begun with would be of no use to it.
    let same_version = header(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let slice = match header(header::RANGE).filter(|_| same_version) {
        Some(range) => range::parse(range, artifact.size),
        None => Slice::Whole,
    };
    let (code, first, length) = match slice {
        Slice::Whole => (StatusCode::OK, 0, artifact.size),
        Slice::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Slice::Unsatisfiable => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{}", artifact.size))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, all).into_response();
        }
    };
    let file = match open(&artifact, first).await {
        Ok(file) => file,
        Err(error) => {
            tracing::error!(path = %artifact.path.display(), %error, "an artifact cannot be served any more");
            let text = format!("{}: {error}\n", artifact.name);
            return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        }
    };
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK));
    let mut response = Response::builder()
        .status(code)
        .header(header::ETAG, etag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        // The digest in the URL makes it the same for ever.
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(header::CONTENT_LENGTH, length);
    if code == StatusCode::PARTIAL_CONTENT {
        let last = first + length - 1;
        response = response.header(
            header::CONTENT_RANGE,
            format!("bytes {first}-{last}/{}", artifact.size),
        );
    }
    response.body(body).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be built");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

async fn open(artifact: &Artifact, first: u64) -> std::io::Result<File> {
    let mut file = File::open(&artifact.path).await?;
    let metadata = file.metadata().await?;
    if metadata.len() != artifact.size || metadata.modified()? != artifact.modified {
        return Err(std::io::Error::other(
            "the file was changed after its digest was taken",
        ));
    }
    file.seek(SeekFrom::Start(first)).await?;
    Ok(file)
}
