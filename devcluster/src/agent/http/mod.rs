//! The agent's HTTP side: executors, operators, and the endpoints that are older than both.

mod claims;
mod describe;
mod executor;
mod files;
mod operator;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::Method;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::run::{Request, View};
use crate::http::{MAX_BODY_BYTES, decoded, empty, error, method_not_allowed, not_found};
use crate::jwt;

pub(super) use claims::ExecutorClaims;

/// The way to the agent's loop.
pub(super) type Requests = mpsc::Sender<Request>;

/// What requests need.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    requests: Requests,
    /// What signs executors' tokens, where they are wanted.
    key: Option<jwt::Key>,
}

impl Shared {
    pub(super) const fn new(requests: Requests, key: Option<jwt::Key>) -> Self {
        Self { requests, key }
    }
}

/// Serves until `stop`. With a key, executors' calls need a token that it has signed.
pub(super) async fn serve(
    listener: TcpListener,
    requests: Requests,
    key: Option<jwt::Key>,
    stop: CancellationToken,
) {
    let shared = Shared::new(requests, key);
    let router = Router::new().fallback(handle).with_state(shared);
    let server = axum::serve(listener, router);
    tokio::select! {
        () = stop.cancelled() => {}
        served = server.into_future() => if let Err(error) = served {
            tracing::error!(%error, "the agent's HTTP server ended");
        }
    }
}

/// Answers one request.
pub(super) async fn handle(
    State(Shared { requests, key }): State<Shared>,
    request: HttpRequest<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    // `/slave(1)/state`, `/state` and `/state/` are the same.
    let path = parts.uri.path();
    let path = path.strip_prefix("/slave(1)").unwrap_or(path);
    let path = path.trim_end_matches('/').to_owned();
    let post = parts.method == Method::POST;
    match path.as_str() {
        "/api/v1/executor" | "/api/v1" if !post => {
            method_not_allowed("POST", parts.method.as_str())
        }
        "/api/v1/executor" | "/api/v1" => {
            let executor = path == "/api/v1/executor";
            let claims = match key.as_ref().filter(|_| executor) {
                Some(key) => match claims::of(key, &parts.headers) {
                    Ok(claims) => Some(claims),
                    Err(refusal) => return *refusal,
                },
                None => None,
            };
            let body = match axum::body::to_bytes(body, MAX_BODY_BYTES).await {
                Ok(body) => body,
                Err(why) => return error(400, format!("Failed to read the body: {why}")),
            };
            let body = match decoded(&parts.headers, body) {
                Ok(body) => body,
                Err(refusal) => return *refusal,
            };
            if executor {
                executor::handle(&requests, &parts.headers, claims.as_ref(), &body).await
            } else {
                operator::call(&requests, &parts.headers, &body).await
            }
        }
        "/health" => empty(200),
        path => {
            let query = parts.uri.query().unwrap_or_default();
            let answer = operator::get(&requests, &parts.method, path, query).await;
            answer.unwrap_or_else(not_found)
        }
    }
}

/// Asks the loop and waits for its answer.
async fn ask<T>(
    requests: &Requests,
    request: Request,
    answer: oneshot::Receiver<T>,
) -> Result<T, Box<Response>> {
    let ending = || Box::new(error(503, "Agent is shutting down"));
    requests.send(request).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())
}

/// Answers from the agent's state as it is.
async fn look<T: Send + 'static>(
    requests: &Requests,
    at: impl FnOnce(&View<'_>) -> T + Send + 'static,
) -> Result<T, Box<Response>> {
    let (reply, answer) = oneshot::channel();
    let look = Request::Look(Box::new(move |view| {
        // Who asked may be gone.
        let _ = reply.send(at(view));
    }));
    ask(requests, look, answer).await
}
