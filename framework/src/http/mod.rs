//! The framework's HTTP server.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | 200 while the scheduling loop moves, 503 when it hangs; for health checks |
//! | `/v1/health` | the state as JSON ([`status::Status`]) |
//! | `/v1/plans/deploy` | for DC/OS: 200 once everything that this service runs is up, 202 until then |
//! | `/v1/state/frameworkId` | for DC/OS: `["<id>"]`, or `[]` as long as there is none |
//! | `/metrics` | [`crate::metrics`] |
//! | `/artifacts/<sha256>/<name>` | files for Mesos' fetcher and our executors, with Range and ETag |
//!
//! Everything here is public to whoever reaches the port, so it holds no secret. What executors
//! fetch is named by its digest, which they check.

pub mod artifacts;
mod range;
pub mod server;
pub mod status;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::metrics::{self, Metrics};
use artifacts::Artifacts;
use status::Status;

/// What the server shows.
#[derive(Debug, Clone)]
pub struct App {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The latest state.
    pub status: watch::Receiver<Arc<Status>>,
    /// Files.
    pub artifacts: Artifacts,
}

/// The routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v1/health", get(health))
        .route("/v1/plans/deploy", get(plan))
        .route("/v1/state/frameworkId", get(framework_id))
        .route("/metrics", get(show_metrics))
        .route("/artifacts/{digest}/{name}", get(artifacts::serve))
        .with_state(app)
}

async fn healthz(State(app): State<App>) -> Response {
    let status = app.status.borrow().clone();
    match status.hangs() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn health(State(app): State<App>) -> Response {
    let status = app.status.borrow().clone();
    let code = if status.hangs().is_none() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, axum::Json(status.as_ref().clone())).into_response()
}

/// The control plane runs when this does; what is left is Mesos.
async fn plan(State(app): State<App>) -> Response {
    let status = app.status.borrow().clone();
    let up = status.connected && status.recovered && status.ended.is_none();
    let (code, word) = match up {
        true => (StatusCode::OK, "COMPLETE"),
        false => (StatusCode::ACCEPTED, "IN_PROGRESS"),
    };
    let errors: Vec<&String> = status.problem.iter().chain(&status.ended).collect();
    let steps = serde_json::json!([]);
    let phase = serde_json::json!({"id": "framework", "name": "framework", "strategy": "serial", "status": word, "steps": steps});
    let plan = serde_json::json!({"status": word, "strategy": "serial", "errors": errors, "phases": [phase]});
    (code, axum::Json(plan)).into_response()
}

async fn framework_id(State(app): State<App>) -> Response {
    let ids: Vec<String> = app.status.borrow().framework_id.iter().cloned().collect();
    axum::Json(ids).into_response()
}

async fn show_metrics(State(app): State<App>) -> Response {
    let headers = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (headers, app.metrics.encode()).into_response()
}

#[cfg(test)]
mod tests;
