//! Executors that are still ending: after a TEARDOWN the master knows nothing of a framework any
//! more, while its executors have their grace on the agents.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;

use super::Site;
use super::agents::Agents;

/// How long an agent may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long all of them may take.
const ALTOGETHER: Duration = Duration::from_secs(20);
/// Agents that are asked at a time.
const AT_A_TIME: usize = 32;

/// Host names of the agents on which executors of a framework run.
pub(super) async fn agents_with(site: &Site, framework: &str) -> Vec<String> {
    let Ok(agents) = site.mesos.endpoints().await else {
        return Vec::new();
    };
    let Some(client) = Agents::new(PATIENCE) else {
        return Vec::new();
    };
    let asked = agents.into_iter().map(async |(host, endpoint)| {
        let state = client.get(&endpoint, "/state").await?;
        has(&state, framework).then_some(host)
    });
    let found = futures::stream::iter(asked)
        .buffer_unordered(AT_A_TIME)
        .filter_map(std::future::ready)
        .take_until(tokio::time::sleep(ALTOGETHER));
    let mut found: Vec<String> = found.collect().await;
    found.sort();
    found
}

/// Whether an agent's state has executors of a framework that have not ended.
fn has(state: &Value, framework: &str) -> bool {
    let frameworks = state["frameworks"].as_array().into_iter().flatten();
    frameworks
        .filter(|f| f["id"] == framework)
        .filter_map(|f| f["executors"].as_array())
        .any(|executors| !executors.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_executors_that_run_and_are_the_frameworks_count() {
        let state = |executors: Value, completed: Value| {
            json!({
                "frameworks": [
                    {"id": "f", "executors": executors, "completed_executors": completed},
                    {"id": "other", "executors": [{"id": "x"}]},
                ],
                "completed_frameworks": [{"id": "f", "executors": []}],
            })
        };
        assert!(has(&state(json!([{"id": "e"}]), json!([])), "f"));
        assert!(!has(&state(json!([]), json!([{"id": "e"}])), "f"));
        assert!(!has(&json!({"frameworks": []}), "f"));
        assert!(!has(&Value::Null, "f"));
    }
}
