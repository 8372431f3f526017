//! The HTTP side for DC/OS' admin router, and what both HTTP sides share: forwarding a request
//! ([`upstream`]), what may pass in its head ([`headers`]), accepting connections ([`server`]).
//!
//! The admin router speaks plain HTTP to services and has checked its own login before. That says
//! nothing to Kubernetes: a request passes only with a bearer token of the cluster, and with it
//! passes nothing else that claims an identity.

pub mod headers;
pub mod server;
pub mod upstream;

use std::error::Error as StdError;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{Metrics, Refusal, RequestLabel, Side};
use upstream::{Body, BodyError, Counted, SendError, Upstream};

/// Forwards requests; clones are the same one.
#[derive(Clone)]
pub struct Forward {
    /// Client of the API servers.
    pub upstream: Upstream,
    /// Name of the API servers, for `Host`.
    pub server_name: HeaderValue,
    /// Connections that were upgraded live here.
    pub tasks: TaskTracker,
    /// Ends them.
    pub end: CancellationToken,
    /// Counters.
    pub metrics: Metrics,
}

impl Forward {
    /// Answers a request of the admin router's side.
    pub async fn admin_router(
        self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let answer = if headers::keep_bearer(request.headers_mut()) {
            add_forwarded_for(request.headers_mut(), peer);
            self.forward(request.map(boxed)).await
        } else {
            self.metrics.refuse(Side::Http, Refusal::NoToken);
            no_token()
        };
        self.count(Side::Http, &answer);
        answer
    }

    /// Counts an answer.
    pub fn count(&self, side: Side, answer: &Response<Body>) {
        let code = answer.status().as_u16();
        self.metrics
            .requests
            .get_or_create(&RequestLabel { side, code })
            .inc();
    }

    /// Sends a request on, without what claims an identity but its bearer token, and gives the
    /// answer; when the server changes protocols, both connections become one.
    pub async fn forward(&self, mut request: Request<Body>) -> Response<Body> {
        let client = hyper::upgrade::on(&mut request);
        headers::strip(request.headers_mut());
        let protocol = headers::upgrade(request.headers_mut());
        let upgrade = protocol.is_some();
        if let Some(protocol) = protocol {
            headers::set_upgrade(request.headers_mut(), protocol);
        }
        let mut answer = match self.send(request).await {
            Ok(answer) => answer,
            Err(answer) => return *answer,
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !upgrade {
                return status(
                    StatusCode::BAD_GATEWAY,
                    "BadGateway",
                    "the API server changes protocols without being asked to",
                );
            }
            let server = hyper::upgrade::on(&mut answer);
            let counted = answer.extensions_mut().remove::<Counted>();
            let end = self.end.clone();
            self.tasks.spawn(async move {
                let _counted = counted;
                tunnel(client, server, end).await;
            });
            return answer.map(boxed);
        }
        headers::strip_answer(answer.headers_mut());
        answer.map(boxed)
    }

    /// Sends a request whose head is as it should be. The error is an answer.
    pub async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Box<Response<Body>>> {
        let target = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(target);
        *request.version_mut() = http::Version::HTTP_11;
        request
            .headers_mut()
            .insert(header::HOST, self.server_name.clone());
        self.upstream.send(request).await.map_err(|error| {
            tracing::warn!(%error, "request without an answer");
            Box::new(unanswered(&error))
        })
    }
}

/// Passes bytes between two upgraded connections until both have ended.
async fn tunnel(client: OnUpgrade, server: OnUpgrade, end: CancellationToken) {
    let both = async {
        let (client, server) = tokio::try_join!(client, server)?;
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        Ok::<_, Box<dyn StdError + Send + Sync>>(())
    };
    tokio::select! {
        () = end.cancelled() => {}
        result = both => if let Err(error) = result {
            tracing::debug!(%error, "upgraded connection");
        },
    }
}

fn add_forwarded_for(headers: &mut http::HeaderMap, peer: SocketAddr) {
    const NAME: &str = "x-forwarded-for";
    let so_far = headers.get(NAME).and_then(|v| v.to_str().ok());
    let all = match so_far {
        Some(before) => format!("{before}, {}", peer.ip()),
        None => peer.ip().to_string(),
    };
    if let Ok(value) = HeaderValue::try_from(all) {
        headers.insert(NAME, value);
    }
}

/// Any body as one type.
pub fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    body.map_err(|error| BodyError(error.into())).boxed()
}

/// A JSON answer.
pub fn json_answer(code: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut text = value.to_string();
    text.push('\n');
    let mut answer = Response::new(boxed(Full::new(Bytes::from(text))));
    *answer.status_mut() = code;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

/// A `Status` of Kubernetes' v1, so that clients show the message.
pub fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    json_answer(
        code,
        &json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code.as_u16(),
        }),
    )
}

fn no_token() -> Response<Body> {
    let mut answer = status(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "this way in takes bearer tokens only (Authorization: Bearer ...); client certificates work on the TLS port",
    );
    answer.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"kubernetes\""),
    );
    answer
}

/// What a client is told when there is no answer.
fn unanswered(error: &SendError) -> Response<Body> {
    let (code, reason) = match error {
        SendError::NoBackend(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        SendError::Late { .. } => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
        SendError::Tls { .. } | SendError::Broken { .. } => (StatusCode::BAD_GATEWAY, "BadGateway"),
    };
    let mut answer = status(code, reason, &format!("the front door: {error}"));
    if code == StatusCode::SERVICE_UNAVAILABLE {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}
