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
    /// It lies below a digest that is not its own.
    #[error("serve {}: it has the SHA-256 {found}: it is damaged; remove it, and `k8sm upgrade --serve` brings it again", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// Its digest.
        found: String,
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
    /// A whole directory.
    dir: Arc<OnceLock<PathBuf>>,
}

impl Artifacts {
    /// Reads the file for its digest and serves it from now on.
    pub async fn add(&self, path: &Path) -> Result<Arc<Artifact>, ArtifactError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name
            .filter(|name| is_plain(name))
            .ok_or_else(|| ArtifactError::Name {
                path: path.to_owned(),
            })?;
        let (sha256, size, modified) =
            digest(path).await.map_err(|source| ArtifactError::Read {
                path: path.to_owned(),
                source,
            })?;
        // Artifacts lie below their digests.
        let folder = path.parent().and_then(Path::file_name);
        let folder = folder.and_then(|f| f.to_str()).filter(|f| is_digest(f));
        if folder.is_some_and(|folder| folder != sha256) {
            return Err(ArtifactError::Damaged {
                path: path.to_owned(),
                found: sha256,
            });
        }
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

    /// Serves a directory of artifacts, `<sha256>/<name>`, from now on, whatever comes there and
    /// goes. Whoever puts files there has checked their digests.
    pub fn add_directory(&self, dir: &Path) {
        // The first one stays, should there be two.
        let _ = self.dir.set(dir.to_owned());
    }

    /// A file of the directory.
    async fn find(&self, digest: &str, name: &str) -> Option<Arc<Artifact>> {
        // What is still on its way has another name.
        if !is_digest(digest) || !is_plain(name) || name.starts_with('.') || name.ends_with(".part")
        {
            return None;
        }
        let path = self.dir.get()?.join(digest).join(name);
        let metadata = tokio::fs::symlink_metadata(&path).await.ok()?;
        let modified = metadata.modified().ok()?;
        metadata.is_file().then(|| {
            Arc::new(Artifact {
                path,
                sha256: digest.to_owned(),
                name: name.to_owned(),
                size: metadata.len(),
                modified,
            })
        })
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

/// Whether a name is a SHA-256.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a name goes into a URL as it is.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    name.bytes().all(plain)
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

/// `GET` and `HEAD /artifacts/<sha256>/<name>`.
pub(super) async fn serve(
    State(app): State<App>,
    UrlPath((digest, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    // What is in the directory may have been mended since it was added.
    let found = match app.artifacts.find(&digest, &name).await {
        None => app.artifacts.get(&digest, &name),
        some => some,
    };
    let Some(artifact) = found else {
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
