//! HTTP in front of the [`api`](super::api).

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response as HttpResponse};
use axum::routing::get;
use base64::Engine as _;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use super::api::{Body, Request, Response};
use super::core::Notice;
use super::error::ApiError;
use crate::http::query;
use crate::jwt;

/// The largest body of a request, in bytes: groups of many apps.
const MAX_BODY: usize = 16 << 20;
/// How often a listener hears something, so that both sides notice when the other is gone.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

/// A request and where its answer goes.
pub type Asked = (Box<Request>, oneshot::Sender<Response>);

/// Who may ask; nobody else.
#[derive(Clone)]
pub enum Access {
    /// Whoever sends this `Authorization`.
    Password(Arc<str>),
    /// Whoever has a token of DC/OS that this key has signed.
    Tokens(jwt::Key),
}

impl Access {
    /// Takes `user:password`.
    pub fn password(pair: &str) -> Self {
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        Self::Password(format!("Basic {encoded}").into())
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION);
        let given = given.map(HeaderValue::as_bytes);
        let wanted = match self {
            Self::Password(wanted) => wanted.as_bytes(),
            Self::Tokens(key) => return key.dcos_user(given).is_some(),
        };
        let given = given.unwrap_or_default();
        // Compared whole, whatever the first difference is.
        let differs = given.iter().zip(wanted).fold(0, |d, (a, b)| d | (a ^ b));
        given.len() == wanted.len() && differs == 0
    }

    /// The answer to anybody else.
    fn refused(&self) -> HttpResponse {
        let (text, scheme) = match self {
            Self::Password(_) => (
                "Invalid username or password.",
                "Basic realm=\"Mesosphere\"",
            ),
            Self::Tokens(_) => ("Invalid authentication token.", "acsjwt"),
        };
        let text = axum::Json(serde_json::json!({ "message": text }));
        let scheme = [(header::WWW_AUTHENTICATE, scheme)];
        (StatusCode::UNAUTHORIZED, scheme, text).into_response()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(<secret>)",
            Self::Tokens(_) => "Tokens(<key>)",
        })
    }
}

/// What requests need.
#[derive(Clone)]
pub struct Shared {
    /// To the loop.
    pub asked: mpsc::Sender<Asked>,
    /// From the loop.
    pub notices: broadcast::Sender<Notice>,
    /// Who may ask; anybody if nothing is said.
    pub access: Option<Access>,
    /// `host:port`, for `X-Marathon-Leader`.
    pub leader: HeaderValue,
    /// Ends streams.
    pub stop: CancellationToken,
}

/// Everything that Marathon answers.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v2/events", get(events))
        .fallback(any)
        .with_state(shared)
}

async fn any(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: axum::extract::Request,
) -> HttpResponse {
    let (parts, body) = request.into_parts();
    if let Some(access) = &shared.access
        && parts.uri.path() != "/ping"
        && !access.allows(&parts.headers)
    {
        return access.refused();
    }
    let body = match http_body_util::Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(_) => return with_leader(&shared, too_large()),
    };
    let is_json = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_none_or(|t| t.starts_with("application/json") || t.starts_with("*/"));
    let writes = matches!(parts.method.as_str(), "POST" | "PUT" | "PATCH");
    if writes && !body.is_empty() && !is_json {
        let text = serde_json::json!({"message": "Unsupported Media Type"});
        let response = (StatusCode::UNSUPPORTED_MEDIA_TYPE, axum::Json(text)).into_response();
        return with_leader(&shared, response);
    }
    // What a GET would answer, without its body.
    let head = parts.method == axum::http::Method::HEAD;
    let method = if head { "GET" } else { parts.method.as_str() };
    let request = Request {
        method: method.to_owned(),
        path: query::percent_decode(parts.uri.path()),
        query: query::pairs(parts.uri.query().unwrap_or("")),
        body,
        client: client.ip().to_string(),
    };
    let (sender, receiver) = oneshot::channel();
    let sent = shared.asked.send((Box::new(request), sender)).await;
    let answer = match sent {
        Ok(()) => receiver.await.ok(),
        Err(_) => None,
    };
    let answer =
        answer.unwrap_or_else(|| ApiError::Unavailable("Marathon is going down".to_owned()).into());
    let mut response = http_response(answer);
    if head {
        *response.body_mut() = HttpBody::empty();
    }
    with_leader(&shared, response)
}

fn too_large() -> HttpResponse {
    let text = serde_json::json!({"message": format!("the body is larger than {MAX_BODY} bytes or broke off")});
    (StatusCode::PAYLOAD_TOO_LARGE, axum::Json(text)).into_response()
}

fn with_leader(shared: &Shared, mut response: HttpResponse) -> HttpResponse {
    let headers = response.headers_mut();
    headers.insert("x-marathon-leader", shared.leader.clone());
    let never = HeaderValue::from_static("no-cache, no-store, must-revalidate");
    headers.insert(header::CACHE_CONTROL, never);
    response
}

fn http_response(answer: Response) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match answer.body {
        Body::Empty => status.into_response(),
        Body::Json(document) => (status, axum::Json(document)).into_response(),
        Body::Text(text) => (status, text).into_response(),
    };
    let deployment = answer.deployment.map(|d| d.to_string());
    for (name, value) in [
        ("marathon-deployment-id", deployment),
        ("location", answer.location),
    ] {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(&v).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// `/v2/events`: what happens from now on, of the types that `event_type` names.
async fn events(
    State(shared): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> HttpResponse {
    if let Some(access) = &shared.access
        && !access.allows(&headers)
    {
        return access.refused();
    }
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if !accept.is_some_and(|a| a.contains("text/event-stream")) {
        return with_leader(&shared, http_response(ApiError::Method.into()));
    }
    let query = query::pairs(uri.query().unwrap_or(""));
    let wanted: Vec<String> = query
        .iter()
        .filter(|(k, _)| k == "event_type")
        .map(|(_, v)| v.clone())
        .collect();
    let light = query
        .iter()
        .any(|(k, v)| k == "plan-format" && v == "light");
    let receiver = shared.notices.subscribe();
    let attached = serde_json::json!({
        "remoteAddress": client.ip().to_string(),
        "eventType": "event_stream_attached",
        "timestamp": super::ids::Version::at(crate::clock::Time::now()),
    });
    let first = Notice::new("event_stream_attached", attached);
    let is_wanted =
        move |notice: &Notice| wanted.is_empty() || wanted.iter().any(|w| w == notice.kind);
    // A listener that is too slow is cut off: what it missed it could not know otherwise.
    let told = BroadcastStream::new(receiver)
        .take_while(|n| std::future::ready(n.is_ok()))
        .filter_map(|n| std::future::ready(n.ok()));
    let told = futures::stream::once(std::future::ready(first))
        .chain(told)
        .filter(move |n| std::future::ready(is_wanted(n)))
        .map(move |mut notice| {
            if light && let Some(plan) = notice.data.get_mut("plan").and_then(|p| p.as_object_mut())
            {
                plan.retain(|key, _| key == "id" || key == "version");
            }
            format!("event: {}\ndata: {}\n\n", notice.kind, notice.data)
        });
    let alive = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval_at(
        tokio::time::Instant::now() + KEEP_ALIVE,
        KEEP_ALIVE,
    ))
    .map(|_| "\n".to_owned());
    let stop = shared.stop.clone();
    let told = told
        .map(Some)
        .chain(futures::stream::once(std::future::ready(None)));
    let stream = futures::stream::select(told, alive.map(Some))
        .take_while(|text| std::future::ready(text.is_some()))
        .filter_map(std::future::ready)
        .take_until(async move { stop.cancelled().await })
        .map(Ok::<_, Infallible>);
    let mut response = HttpBody::from_stream(stream).into_response();
    let kind = HeaderValue::from_static("text/event-stream;charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    with_leader(&shared, response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_opens() {
        let access = Access::password("me:secret");
        let mut headers = HeaderMap::new();
        assert!(!access.allows(&headers));
        for (value, allowed) in [("Basic bWU6c2VjcmV0", true), ("Basic bWU6c2VjcmV1", false)] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(access.allows(&headers), allowed);
        }
        assert_eq!(access.refused().status(), 401);
    }

    #[test]
    fn tokens_are_taken_until_they_end() {
        let key = jwt::Key::random();
        let access = Access::Tokens(key.clone());
        let mut headers = HeaderMap::new();
        assert!(!access.allows(&headers));
        let refused = access.refused();
        assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "acsjwt");
        for (exp, allowed) in [(jwt::now() + 60, true), (jwt::now() - 1, false)] {
            let claims = serde_json::json!({"uid": "u", "exp": exp});
            let value = format!("token={}", key.sign(&claims).unwrap());
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(access.allows(&headers), allowed);
        }
    }
}
