//! What tasks said: the end of a file in a task's sandbox, by way of its agent. It helps people to
//! find what is wrong, so whatever does not work is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Site;
use super::agents::Agents;

/// How long an agent may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where our programs write what they say.
const FILE: &str = "stderr";

/// The end of what the last failed task of each of the cluster's apps said, by app. Failures of
/// earlier versions of an app do not count.
pub async fn last_words(site: &Site, name: &str, bytes: u64) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    let Ok(apps) = site.apps(name).await else {
        return words;
    };
    // One that is healthy again is not what is looked for.
    for app in apps.into_iter().filter(|a| a.healthy < a.instances) {
        let Some(failure) = app.last_failure.filter(|f| f.version == app.version) else {
            continue;
        };
        if let Some(text) = end_of(site, &failure.host, &failure.task_id, bytes).await {
            words.insert(app.id, text);
        }
    }
    words
}

/// The end of what the tasks say that run, by task.
pub async fn words(site: &Site, name: &str, bytes: u64) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    for app in site.apps(name).await.unwrap_or_default() {
        for task in app.tasks {
            if let Some(text) = end_of(site, &task.host, &task.id, bytes).await {
                words.insert(task.id, text);
            }
        }
    }
    words
}

/// The end of a task's file; `None` where the agent does not say.
async fn end_of(site: &Site, host: &str, task: &str, bytes: u64) -> Option<String> {
    let agents = site.mesos.endpoints().await.ok()?;
    let (_, endpoint) = agents.into_iter().find(|(name, _)| name == host)?;
    let client = Agents::new(PATIENCE)?;
    let get = async |path: &str| client.get(&endpoint, path).await;
    let directory = directory(&get("/state").await?, task)?;
    let path: String = form(&format!("{directory}/{FILE}"));
    // Without an offset the agent says how long the file is.
    let about = get(&format!("/files/read?path={path}&offset=-1")).await?;
    let from = about["offset"].as_u64()?.saturating_sub(bytes);
    let read = format!("/files/read?path={path}&offset={from}&length={bytes}");
    let text = get(&read).await?["data"].as_str()?.to_owned();
    // A line that is cut says less than none.
    let whole = match from {
        0 => text.as_str(),
        _ => text.split_once('\n').map_or("", |(_, rest)| rest),
    };
    Some(whole.trim_end().to_owned()).filter(|t| !t.is_empty())
}

fn form(text: &str) -> String {
    reqwest::Url::parse_with_params("http://x/", [("p", text)])
        .ok()
        .and_then(|url| url.query()?.strip_prefix("p=").map(str::to_owned))
        .unwrap_or_default()
}

/// The sandbox of a task of the command executor, which is called as its task. An executor that
/// ran several times has several; the last one counts.
fn directory(state: &Value, task: &str) -> Option<String> {
    let all = ["frameworks", "completed_frameworks"];
    let frameworks = all.iter().filter_map(|k| state[k].as_array()).flatten();
    let kinds = ["executors", "completed_executors"];
    frameworks
        .flat_map(|f| kinds.iter().filter_map(|k| f[k].as_array()).flatten())
        .filter(|e| e["id"] == task)
        .filter_map(|e| e["directory"].as_str())
        .next_back()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tasks_sandbox_is_found_among_what_runs_and_what_has_ended() {
        let state = json!({"frameworks": [{
            "executors": [{"id": "a.1", "directory": "/s/a1"}],
            "completed_executors": [{"id": "a.0", "directory": "/s/a0"}],
        }]});
        assert_eq!(directory(&state, "a.0").as_deref(), Some("/s/a0"));
        assert_eq!(directory(&state, "a.1").as_deref(), Some("/s/a1"));
        assert_eq!(directory(&state, "b"), None);
    }

    #[test]
    fn a_path_is_written_so_that_an_agent_reads_it() {
        assert_eq!(form("/a b/c&d"), "%2Fa+b%2Fc%26d");
    }
}
