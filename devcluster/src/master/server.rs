//! The loop around the master's core: HTTP, the clock, the registry file.
//!
//! One lock guards the core and the senders of all streams, so that what one event leads to
//! is queued in order before the next event is looked at. The core does no I/O; the only thing
//! that can take long under the lock is the registry, which is written when agents come and go.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use mesos::codec::Encoding;
use mesos::pb;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::auth::{Authentication, Realm};
use super::event::{Answer, Effect, Event, StreamId};
use super::registry::{Registry, RegistryError};
use super::state::{MasterState, Settings, VERSION};
use super::{legacy, operator, validate};
use crate::clock::{Clock, Time};
use crate::http::{self, stream};
use crate::ids::FrameworkId;
use crate::protocol;

/// How long connections may take to end at a shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How a master is started.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Where it listens. Port 0: any free one.
    pub listen: SocketAddr,
    /// Address that others are told; the one it listens on if that is a real one.
    pub advertise: Option<IpAddr>,
    /// Host name that others are told; the address by default.
    pub hostname: Option<String>,
    /// Directory of the registry.
    pub work_dir: PathBuf,
    /// Name of the cluster, shown in `/state`.
    pub cluster: Option<String>,
    /// Region and zone.
    pub domain: Option<pb::DomainInfo>,
    /// Whom requests must come from.
    pub authentication: Authentication,
    /// How it behaves.
    pub settings: Settings,
    /// Where it takes the time from.
    pub clock: Clock,
}

impl MasterConfig {
    /// With all defaults.
    pub fn new(listen: SocketAddr, work_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            advertise: None,
            hostname: None,
            work_dir: work_dir.into(),
            cluster: None,
            domain: None,
            authentication: Authentication::default(),
            settings: Settings::default(),
            clock: Clock::System,
        }
    }
}

/// Why a master could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The address cannot be had. Worth a retry when another process is about to leave it.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Listening on all addresses, the master does not know which one to tell.
    #[error("listening on {0}, an address to advertise must be given")]
    Advertise(SocketAddr),
    /// Mesos' MasterInfo has room for an IPv4 address only.
    #[error("cannot advertise {0}: the Mesos protocol needs an IPv4 address")]
    NotV4(IpAddr),
    /// The registry cannot be read or written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Serving connections failed.
    #[error("cannot serve connections: {0}")]
    Serve(std::io::Error),
    /// The lock on the work directory cannot be had.
    #[error("cannot lock {path}: {source}")]
    Lock {
        /// The lock.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another master leads now, or ZooKeeper has forgotten this one. Started again, it follows.
    #[error("this master leads no longer; start it again to let it follow the new leader")]
    LostLeadership,
}

/// Runs a master until `shutdown`; tasks and agents are not touched by its end.
pub async fn run(config: MasterConfig, shutdown: CancellationToken) -> Result<(), MasterError> {
    let address = config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| MasterError::Listen { address, source })?;
    run_on(listener, config, shutdown).await
}

/// The same on a socket that listens already; `config.listen` is not looked at.
pub async fn run_on(
    listener: TcpListener,
    config: MasterConfig,
    shutdown: CancellationToken,
) -> Result<(), MasterError> {
    let address = listener.local_addr().map_err(MasterError::Serve)?;
    let master = Master::new(config, address)?;
    tracing::info!(%address, id = master.id(), "the master listens");
    let shared = Arc::clone(&master.shared);
    let mut serving = Serving::begin(listener, Router::new().fallback(handle).with_state(master));
    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        error = shared.keep_time() => Some(error),
        ended = serving.ended() => return ended,
    };
    shared.lock().streams.clear();
    serving.shut_down().await;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// A master's HTTP server while it runs.
pub(super) struct Serving {
    stop: CancellationToken,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Serving {
    /// On a socket that listens already. Handlers see who called.
    pub(super) fn begin(listener: TcpListener, app: Router) -> Self {
        let app = app.layer(DefaultBodyLimit::max(http::MAX_BODY_BYTES));
        let stop = CancellationToken::new();
        let server = axum::serve(
            listener,
            app.into_make_service_with_connect_info::<SocketAddr>(),
        )
        .with_graceful_shutdown(stop.clone().cancelled_owned());
        Self {
            stop,
            server: tokio::spawn(server.into_future()),
        }
    }

    /// Waits for it to end by itself, which it does only when its socket fails.
    pub(super) async fn ended(&mut self) -> Result<(), MasterError> {
        (&mut self.server)
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)))
            .map_err(MasterError::Serve)
    }

    /// Lets connections end, and ends those that do not.
    pub(super) async fn shut_down(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(SHUTDOWN_GRACE, &mut self.server)
            .await
            .is_err()
        {
            self.server.abort();
        }
    }
}

/// A master without a socket: requests are handed in, time passes by [`Master::tick`]. What
/// [`run`] puts on the network, and what tests with a manual clock use as it is.
#[derive(Clone)]
pub struct Master {
    shared: Arc<Shared>,
}

impl Master {
    /// Starts one that tells others this address.
    pub fn new(config: MasterConfig, address: SocketAddr) -> Result<Self, MasterError> {
        let info = master_info(&config, address)?;
        let registry = Registry::load(&config.work_dir)?;
        // Written once at the start: a directory that cannot be written is noticed now.
        registry.save(&config.work_dir)?;
        let core = MasterState::new(config.settings, info, registry, config.clock.now());
        let shared = Shared {
            inner: Mutex::new(Inner {
                core,
                streams: HashMap::new(),
                failed: None,
            }),
            wake: Notify::new(),
            authentication: config.authentication,
            clock: config.clock,
            work_dir: config.work_dir,
            cluster: config.cluster,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Its id, new at each start.
    pub fn id(&self) -> String {
        self.shared.look(|core| core.id().to_owned())
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Time {
        self.shared.lock().core.next_deadline()
    }

    /// Does what is due by now.
    pub fn tick(&self) {
        self.shared.event(Event::Tick);
    }

    /// Lets time pass until the master cannot go on; says why.
    pub(super) async fn keep_time(&self) -> MasterError {
        self.shared.keep_time().await.into()
    }

    /// Ends all streams: those who listen look for another master.
    pub(super) fn close_streams(&self) {
        self.shared.lock().streams.clear();
    }

    /// Answers one request of the client at `peer`.
    pub(super) fn respond(
        &self,
        peer: IpAddr,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        respond(&self.shared, peer, method, uri, headers, body)
    }

    /// Answers one request of the client at `peer`.
    pub fn request(&self, peer: IpAddr, request: axum::http::Request<Bytes>) -> Response {
        let (parts, body) = request.into_parts();
        respond(
            &self.shared,
            peer,
            &parts.method,
            &parts.uri,
            &parts.headers,
            body,
        )
    }
}

pub(super) fn master_info(
    config: &MasterConfig,
    address: SocketAddr,
) -> Result<pb::MasterInfo, MasterError> {
    let ip = match config.advertise {
        Some(ip) => ip,
        None if address.ip().is_unspecified() => return Err(MasterError::Advertise(address)),
        None => address.ip(),
    };
    let IpAddr::V4(v4) = ip else {
        return Err(MasterError::NotV4(ip));
    };
    let hostname = config.hostname.clone().unwrap_or_else(|| ip.to_string());
    let capability = |kind: pb::master_info::capability::Type| pb::master_info::Capability {
        r#type: Some(kind as i32),
    };
    use pb::master_info::capability::Type;
    Ok(pb::MasterInfo {
        id: uuid::Uuid::new_v4().to_string(),
        ip: network_order(v4),
        port: u32::from(address.port()),
        pid: Some(format!("master@{ip}:{}", address.port())),
        hostname: Some(hostname.clone()),
        version: Some(VERSION.to_owned()),
        address: Some(pb::Address {
            hostname: Some(hostname),
            ip: Some(ip.to_string()),
            port: i32::from(address.port()),
        }),
        domain: config.domain.clone(),
        capabilities: vec![
            capability(Type::AgentUpdate),
            capability(Type::AgentDraining),
            capability(Type::QuotaV2),
        ],
    })
}

/// The address as the protocol has it: the bytes in network order, read as a little-endian
/// number.
const fn network_order(ip: Ipv4Addr) -> u32 {
    u32::from_le_bytes(ip.octets())
}

struct Inner {
    core: MasterState,
    streams: HashMap<StreamId, (stream::Sender, Encoding)>,
    /// Why the master cannot go on.
    failed: Option<RegistryError>,
}

pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// The next deadline may have changed, or something has failed.
    wake: Notify,
    authentication: Authentication,
    clock: Clock,
    work_dir: PathBuf,
    cluster: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The core does not panic on input; should it all the same, its state may be half
        // changed, but a master that answers is of more use than one that does not.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the core and does what it wants.
    fn event(&self, event: Event) -> Answer {
        let mut guard = self.lock();
        let answer = self.event_locked(&mut guard, event);
        drop(guard);
        self.wake.notify_one();
        answer
    }

    fn event_locked(&self, inner: &mut Inner, event: Event) -> Answer {
        let mut events = vec![event];
        let mut first = None;
        while let Some(event) = events.pop() {
            let outcome = inner.core.handle(self.clock.now(), event);
            first.get_or_insert(outcome.answer);
            for effect in outcome.effects {
                if let Some(broken) = self.perform(inner, effect) {
                    inner.streams.remove(&broken);
                    events.push(Event::Disconnected { stream: broken });
                }
            }
        }
        first.unwrap_or(Answer::Ok)
    }

    /// Does one thing; returns the stream that turned out to be broken.
    fn perform(&self, inner: &mut Inner, effect: Effect) -> Option<StreamId> {
        let send = |inner: &Inner, id: StreamId, encode: &dyn Fn(Encoding) -> Vec<u8>| {
            let (sender, encoding) = inner.streams.get(&id)?;
            sender.send(&encode(*encoding)).err().map(|_| id)
        };
        match effect {
            Effect::SaveRegistry => {
                if let Err(error) = inner.core.registry().save(&self.work_dir) {
                    tracing::error!(%error, "the master cannot go on");
                    inner.failed.get_or_insert(error);
                }
                None
            }
            // After that nothing may be told that is not on disk.
            _ if inner.failed.is_some() => None,
            Effect::ToScheduler { stream, event } => {
                send(inner, stream, &|encoding| http::encode(encoding, &*event))
            }
            Effect::ToOperator { stream, event } => {
                send(inner, stream, &|encoding| http::encode(encoding, &*event))
            }
            Effect::ToAgent { stream, message } => {
                let message = protocol::ToAgent::from(*message);
                send(inner, stream, &|_| message.encode_to_vec())
            }
            Effect::Close(stream) => {
                inner.streams.remove(&stream);
                None
            }
        }
    }

    /// Sends ticks when they are due. Ends with what makes the master end.
    async fn keep_time(&self) -> RegistryError {
        loop {
            let deadline = {
                let mut inner = self.lock();
                if let Some(error) = inner.failed.take() {
                    return error;
                }
                inner.core.next_deadline()
            };
            let wait = deadline.since(self.clock.now());
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    self.event(Event::Tick);
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Opens a stream and hands the event that it belongs to to the core.
    fn open(
        self: &Arc<Self>,
        encoding: Encoding,
        make: impl FnOnce(StreamId) -> Event,
    ) -> (StreamId, Answer, Body) {
        let id = StreamId::random();
        let shared = Arc::clone(self);
        let (sender, body) = stream::channel(move || {
            shared.lock().streams.remove(&id);
            shared.event(Event::Disconnected { stream: id });
        });
        let mut inner = self.lock();
        inner.streams.insert(id, (sender, encoding));
        let answer = self.event_locked(&mut inner, make(id));
        drop(inner);
        self.wake.notify_one();
        (id, answer, body)
    }

    /// Looks at the core.
    pub(super) fn look<T>(&self, look: impl FnOnce(&MasterState) -> T) -> T {
        look(&self.lock().core)
    }

    pub(super) fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }
}

async fn handle(
    State(master): State<Master>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    respond(&master.shared, peer.ip(), &method, &uri, &headers, body)
}

fn respond(
    shared: &Arc<Shared>,
    peer: IpAddr,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_prefix("/master").unwrap_or(path);
    let body = match http::decoded(headers, body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let principal = shared.authentication.principal(headers);
    let principal = principal.as_deref();
    if let Some(realm) = Realm::of(path, method.as_str())
        && shared.authentication.guards(realm)
        && principal.is_none()
    {
        return unauthorized(&shared.authentication.challenge(realm));
    }
    match path {
        "/api/v1/scheduler" | "/api/v1" | protocol::SUBSCRIBE_PATH | protocol::CALL_PATH
            if *method != Method::POST =>
        {
            http::method_not_allowed("POST", method.as_str())
        }
        "/api/v1/scheduler" => scheduler(shared, headers, &body, principal),
        "/api/v1" => operator(shared, headers, &body),
        protocol::SUBSCRIBE_PATH => agent_subscribe(shared, peer, &body),
        protocol::CALL_PATH => agent_call(shared, headers, &body),
        "/teardown" => legacy::teardown(method, &body, |id| {
            let call = pb::master::Call {
                r#type: Some(pb::master::call::Type::Teardown as i32),
                teardown: Some(pb::master::call::Teardown {
                    framework_id: pb::FrameworkId { value: id },
                }),
                ..Default::default()
            };
            shared.event(Event::OperatorCall(Box::new(call)))
        }),
        "/reserve" | "/unreserve" | "/create-volumes" | "/destroy-volumes" | "/machine/down"
        | "/machine/up"
            if *method == Method::POST =>
        {
            let call = match path {
                "/machine/down" | "/machine/up" => legacy::machines(path, &body),
                _ => legacy::operation(path, &body),
            };
            match call {
                Ok(call) => answered(
                    shared.event(Event::OperatorCall(Box::new(call))),
                    Encoding::Json,
                ),
                Err(why) => http::error(400, why),
            }
        }
        path => legacy::get(shared, method, path, uri.query().unwrap_or_default()),
    }
}

fn answered(answer: Answer, encoding: Encoding) -> Response {
    match answer {
        Answer::Accepted => http::empty(202),
        Answer::Ok | Answer::Stream => http::empty(200),
        Answer::Response(response) => http::body(encoding, http::encode(encoding, &*response)),
        Answer::Error { status, text } => http::error(status, text),
    }
}

fn streamed(body: Body, encoding: Encoding) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(encoding.media_type()),
    );
    response
}

const STREAM_ID: &str = "Mesos-Stream-Id";

/// As Mesos answers whoever does not say who they are.
fn unauthorized(challenge: &str) -> Response {
    let mut response = http::error(401, "401 Unauthorized.");
    if let Ok(value) = HeaderValue::from_str(challenge) {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// What is wrong with a call of somebody who is not whom the framework says.
fn why_not_principal(
    shared: &Arc<Shared>,
    call: &pb::scheduler::Call,
    authenticated: &str,
) -> Option<String> {
    let info = call.subscribe.as_ref().map(|s| &s.framework_info);
    let (named, prefix) = match info {
        Some(info) => (
            info.principal.clone(),
            "Failed to validate scheduler::Call: ",
        ),
        None => {
            let id = call.framework_id.as_ref().map(FrameworkId::from);
            let known = shared.look(|core| id.and_then(|id| core.principal_of(&id)));
            (known, "")
        }
    };
    let named = named.filter(|named| named != authenticated)?;
    Some(format!(
        "{prefix}Authenticated principal '{authenticated}' does not match principal '{named}' \
         set in `FrameworkInfo`"
    ))
}

fn scheduler(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    body: &[u8],
    principal: Option<&str>,
) -> Response {
    use pb::scheduler::call::Type;
    let mut call: pb::scheduler::Call = match http::read_call(headers, body, "Call") {
        Ok(call) => call,
        Err(response) => return *response,
    };
    if let Err(error) = validate::scheduler_call(&call) {
        return http::error(400, format!("Failed to validate scheduler::Call: {error}"));
    }
    if let Some(principal) = principal
        && let Some(why) = why_not_principal(shared, &call, principal)
    {
        return http::error(400, why);
    }
    // Who does not say who they are is who they have proved to be.
    if let (Some(principal), Some(subscribe)) = (principal, &mut call.subscribe) {
        let named = &mut subscribe.framework_info.principal;
        named.get_or_insert_with(|| principal.to_owned());
    }
    let stream = headers.get(STREAM_ID);
    if call.r#type() != Type::Subscribe {
        let stream = stream.map(|s| String::from_utf8_lossy(s.as_bytes()).into_owned());
        let call = Box::new(call);
        return answered(
            shared.event(Event::FrameworkCall { stream, call }),
            Encoding::Json,
        );
    }
    let encoding = match http::accepted(headers) {
        Ok(encoding) => encoding,
        Err(response) => return *response,
    };
    if stream.is_some() {
        return http::error(
            400,
            "Subscribe calls should not include the 'Mesos-Stream-Id' header",
        );
    }
    let subscribe = Box::new(call.subscribe.unwrap_or_default());
    let (id, answer, body) = shared.open(encoding, |stream| Event::FrameworkSubscribe {
        stream,
        subscribe,
    });
    if answer != Answer::Stream {
        return answered(answer, encoding);
    }
    let mut response = streamed(body, encoding);
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(STREAM_ID, value);
    }
    response
}

fn operator(shared: &Arc<Shared>, headers: &HeaderMap, body: &[u8]) -> Response {
    let call: pb::master::Call = match http::read_call(headers, body, "Call") {
        Ok(call) => call,
        Err(response) => return *response,
    };
    if let Err(error) = operator::validate(&call) {
        return http::error(400, format!("Failed to validate master::Call: {error}"));
    }
    let encoding = match http::accepted(headers) {
        Ok(encoding) => encoding,
        Err(response) => return *response,
    };
    if call.r#type() == pb::master::call::Type::Subscribe {
        let (_, answer, body) = shared.open(encoding, |stream| Event::OperatorSubscribe { stream });
        return match answer {
            Answer::Stream => streamed(body, encoding),
            other => answered(other, encoding),
        };
    }
    answered(shared.event(Event::OperatorCall(Box::new(call))), encoding)
}

fn agent_subscribe(shared: &Arc<Shared>, peer: IpAddr, body: &[u8]) -> Response {
    let subscribe = match protocol::Subscribe::decode(body) {
        Ok(subscribe) => Box::new(subscribe),
        Err(error) => return http::error(400, format!("malformed Subscribe: {error}")),
    };
    let (id, answer, body) = shared.open(Encoding::Protobuf, |stream| Event::AgentSubscribe {
        stream,
        peer,
        subscribe,
    });
    if answer != Answer::Stream {
        return answered(answer, Encoding::Protobuf);
    }
    let mut response = streamed(body, Encoding::Protobuf);
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(protocol::STREAM_ID, value);
    }
    response
}

fn agent_call(shared: &Arc<Shared>, headers: &HeaderMap, body: &[u8]) -> Response {
    let stream = headers
        .get(protocol::STREAM_ID)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| uuid::Uuid::parse_str(v).ok());
    let Some(stream) = stream.map(StreamId) else {
        return http::error(
            400,
            format!("Expecting '{}' to name a stream", protocol::STREAM_ID),
        );
    };
    let message = match protocol::FromAgent::decode(body) {
        Ok(call) => call.message,
        Err(error) => return http::error(400, format!("malformed FromAgent: {error}")),
    };
    let Some(message) = message.map(Box::new) else {
        return http::error(400, "FromAgent without a message that is known here");
    };
    answered(
        shared.event(Event::AgentCall { stream, message }),
        Encoding::Protobuf,
    )
}
