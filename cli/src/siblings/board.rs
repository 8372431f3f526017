//! What DC/OS reads of the service while it works: its plan, and its framework's id.
//!
//! | path | what |
//! |---|---|
//! | `/v1/health` | 200: this task does what it is for |
//! | `/v1/plans/deploy` | 202 while work goes on, 200 when it is done |
//! | `/v1/state/frameworkId` | `["<id>"]`, or `[]` |

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::serving::Server;

/// How far the work is.
#[derive(Debug, Default)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    complete: bool,
    error: Option<String>,
    framework_id: Option<String>,
    keys: Option<String>,
    snapshot: Option<String>,
}

impl Board {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last attempt failed.
    pub fn fails(&self, why: &str) {
        self.with(|i| i.error = Some(why.to_owned()));
    }

    /// Mesos' id of the framework, as far as it is known.
    pub fn framework(&self, id: Option<String>) {
        self.with(|i| i.framework_id = id);
    }

    /// How keys get to the apps, for people.
    pub fn keys(&self, way: String) {
        self.with(|i| i.keys = Some(way));
    }

    /// What was saved of etcd before a change, or why nothing was, for people.
    pub fn snapshot(&self, text: String) {
        self.with(|i| i.snapshot = Some(text));
    }

    /// Nothing is left to be done.
    pub fn complete(&self) {
        self.with(|i| {
            i.complete = true;
            i.error = None;
        });
    }

    /// Why the last attempt failed.
    #[cfg(test)]
    pub fn error(&self) -> Option<String> {
        self.with(|i| i.error.clone())
    }

    fn plan(&self) -> (StatusCode, Value) {
        self.with(|i| {
            let (code, status) = match i.complete {
                true => (StatusCode::OK, "COMPLETE"),
                false => (StatusCode::ACCEPTED, "IN_PROGRESS"),
            };
            let errors: Vec<&String> = i.error.iter().collect();
            let plan = json!({
                "status": status, "strategy": "serial", "errors": errors, "keys": i.keys, "snapshot": i.snapshot,
                "phases": [{"id": "control-plane", "name": "control-plane", "strategy": "serial", "status": status, "steps": []}],
            });
            (code, plan)
        })
    }

    fn framework_id(&self) -> Value {
        self.with(|i| i.framework_id.iter().cloned().collect())
    }
}

/// Serves the board.
pub(crate) async fn serve(port: u16, board: Arc<Board>) -> std::io::Result<Server> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
    Server::on(listener, router(board), "DC/OS")
}

fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/plans/deploy", get(plan))
        .route("/v1/state/frameworkId", get(framework_id))
        .with_state(board)
}

async fn health(State(board): State<Arc<Board>>) -> Json<Value> {
    let (_, plan) = board.plan();
    Json(json!({"state": "control-plane", "plan": plan}))
}

async fn plan(State(board): State<Arc<Board>>) -> (StatusCode, Json<Value>) {
    let (code, plan) = board.plan();
    (code, Json(plan))
}

async fn framework_id(State(board): State<Arc<Board>>) -> Json<Value> {
    Json(board.framework_id())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_plan_is_accepted_until_it_is_done() {
        let board = Arc::new(Board::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let _server = Server::on(listener, router(Arc::clone(&board)), "DC/OS").unwrap();
        let client = crate::http::client(None, Duration::from_secs(10)).unwrap();
        let get = |path: &str| {
            let request = client.get(format!("http://{address}{path}"));
            async move {
                let answer = request.send().await.unwrap();
                (
                    answer.status().as_u16(),
                    answer.json::<Value>().await.unwrap(),
                )
            }
        };
        board.fails("no Marathon");
        board.keys("in the store".to_owned());
        let (code, plan) = get("/v1/plans/deploy").await;
        assert_eq!((code, &plan["errors"]), (202, &json!(["no Marathon"])));
        assert_eq!(plan["keys"], "in the store");
        assert_eq!(get("/v1/health").await.0, 200);
        assert_eq!(get("/v1/state/frameworkId").await.1, json!([]));
        board.framework(Some("f-1".to_owned()));
        board.complete();
        assert_eq!(get("/v1/state/frameworkId").await.1, json!(["f-1"]));
        let (code, plan) = get("/v1/plans/deploy").await;
        assert_eq!((code, &plan["status"]), (200, &json!("COMPLETE")));
    }
}
