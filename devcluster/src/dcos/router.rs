//! The admin router's paths: requests are handed on to Marathon, the Mesos master, and the tasks
//! of services.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};

use super::Dcos;
use super::error::Failure;
use super::marathon::label;

/// Headers of one connection, which are not handed on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

pub(super) fn routes() -> Router<Arc<Dcos>> {
    Router::new()
        .route("/marathon/{*rest}", any(to_marathon))
        .route("/mesos/{*rest}", any(to_mesos))
        .route("/service/{name}", any(to_service_root))
        .route("/service/{name}/{*rest}", any(to_service))
        .route("/dcos-metadata/dcos-version.json", get(version))
}

async fn version(State(dcos): State<Arc<Dcos>>) -> Json<Value> {
    Json(
        json!({"version": dcos.release, "dcos-image-commit": "devcluster", "bootstrap-id": "devcluster"}),
    )
}

async fn to_marathon(
    State(dcos): State<Arc<Dcos>>,
    Path(rest): Path<String>,
    request: Request,
) -> Response {
    let target = format!("{}/{rest}", dcos.marathon.base());
    forward(&dcos, &target, request).await
}

async fn to_mesos(
    State(dcos): State<Arc<Dcos>>,
    Path(rest): Path<String>,
    request: Request,
) -> Response {
    let target = format!("{}/{rest}", dcos.mesos);
    forward(&dcos, &target, request).await
}

async fn to_service_root(
    State(dcos): State<Arc<Dcos>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    service(&dcos, &name, "", request).await
}

async fn to_service(
    State(dcos): State<Arc<Dcos>>,
    Path((name, rest)): Path<(String, String)>,
    request: Request,
) -> Response {
    service(&dcos, &name, &rest, request).await
}

async fn service(dcos: &Dcos, name: &str, rest: &str, request: Request) -> Response {
    match address(dcos, name).await {
        Ok(Some(base)) => forward(dcos, &format!("{base}/{rest}"), request).await,
        Ok(None) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("no task of a service named {name} runs\n"),
        )
            .into_response(),
        Err(failure) => (StatusCode::BAD_GATEWAY, format!("{failure}\n")).into_response(),
    }
}

/// Where a service is; `None` when none of its tasks runs.
pub(super) async fn address(dcos: &Dcos, name: &str) -> Result<Option<String>, Failure> {
    let apps = dcos.marathon.apps().await?;
    Ok(apps.iter().find_map(|app| service_of(app, name)))
}

/// Where an app serves a service, if it is that service's.
fn service_of(app: &Value, name: &str) -> Option<String> {
    if label(app, "DCOS_SERVICE_NAME")?.trim_matches('/') != name.trim_matches('/') {
        return None;
    }
    let scheme = label(app, "DCOS_SERVICE_SCHEME").filter(|s| matches!(*s, "http" | "https"))?;
    let index: usize = label(app, "DCOS_SERVICE_PORT_INDEX")?.parse().ok()?;
    let tasks = app["tasks"].as_array()?;
    let task = tasks.iter().find(|t| t["state"] == "TASK_RUNNING")?;
    let host = task["host"].as_str()?;
    let port = task["ports"].get(index)?.as_u64()?;
    Some(format!("{scheme}://{host}:{port}"))
}

/// Hands a request on, and its answer back, both as they come.
async fn forward(dcos: &Dcos, target: &str, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts
        .uri
        .query()
        .map(|q| format!("?{q}"))
        .unwrap_or_default();
    let mut handed = dcos.http.request(parts.method, format!("{target}{query}"));
    for (name, value) in &parts.headers {
        if !HOP_BY_HOP.contains(name) && name != header::CONTENT_LENGTH {
            handed = handed.header(name, value);
        }
    }
    let handed = handed.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    let answer = match handed.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let text = format!("it does not answer: {}\n", error.without_url());
            return (StatusCode::BAD_GATEWAY, text).into_response();
        }
    };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(name) {
            response = response.header(name, value);
        }
    }
    response
        .body(Body::from_stream(answer.bytes_stream()))
        .unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_by_its_three_labels_and_a_running_task() {
        let app = json!({
            "labels": {"DCOS_SERVICE_NAME": "kubernetes", "DCOS_SERVICE_SCHEME": "http", "DCOS_SERVICE_PORT_INDEX": "1"},
            "tasks": [
                {"state": "TASK_STAGING", "host": "a", "ports": [1, 2]},
                {"state": "TASK_RUNNING", "host": "b", "ports": [3, 4]},
            ],
        });
        assert_eq!(
            service_of(&app, "kubernetes").as_deref(),
            Some("http://b:4")
        );
        assert_eq!(service_of(&app, "other"), None);
        for missing in [
            "DCOS_SERVICE_NAME",
            "DCOS_SERVICE_SCHEME",
            "DCOS_SERVICE_PORT_INDEX",
        ] {
            let mut app = app.clone();
            app["labels"].as_object_mut().unwrap().remove(missing);
            assert_eq!(service_of(&app, "kubernetes"), None, "{missing}");
        }
    }
}
