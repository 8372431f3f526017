//! An API server that keeps objects and streams watches, over TLS, with the controllers and
//! kubelets that matter to the framework. It knows nothing of kinds: an object is what was sent.
//! What it does not do, because nobody here asks for it: validation, authorization, selectors,
//! replaying deletions to a watch that begins after them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::StreamExt;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::objects;

/// Until kubelet has a pod that was bound, and until it runs.
const KUBELET: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(400)];
/// Connections that wait for their turn.
const BACKLOG: usize = 64;

/// Resource, namespace, name.
type Key = (String, String, String);

/// The server.
#[derive(Clone)]
pub struct Server {
    store: Arc<Mutex<Store>>,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    nodes: usize,
    running: usize,
    watches: HashMap<String, Vec<mpsc::UnboundedSender<Bytes>>>,
}

impl Store {
    /// Writes an object and tells the watches.
    fn put(&mut self, key: Key, mut object: Value, kind: &str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell(&key.0, kind, &object);
        self.objects.insert(key, object.clone());
        object
    }

    fn tell(&mut self, resource: &str, kind: &str, object: &Value) {
        let Some(watches) = self.watches.get_mut(resource) else {
            return;
        };
        let event = line(kind, object);
        watches.retain(|watch| watch.send(event.clone()).is_ok());
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Option<Value> {
        let mut object = self.objects.get(key)?.clone();
        change(&mut object);
        Some(self.put(key.clone(), object, "MODIFIED"))
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    text.into()
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates so many pods at once.
    pub fn create_pods(&self, count: usize) {
        for number in 0..count {
            let pod = objects::pod(number);
            let key = key("pods", &pod);
            self.lock().put(key, pod, "ADDED");
        }
    }

    /// How many pods kubelets have brought to run.
    pub fn running_pods(&self) -> usize {
        self.lock().running
    }

    /// Some pods that do not run, and where they are bound: for the message when it took too long.
    pub fn waiting(&self) -> Vec<String> {
        let store = self.lock();
        let pods = store
            .objects
            .iter()
            .filter(|((kind, ..), _)| kind == "pods");
        pods.filter(|(_, pod)| pod["status"]["phase"] != "Running")
            .take(5)
            .map(|((.., name), pod)| {
                let uid = &pod["metadata"]["uid"];
                format!("{name} (uid {uid}) on {}", pod["spec"]["nodeName"])
            })
            .collect()
    }

    /// A kubelet starts a pod that was bound.
    fn kubelet(&self, key: Key) {
        let server = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KUBELET[0]).await;
            server.lock().change(&key, objects::accepted);
            tokio::time::sleep(KUBELET[1]).await;
            let mut store = server.lock();
            store.change(&key, objects::running);
            store.running += 1;
        });
    }
}

fn key(resource: &str, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
    (resource.to_owned(), text("namespace"), text("name"))
}

/// Listens, and writes a kubeconfig into the folder.
pub async fn start(folder: &Path) -> Result<Server> {
    let pair = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.self_signed(&pair)?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.serialize_der())
        .map_err(anyhow::Error::msg)?;
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let ca = base64::engine::general_purpose::STANDARD.encode(certificate.pem());
    // JSON is YAML.
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("https://{address}"), "certificate-authority-data": ca}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    });
    std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string())?;
    let server = Server {
        store: Arc::default(),
    };
    let app = Router::new()
        .fallback(handle)
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(server.clone());
    let (connections, accepted) = mpsc::channel(BACKLOG);
    tokio::spawn(accept(
        listener,
        TlsAcceptor::from(Arc::new(tls)),
        connections,
    ));
    tokio::spawn(axum::serve(Tls { accepted, address }, app).into_future());
    Ok(server)
}

/// Connections whose handshake is over.
struct Tls {
    accepted: mpsc::Receiver<TlsStream<TcpStream>>,
    address: std::net::SocketAddr,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(stream) => (stream, self.address),
            // Nobody listens any more: the process is ending.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    connections: mpsc::Sender<TlsStream<TcpStream>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, connections) = (tls.clone(), connections.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = tls.accept(stream).await {
                let _ = connections.send(stream).await;
            }
        });
    }
}

/// What a path names.
struct Target {
    resource: String,
    namespace: String,
    name: Option<String>,
    sub: Option<String>,
}

/// `/api/v1/...` or `/apis/<group>/<version>/...`, then `[namespaces/<ns>/]<resource>[/<name>[/<sub>]]`.
fn target(path: &str) -> Option<Target> {
    let mut parts = path.trim_matches('/').split('/');
    match parts.next()? {
        "api" => parts.next()?,
        "apis" => parts.nth(1)?,
        _ => return None,
    };
    let mut first = parts.next()?;
    let mut namespace = "";
    if first == "namespaces" {
        namespace = parts.next()?;
        first = parts.next()?;
    }
    Some(Target {
        resource: first.to_owned(),
        namespace: namespace.to_owned(),
        name: parts.next().map(str::to_owned),
        sub: parts.next().map(str::to_owned),
    })
}

fn status(code: StatusCode, reason: &str) -> Response {
    let body = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "reason": reason, "code": code.as_u16(),
        "status": if code.is_success() { "Success" } else { "Failure" }, "message": reason});
    answer(code, &body)
}

fn answer(code: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (code, headers, body.to_string()).into_response()
}

async fn handle(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let Some(target) = target(uri.path()) else {
        return status(StatusCode::NOT_FOUND, "NotFound");
    };
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let flag = |name: &str| query.get(name).is_some_and(|it| it == "true" || it == "1");
    match (method, &target.name) {
        (Method::GET, None) if flag("watch") => watch(&server, &target, &query),
        (Method::GET, None) => list(&server, &target, &query),
        (Method::POST, None) => create(&server, target, sent),
        (Method::POST, Some(_)) => binding(&server, &target, &sent),
        (method, Some(name)) => {
            let key = (target.resource, target.namespace, name.clone());
            one(&server, &method, &key, &sent)
        }
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn one(server: &Server, method: &Method, key: &Key, sent: &Value) -> Response {
    let mut store = server.lock();
    let found = match *method {
        Method::GET => store.objects.get(key).cloned(),
        Method::PUT => store.change(key, |object| *object = sent.clone()),
        Method::PATCH => store.change(key, |object| merge(object, sent)),
        Method::DELETE => {
            let gone = store.objects.remove(key);
            if let Some(object) = &gone {
                store.tell(&key.0, "DELETED", object);
            }
            gone
        }
        _ => None,
    };
    match found {
        Some(object) => answer(StatusCode::OK, &object),
        None => status(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// A JSON merge patch.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (field, value) in patch {
        if value.is_null() {
            if let Some(object) = object.as_object_mut() {
                object.remove(field);
            }
        } else {
            merge(&mut object[field], value);
        }
    }
}

fn create(server: &Server, target: Target, mut object: Value) -> Response {
    let mut store = server.lock();
    if !object["metadata"]["name"].is_string() {
        let name = format!(
            "{}{}",
            object["metadata"]["generateName"].as_str().unwrap_or(""),
            store.version
        );
        object["metadata"]["name"] = json!(name);
    }
    if !target.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(target.namespace);
    }
    let key = key(&target.resource, &object);
    if store.objects.contains_key(&key) {
        return status(StatusCode::CONFLICT, "AlreadyExists");
    }
    object["metadata"]["uid"] = json!(format!("00000000-0000-0000-0000-{:012x}", store.version));
    object["metadata"]["creationTimestamp"] = json!("2026-11-21T10:00:00Z");
    // Nobody reads them again.
    if target.resource == "events" {
        return answer(StatusCode::CREATED, &object);
    }
    let created = store.put(key.clone(), object, "ADDED");
    if target.resource == "nodes" {
        store.nodes += 1;
        let number = store.nodes;
        store.change(&key, |node| objects::node_comes_up(node, number));
    }
    answer(StatusCode::CREATED, &created)
}

fn binding(server: &Server, target: &Target, binding: &Value) -> Response {
    if target.sub.as_deref() != Some("binding") {
        return status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
    }
    let name = target.name.clone().unwrap_or_default();
    let key = (target.resource.clone(), target.namespace.clone(), name);
    let mut store = server.lock();
    let Some(pod) = store.objects.get(&key) else {
        return status(StatusCode::NOT_FOUND, "NotFound");
    };
    if pod["spec"]["nodeName"].is_string() {
        return status(StatusCode::CONFLICT, "Conflict");
    }
    store.change(&key, |pod| objects::bind(pod, binding));
    drop(store);
    server.kubelet(key);
    status(StatusCode::CREATED, "Created")
}

fn of<'a>(store: &'a Store, target: &'a Target) -> impl Iterator<Item = (&'a Key, &'a Value)> {
    let from = (target.resource.clone(), String::new(), String::new());
    store
        .objects
        .range(from..)
        .take_while(|((resource, ..), _)| *resource == target.resource)
        .filter(|((_, namespace, _), _)| {
            target.namespace.is_empty() || *namespace == target.namespace
        })
}

fn list(server: &Server, target: &Target, query: &HashMap<String, String>) -> Response {
    let store = server.lock();
    let limit = query.get("limit").and_then(|it| it.parse().ok());
    let after: usize = query
        .get("continue")
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    let all = of(&store, target).count();
    let limit = limit.unwrap_or(all);
    let items: Vec<&Value> = of(&store, target)
        .skip(after)
        .take(limit)
        .map(|(_, object)| object)
        .collect();
    let mut metadata = json!({"resourceVersion": store.version.to_string()});
    if after + items.len() < all {
        metadata["continue"] = json!((after + items.len()).to_string());
    }
    answer(
        StatusCode::OK,
        &json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}),
    )
}

fn watch(server: &Server, target: &Target, query: &HashMap<String, String>) -> Response {
    let mut store = server.lock();
    let from: u64 = query
        .get("resourceVersion")
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    let (sender, lines) = mpsc::unbounded_channel();
    for (_, object) in of(&store, target) {
        let version = object["metadata"]["resourceVersion"].as_str();
        if version
            .and_then(|it| it.parse::<u64>().ok())
            .is_some_and(|version| version > from)
        {
            let _ = sender.send(line("MODIFIED", object));
        }
    }
    store
        .watches
        .entry(target.resource.clone())
        .or_default()
        .push(sender);
    let lines = UnboundedReceiverStream::new(lines).map(Ok::<_, std::convert::Infallible>);
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, Body::from_stream(lines)).into_response()
}
