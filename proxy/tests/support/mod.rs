//! An API server's stand-in: TLS with a certificate of an authority of its own, `/readyz` that can
//! be switched, objects in memory, watches, and an echo for everything else. And a front door
//! before it, on ports of its own.

#![allow(dead_code, reason = "each test binary uses its part")]

mod api_server;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use proxy::config::Args;
use proxy::run::{Addresses, FrontDoor};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

pub use api_server::ApiServer;

/// The name in every API server's certificate.
pub const NAME: &str = "kubernetes.default.svc";
/// Only bounds a failure.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub type Body = BoxBody<Bytes, Infallible>;

/// A certificate authority and its file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    pub dir: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let authority = Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            dir,
        };
        std::fs::write(authority.ca_file(), &authority.pem).unwrap();
        std::fs::write(authority.token_file(), "limited\n").unwrap();
        authority
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// An API server's certificate, key and public key as PEM.
    pub fn server_pem(&self) -> [String; 3] {
        let (certificate, key) = self.issue();
        [certificate.pem(), key.serialize_pem(), key.public_key_pem()]
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(
            ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }
}

/// A front door; ends when dropped.
pub struct Door {
    pub at: Addresses,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Door {
    /// With every side, before these servers.
    pub async fn open(authority: &Authority, servers: &[&ApiServer], more: &[&str]) -> Self {
        let list = authority.dir.path().join("servers");
        write_list(&list, servers);
        let mut args: Vec<String> = [
            "k8sm-proxy",
            "--listen=127.0.0.1:0",
            "--http-listen=127.0.0.1:0",
            "--legacy-listen=127.0.0.1:0",
            "--status-listen=127.0.0.1:0",
            "--probe-interval-ms=50",
            "--drain-seconds=1",
        ]
        .map(str::to_owned)
        .into();
        args.push(format!("--backends-file={}", list.display()));
        args.push(format!("--ca-file={}", authority.ca_file().display()));
        args.push(format!(
            "--legacy-token-file={}",
            authority.token_file().display()
        ));
        args.extend(more.iter().map(|a| (*a).to_owned()));
        let config = Args::try_parse_from(args).unwrap().check().unwrap();
        let door = FrontDoor::open(config).await.unwrap();
        let (at, stop) = (door.addresses(), CancellationToken::new());
        let task = tokio::spawn(door.serve(stop.clone()));
        Self {
            at,
            stop,
            task: Some(task),
        }
    }

    /// Asks it to end and waits until it has.
    pub async fn close(mut self) {
        self.stop.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
    }

    pub fn ask_to_end(&self) {
        self.stop.cancel();
    }

    /// Waits until that many servers are ready.
    pub async fn wait_ready(&self, count: usize) {
        let address = self.at.status.unwrap();
        wait(&format!("{count} servers are ready"), async || {
            let (_, text) = get(connect(address).await, "/readyz").await;
            text.lines().filter(|l| l.starts_with("[+]")).count() == count
        })
        .await;
    }

    pub async fn metrics(&self) -> String {
        get(connect(self.at.status.unwrap()).await, "/metrics")
            .await
            .1
    }
}

pub fn write_list(path: &Path, servers: &[&ApiServer]) {
    let text: String = servers.iter().map(|s| format!("{}\n", s.address)).collect();
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// Waits for a condition; the deadline only bounds a failure.
pub async fn wait(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

/// A plain connection.
pub async fn connect(address: SocketAddr) -> SendRequest<Body> {
    speak(TcpStream::connect(address).await.unwrap()).await
}

/// A TLS connection whose server must have our authority's certificate.
pub async fn connect_tls(authority: &Authority, address: SocketAddr) -> SendRequest<Body> {
    try_connect_tls(authority, address).await.unwrap()
}

pub async fn try_connect_tls(
    authority: &Authority,
    address: SocketAddr,
) -> std::io::Result<SendRequest<Body>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME).unwrap();
    let stream = TlsConnector::from(authority.client())
        .connect(name, stream)
        .await?;
    Ok(speak(stream).await)
}

async fn speak<S>(stream: S) -> SendRequest<Body>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    sender
}

/// A request with headers and a body.
pub fn request(
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::from(body.to_owned())).boxed())
        .unwrap()
}

/// An answer with its whole body.
pub async fn send(mut sender: SendRequest<Body>, request: Request<Body>) -> (StatusCode, String) {
    let asked = async {
        let answer = sender.send_request(request).await.unwrap();
        let code = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap()
}

pub async fn get(sender: SendRequest<Body>, target: &str) -> (StatusCode, String) {
    send(sender, request(Method::GET, target, &[], "")).await
}

/// The next line of a body that goes on.
pub async fn next_line(body: &mut Incoming) -> String {
    let frame = tokio::time::timeout(DEADLINE, body.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}
