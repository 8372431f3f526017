//! `/healthz`, `/readyz` and `/metrics`.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::backends::Backends;

/// What the status page knows.
#[derive(Clone)]
pub struct Status {
    /// The API servers.
    pub backends: Backends,
    /// The metrics.
    pub registry: Arc<Registry>,
    /// Set once the front door is to end.
    pub stopping: CancellationToken,
}

/// Serves until `end`.
pub async fn serve(status: Status, listener: TcpListener, end: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(end.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "health and metrics");
    }
}

/// 200 when a connection would find an API server, else 503; the text says how each one is.
async fn readyz(State(status): State<Status>) -> impl IntoResponse {
    let ready = status.backends.ready() > 0 && !status.stopping.is_cancelled();
    let mut text = String::new();
    if status.stopping.is_cancelled() {
        text.push_str("[-] ending\n");
    }
    for (backend, health, connections) in status.backends.report() {
        let mark = if status.backends.is_ready(&backend) {
            '+'
        } else {
            '-'
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "[{mark}] {backend} {health}, {connections} connections"
        );
    }
    if text.is_empty() {
        text.push_str("[-] no API server is known\n");
    }
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, text)
}

async fn metrics(State(status): State<Status>) -> impl IntoResponse {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &status.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, TYPE)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}
