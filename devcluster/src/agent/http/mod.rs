//! The agent's HTTP side: executors, operators, and the endpoints that are older than both.

mod body;
mod executor;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::run::{Request, View};
use body::{MAX_CALL, bad_request, method_not_allowed, text};

/// The way to the agent's loop.
pub(super) type Requests = mpsc::Sender<Request>;

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, requests: Requests, stop: CancellationToken) {
    let router = Router::new().fallback(handle).with_state(requests);
    let server = axum::serve(listener, router);
    tokio::select! {
        () = stop.cancelled() => {}
        served = server.into_future() => if let Err(error) = served {
            tracing::error!(%error, "the agent's HTTP server ended");
        }
    }
}

async fn handle(State(requests): State<Requests>, request: HttpRequest<Body>) -> Response {
    let (parts, body) = request.into_parts();
    // `/slave(1)/state`, `/state` and `/state/` are the same.
    let path = parts.uri.path();
    let path = path.strip_prefix("/slave(1)").unwrap_or(path);
    let path = path.trim_end_matches('/').to_owned();
    let post_only =
        || (parts.method != Method::POST).then(|| method_not_allowed(&parts.method, "POST"));
    match path.as_str() {
        "/api/v1/executor" => {
            if let Some(refusal) = post_only() {
                return refusal;
            }
            match axum::body::to_bytes(body, MAX_CALL).await {
                Ok(body) => executor::handle(&requests, &parts.headers, &body).await,
                Err(error) => bad_request(format!("Failed to read the body: {error}")),
            }
        }
        "/health" => StatusCode::OK.into_response(),
        _ => text(StatusCode::NOT_FOUND, "404 Not Found."),
    }
}

/// Asks the loop and waits for its answer.
#[expect(clippy::result_large_err, reason = "the answer is sent at once")]
async fn ask<T>(
    requests: &Requests,
    request: Request,
    answer: oneshot::Receiver<T>,
) -> Result<T, Response> {
    let ending = || text(StatusCode::SERVICE_UNAVAILABLE, "Agent is shutting down");
    requests.send(request).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())
}

/// Answers from the agent's state as it is.
#[expect(clippy::result_large_err, reason = "the answer is sent at once")]
async fn look<T: Send + 'static>(
    requests: &Requests,
    at: impl FnOnce(&View<'_>) -> T + Send + 'static,
) -> Result<T, Response> {
    let (reply, answer) = oneshot::channel();
    let look = Request::Look(Box::new(move |view| {
        // Who asked may be gone.
        let _ = reply.send(at(view));
    }));
    ask(requests, look, answer).await
}
