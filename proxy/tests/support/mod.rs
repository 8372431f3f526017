//! An API server's stand-in: TLS with a certificate of an authority of its own, `/readyz` that can
//! be switched, objects in memory, watches, and an echo for everything else. And a front door
//! before it, on ports of its own.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy::config::Args;
use proxy::run::{Addresses, FrontDoor};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

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

    /// An API server's certificate and key as PEM.
    pub fn server_pem(&self) -> (String, String) {
        let (certificate, key) = self.issue();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self) -> Arc<ServerConfig> {
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

/// A request as the API server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
}

struct State {
    ready: AtomicBool,
    version: AtomicU64,
    objects: Mutex<BTreeMap<String, Value>>,
    seen: Mutex<Vec<Seen>>,
    events: broadcast::Sender<(String, Value)>,
    name: String,
}

/// The stand-in; ends when dropped.
pub struct ApiServer {
    pub address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ApiServer {
    pub async fn start(authority: &Authority, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            ready: AtomicBool::new(true),
            version: AtomicU64::new(100),
            objects: Mutex::default(),
            seen: Mutex::default(),
            events: broadcast::channel(64).0,
            name: name.to_owned(),
        });
        let (acceptor, stop) = (
            TlsAcceptor::from(authority.server()),
            CancellationToken::new(),
        );
        let (accepting, shared) = (stop.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = accepting.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (acceptor, state, stop) =
                    (acceptor.clone(), Arc::clone(&shared), accepting.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = connection => {}
                    }
                });
            }
        });
        Self {
            address,
            state,
            stop,
        }
    }

    pub fn set_ready(&self, ready: bool) {
        self.state.ready.store(ready, Ordering::SeqCst);
    }

    /// Requests but for probes.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// A change for whoever watches; how many do.
    pub fn change(&self, collection: &str, object: Value) -> usize {
        let event = json!({"type": "MODIFIED", "object": object});
        self.state
            .events
            .send((collection.to_owned(), event))
            .unwrap_or(0)
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/readyz" {
        let ready = state.ready.load(Ordering::SeqCst);
        return Ok(if ready {
            text(StatusCode::OK, "ok")
        } else {
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "[-]shutdown failed: reason withheld\n",
            )
        });
    }
    if path != "/quick" {
        state.seen.lock().unwrap().push(Seen {
            method: request.method().clone(),
            target: request.uri().to_string(),
            headers: request.headers().clone(),
        });
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    Ok(match path.as_str() {
        "/quick" => text(StatusCode::OK, "ok"),
        "/name" => text(StatusCode::OK, &state.name),
        "/upgrade" => upgrade(request),
        _ if path.starts_with("/api/v1/") && query.contains("watch=1") => watch(&state, &path),
        _ if path.starts_with("/api/v1/") => objects(&state, request).await,
        "/bytes" => {
            let count: usize = query.parse().unwrap_or(0);
            let body = Full::new(Bytes::from(vec![b'x'; count]));
            Response::new(body.boxed())
        }
        _ => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let headers: BTreeMap<String, String> = parts
                .headers
                .iter()
                .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into()))
                .collect();
            text(
                StatusCode::OK,
                &json!({"method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers, "body": String::from_utf8_lossy(&body)})
                    .to_string(),
            )
        }
    })
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(text.to_owned())).boxed());
    *answer.status_mut() = code;
    answer
}

/// Gives back every byte.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let protocol = request.headers().get(header::UPGRADE).cloned();
    let Some(protocol) = protocol else {
        return text(StatusCode::BAD_REQUEST, "no upgrade");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        }
    });
    let mut answer = Response::new(Empty::new().boxed());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::CONNECTION, "upgrade".parse().unwrap());
    answer
}

fn watch(state: &State, path: &str) -> Response<Body> {
    let mut events = state.events.subscribe();
    let collection = path.to_owned();
    let (tx, rx) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                () = tx.closed() => return,
                event = events.recv() => event,
            };
            let Ok((of, event)) = event else { return };
            let line = Bytes::from(format!("{event}\n"));
            if of == collection && tx.send(Ok(Frame::data(line))).await.is_err() {
                return;
            }
        }
    });
    Response::new(StreamBody::new(ReceiverStream::new(rx)).boxed())
}

/// Objects as an API server keeps them: names, versions, conflicts.
async fn objects(state: &State, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path().to_owned();
    let mut objects = state.objects.lock().unwrap();
    let not_found = || {
        let name = path.rsplit('/').next().unwrap();
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": format!("{name} not found"), "details": {"name": name}, "code": 404});
        text(StatusCode::NOT_FOUND, &status.to_string())
    };
    match parts.method {
        Method::POST | Method::PUT => {
            let mut object: Value = serde_json::from_slice(&body).unwrap();
            let mut target = path.clone();
            if parts.method == Method::POST {
                target = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
            }
            let before = objects.get(&target);
            if parts.method == Method::PUT {
                let Some(before) = before else {
                    return not_found();
                };
                if before["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    let status = json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409});
                    return text(StatusCode::CONFLICT, &status.to_string());
                }
            }
            let version = state.version.fetch_add(1, Ordering::SeqCst);
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            if object["kind"] == "Pod" && object["spec"]["schedulerName"].is_null() {
                object["spec"]["schedulerName"] = json!("default-scheduler");
            }
            objects.insert(target, object.clone());
            text(StatusCode::CREATED, &object.to_string())
        }
        Method::DELETE => match objects.remove(&path) {
            Some(object) => text(StatusCode::OK, &object.to_string()),
            None => not_found(),
        },
        _ if objects.contains_key(&path) => text(StatusCode::OK, &objects[&path].to_string()),
        _ if path.split('/').count() != 6 && path != "/api/v1/nodes" => not_found(),
        _ => {
            let items: Vec<&Value> = objects
                .iter()
                .filter(|(name, _)| name.starts_with(&path))
                .map(|(_, object)| object)
                .collect();
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items});
            text(StatusCode::OK, &list.to_string())
        }
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
