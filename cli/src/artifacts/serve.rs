//! Serves an artifacts directory over HTTP: exactly the files of its list, nothing else, and no
//! listing of directories.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use packaging::install::artifacts::{FILE, Manifest};
use tokio::net::TcpListener;
use tokio_util::io::ReaderStream;

use super::Error;
use crate::serving::Server;

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    manifest: Manifest,
}

/// Serves a directory; the list is read once. Must be called on a tokio runtime.
pub async fn serve(dir: &Path, listen: SocketAddr) -> Result<Server, Error> {
    let router = router(dir)?;
    let failed = |source| Error::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    Server::on(listener, router, "the artifacts").map_err(failed)
}

/// What serves a directory; the list is read once.
pub fn router(dir: &Path) -> Result<Router, Error> {
    let files = Arc::new(Files {
        dir: dir.to_owned(),
        manifest: super::manifest(dir)?,
    });
    Ok(Router::new()
        .route("/artifacts.json", get(list))
        .route("/{digest}/{name}", get(file))
        .with_state(files))
}

async fn list(State(files): State<Arc<Files>>) -> Response {
    match tokio::fs::read(files.dir.join(FILE)).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn file(
    State(files): State<Arc<Files>>,
    UrlPath((digest, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let known = files.manifest.files.get(&name);
    let Some(entry) = known.filter(|entry| entry.sha256 == digest) else {
        return (StatusCode::NOT_FOUND, "no such artifact\n").into_response();
    };
    let etag = format!("\"{digest}\"");
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|v| v == etag.as_str())
    {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let path = files.dir.join(&digest).join(&name);
    let opened = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) => {
            tracing::error!("open {}: {error}", path.display());
            return (StatusCode::NOT_FOUND, "the artifact is gone\n").into_response();
        }
    };
    let body = Body::from_stream(ReaderStream::with_capacity(opened, 1 << 18));
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, entry.size.to_string()),
        (header::ETAG, etag),
        (
            header::CACHE_CONTROL,
            "public, max-age=31536000, immutable".to_owned(),
        ),
    ];
    (head, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn only_listed_files_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let digest = "a".repeat(64);
        std::fs::create_dir(dir.path().join(&digest)).unwrap();
        std::fs::write(dir.path().join(&digest).join("etcd"), "abc").unwrap();
        std::fs::write(dir.path().join("secret"), "no").unwrap();
        let list = serde_json::json!({
            "version": 1, "components": {}, "files": {"etcd": {"sha256": digest, "size": 3}},
        });
        std::fs::write(dir.path().join(FILE), list.to_string()).unwrap();
        let server = serve(dir.path(), ([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = crate::http::client(None, Duration::from_secs(10)).unwrap();
        let get = |path: String| {
            let url = format!("http://{}/{path}", server.address());
            let client = client.clone();
            async move {
                let answer = client.get(url).send().await.unwrap();
                (answer.status().as_u16(), answer.text().await.unwrap())
            }
        };
        assert_eq!(get(format!("{digest}/etcd")).await, (200, "abc".to_owned()));
        assert_eq!(get(format!("{digest}/other")).await.0, 404);
        assert_eq!(get(format!("{}/etcd", "b".repeat(64))).await.0, 404);
        assert_eq!(get(format!("{digest}/..%2f..%2fsecret")).await.0, 404);
        assert_eq!(get("secret".to_owned()).await.0, 404);
        assert_eq!(get("artifacts.json".to_owned()).await.0, 200);
    }
}
