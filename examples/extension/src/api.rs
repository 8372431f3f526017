//! What is answered: admission reviews, discovery, greetings.

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// The aggregated group.
pub const GROUP: &str = "example.k8s.mesosphere.io";
/// Its one version.
pub const VERSION: &str = "v1";
/// Objects with this label are refused by the webhook, whatever its value.
pub const FORBIDDEN: &str = "k8s.mesosphere.io/forbidden";
/// An AdmissionReview holds an object and its predecessor, 1.5 MiB each in etcd's limits.
const BODY_LIMIT: usize = 4 << 20;

/// All paths. `pod` names the one who answers.
pub fn router(pod: &str) -> Router {
    let greetings = greetings(pod);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/validate", post(validate))
        .route("/apis", get(|| async { Json(groups()) }))
        .route(&format!("/apis/{GROUP}"), get(|| async { Json(group()) }))
        .route(
            &format!("/apis/{GROUP}/{VERSION}"),
            get(|| async { Json(resources()) }),
        )
        .route(
            &format!("/apis/{GROUP}/{VERSION}/greetings"),
            get(|| async { Json(greetings) }),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn validate(body: String) -> Response {
    match serde_json::from_str(&body)
        .map_err(|e| e.to_string())
        .and_then(review)
    {
        Ok(answer) => Json(answer).into_response(),
        Err(reason) => (
            StatusCode::BAD_REQUEST,
            format!("no AdmissionReview: {reason}\n"),
        )
            .into_response(),
    }
}

/// The answer to an AdmissionReview.
fn review(review: Value) -> Result<Value, String> {
    let request = &review["request"];
    let uid = request["uid"].as_str().ok_or("request.uid is missing")?;
    let forbidden = !request["object"]["metadata"]["labels"][FORBIDDEN].is_null();
    let mut response = json!({"uid": uid, "allowed": !forbidden});
    if forbidden {
        let name = request["name"].as_str().unwrap_or("the object");
        response["status"] = json!({
            "code": 403,
            "message": format!("{name} has the label {FORBIDDEN}"),
        });
    }
    Ok(json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": response,
    }))
}

fn group_version() -> String {
    format!("{GROUP}/{VERSION}")
}

fn group() -> Value {
    let version = json!({"groupVersion": group_version(), "version": VERSION});
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    })
}

fn groups() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(),
        "resources": [{
            "name": "greetings",
            "singularName": "greeting",
            "namespaced": false,
            "kind": "Greeting",
            "verbs": ["list"],
        }],
    })
}

fn greetings(pod: &str) -> Value {
    json!({
        "kind": "GreetingList",
        "apiVersion": group_version(),
        "metadata": {"resourceVersion": "1"},
        "items": [{
            "kind": "Greeting",
            "apiVersion": group_version(),
            "metadata": {"name": pod},
            "text": "Hello from an API that a pod serves.",
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn ask(method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = router("pod-1").oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn labelled_objects_are_refused_and_others_allowed() {
        for (labels, allowed) in [
            (json!({FORBIDDEN: ""}), false),
            (json!({"app": "x"}), true),
            (Value::Null, true),
        ] {
            let review = json!({"request": {
                "uid": "u-1", "name": "thing", "object": {"metadata": {"labels": labels}},
            }});
            let (status, answer) = ask("POST", "/validate", &review.to_string()).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(answer["response"]["uid"], "u-1");
            assert_eq!(answer["response"]["allowed"], allowed, "{answer}");
        }
        for malformed in ["", "{}", "[1]", r#"{"request":{"uid":7}}"#] {
            let (status, _) = ask("POST", "/validate", malformed).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{malformed}");
        }
    }

    #[tokio::test]
    async fn discovery_leads_to_the_greetings() {
        let (_, groups) = ask("GET", "/apis", "").await;
        let version = groups["groups"][0]["preferredVersion"]["groupVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        let (_, resources) = ask("GET", &format!("/apis/{version}"), "").await;
        let name = resources["resources"][0]["name"].as_str().unwrap();
        let (status, list) = ask("GET", &format!("/apis/{version}/{name}"), "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(list["items"][0]["metadata"]["name"], "pod-1");
    }
}
