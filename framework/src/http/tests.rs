//! The server over a real socket.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::artifacts::{Artifact, Artifacts};
use super::server::{Limits, bind, run};
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

struct Server {
    address: std::net::SocketAddr,
    artifacts: Artifacts,
    status: watch::Sender<Arc<Status>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, latest) = watch::channel(Arc::new(Status::default()));
        let artifacts = Artifacts::default();
        let app = App {
            metrics: Arc::new(Metrics::new()),
            status: latest,
            artifacts: artifacts.clone(),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(listener, router(app), limits, stop.clone()));
        Self {
            address,
            artifacts,
            status,
            stop,
            task,
        }
    }

    /// One request on a connection of its own; the whole answer.
    async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn file(artifacts: &Artifacts, directory: &Path, content: &[u8]) -> Arc<Artifact> {
    let path = directory.join("payload.tar");
    std::fs::write(&path, content).unwrap();
    artifacts.add(&path).await.unwrap()
}

fn path_of(artifact: &Artifact) -> String {
    artifact.url("")
}

#[tokio::test]
async fn a_directory_that_agents_keep_is_served_as_it_is_at_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let digest = "a".repeat(64);
    let server = Server::start(Limits::default()).await;
    let path = format!("/artifacts/{digest}/etcd");
    assert!(server.get(&path, "").await.starts_with("HTTP/1.1 404"));
    server.artifacts.add_directory(dir.path());
    assert!(server.get(&path, "").await.starts_with("HTTP/1.1 404"));
    let folder = dir.path().join(&digest);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("etcd"), "program").unwrap();
    let answer = server.get(&path, "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("program"),
        "{answer}"
    );
    // It was damaged and brought again.
    let error = server
        .artifacts
        .add(&folder.join("etcd"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("k8sm upgrade --serve"),
        "{error}"
    );
    std::fs::write(folder.join("etcd"), "PROGRAM").unwrap();
    assert!(server.get(&path, "").await.ends_with("PROGRAM"));
    // Not what is on its way, not what is elsewhere, and nothing but files.
    std::fs::write(folder.join("etcd.7.part"), "pro").unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), folder.join("link")).unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    for name in ["etcd.7.part", "..%2fsecret", "link", "folder", ".."] {
        let answer = server.get(&format!("/artifacts/{digest}/{name}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{name}: {answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn health_turns_bad_only_when_the_loop_hangs() {
    let server = Server::start(Limits::default()).await;
    assert!(server.get("/healthz", "").await.starts_with("HTTP/1.1 200"));
    server.status.send_replace(Arc::new(Status {
        role: status::Role::Leader,
        beat: Some(Instant::now()),
        ..Status::default()
    }));
    let answer = server.get("/v1/health", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"role\":\"leader\""),
        "{answer}"
    );
    let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(61)) else {
        return; // The machine has just booted.
    };
    server.status.send_replace(Arc::new(Status {
        beat: Some(long_ago),
        ..Status::default()
    }));
    let answer = server.get("/healthz", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("has not moved for 61 s"),
        "{answer}"
    );
    server.end().await;
}

#[tokio::test]
async fn dcos_is_told_the_frameworks_id_and_when_it_is_up() {
    let server = Server::start(Limits::default()).await;
    let answer = server.get("/v1/plans/deploy", "").await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert!(
        server
            .get("/v1/state/frameworkId", "")
            .await
            .ends_with("[]")
    );
    server.status.send_replace(Arc::new(Status {
        framework_id: Some("f-1".to_owned()),
        connected: true,
        recovered: true,
        ..Status::default()
    }));
    let answer = server.get("/v1/plans/deploy", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("COMPLETE"),
        "{answer}"
    );
    let answer = server.get("/v1/state/frameworkId", "").await;
    assert!(answer.ends_with("[\"f-1\"]"), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn metrics_are_served_as_openmetrics() {
    let server = Server::start(Limits::default()).await;
    let answer = server.get("/metrics", "").await;
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    assert!(answer.trim_end().ends_with("# EOF"), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn an_artifact_is_served_whole_in_parts_and_not_at_all_when_it_is_known() {
    let server = Server::start(Limits::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let artifact = file(&server.artifacts, directory.path(), b"0123456789").await;
    let path = path_of(&artifact);
    assert_eq!(
        artifact.sha256,
        "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    );

    let whole = server.get(&path, "").await;
    assert!(
        whole.starts_with("HTTP/1.1 200") && whole.ends_with("\r\n\r\n0123456789"),
        "{whole}"
    );
    assert!(whole.contains("content-length: 10"), "{whole}");

    let part = server.get(&path, "Range: bytes=3-5\r\n").await;
    assert!(
        part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n345"),
        "{part}"
    );
    assert!(part.contains("content-range: bytes 3-5/10"), "{part}");

    let beyond = server.get(&path, "Range: bytes=10-\r\n").await;
    assert!(
        beyond.starts_with("HTTP/1.1 416") && beyond.contains("bytes */10"),
        "{beyond}"
    );

    let etag = format!("If-None-Match: \"{}\"\r\n", artifact.sha256);
    assert!(server.get(&path, &etag).await.starts_with("HTTP/1.1 304"));
    let stale = server
        .get(&path, "Range: bytes=3-5\r\nIf-Range: \"other\"\r\n")
        .await;
    assert!(
        stale.starts_with("HTTP/1.1 200") && stale.ends_with("0123456789"),
        "{stale}"
    );
    server.end().await;
}

#[tokio::test]
async fn what_is_not_registered_or_has_changed_is_not_served() {
    let server = Server::start(Limits::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let artifact = file(&server.artifacts, directory.path(), b"first").await;
    let path = path_of(&artifact);
    for wrong in [
        path.replace("payload", "other"),
        format!("/artifacts/{}/payload.tar", "0".repeat(64)),
        format!("/artifacts/{}/..%2f..%2fetc%2fpasswd", artifact.sha256),
        "/artifacts".to_owned(),
    ] {
        assert!(
            server.get(&wrong, "").await.starts_with("HTTP/1.1 404"),
            "{wrong}"
        );
    }
    std::fs::write(directory.path().join("payload.tar"), "second").unwrap();
    let answer = server.get(&path, "").await;
    assert!(
        answer.starts_with("HTTP/1.1 500") && answer.contains("was changed"),
        "{answer}"
    );
    server.end().await;
}

#[tokio::test]
async fn connections_are_bounded_and_silent_ones_end() {
    let limits = Limits {
        connections: 2,
        head: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HT").await.unwrap();
        silent.push(stream);
    }
    // Waits for a slot, and gets one when the silent ones have run out of time.
    assert!(server.get("/healthz", "").await.starts_with("HTTP/1.1 200"));
    for mut stream in silent {
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
    }
    server.end().await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_loses_its_connection() {
    let limits = Limits {
        connections: 1,
        stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let directory = tempfile::tempdir().unwrap();
    // More than the kernel's buffers take.
    let artifact = file(&server.artifacts, directory.path(), &vec![7; 64 << 20]).await;
    let mut lazy = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path_of(&artifact));
    lazy.write_all(request.as_bytes()).await.unwrap();
    // The only slot is free again although `lazy` has not closed.
    assert!(server.get("/healthz", "").await.starts_with("HTTP/1.1 200"));
    drop(lazy);
    server.end().await;
}
