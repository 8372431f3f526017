//! What Mesos' agents themselves say. It adds to what the master knows, so an agent that does not
//! answer is left out: it may want credentials that nobody has here, or be away.

use std::time::Duration;

use serde_json::Value;

use super::mesos_view::password;

/// A client of agents.
pub(super) struct Agents(reqwest::Client);

impl Agents {
    /// One whose agents may take `patience` for an answer.
    pub fn new(patience: Duration) -> Option<Self> {
        crate::http::client(None, patience).ok().map(Self)
    }

    /// What the agent at `endpoint`, `address:port`, answers to a GET.
    pub async fn get(&self, endpoint: &str, path: &str) -> Option<Value> {
        let request = self.0.get(format!("http://{endpoint}{path}"));
        let request = match password() {
            Some((principal, secret)) => request.basic_auth(principal, Some(secret)),
            None => request,
        };
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    }
}
