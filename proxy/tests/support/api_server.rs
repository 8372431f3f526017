//! The API server's stand-in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Authority, Body};

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
