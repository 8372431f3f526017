//! Marathon's answers. Only what is used is named; what else is in them is ignored, since each
//! version adds something.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What Marathon says about itself, `/v2/info`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Info {
    /// `marathon`, or whatever the operator called it.
    pub name: String,
    /// Its version, for instance `1.11.24`.
    pub version: String,
    /// Its framework's id in Mesos.
    #[serde(rename = "frameworkId")]
    pub framework_id: Option<String>,
    /// How it was started.
    pub marathon_config: MarathonConfig,
    /// What was switched on; older versions have it here.
    pub features: Vec<String>,
    /// Where it keeps its state.
    pub zookeeper_config: BTreeMap<String, Value>,
}

/// How Marathon was started.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct MarathonConfig {
    /// Address of the Mesos master, as Marathon was told.
    pub master: Option<String>,
    /// Its role in Mesos, without which it cannot reserve.
    pub mesos_role: Option<String>,
    /// Its principal in Mesos.
    #[serde(alias = "mesos_authentication_principal")]
    pub mesos_principal: Option<String>,
    /// The user that its tasks run as unless their app says otherwise.
    pub mesos_user: Option<String>,
    /// What was switched on: `secrets`, `vips`, ...
    pub features: Vec<String>,
    /// First of the service ports that it gives out.
    pub local_port_min: Option<u16>,
    /// Last of them.
    pub local_port_max: Option<u16>,
}

impl Info {
    /// Whether a feature is switched on.
    pub fn has(&self, feature: &str) -> bool {
        self.features
            .iter()
            .chain(&self.marathon_config.features)
            .any(|f| f == feature)
    }

    /// The longest app that it can store, in bytes, where it says so.
    pub fn longest_app(&self) -> Option<u64> {
        ["zk_max_node_size", "zk_max_node_size_bytes"]
            .iter()
            .find_map(|key| self.zookeeper_config.get(*key)?.as_u64())
    }
}

/// An app as Marathon has it.
#[derive(Debug, Clone, Default)]
pub struct AppState {
    /// Its id, with the leading slash.
    pub id: String,
    /// Everything that Marathon says about it, the definition among it.
    pub definition: Value,
    /// How many instances are wanted.
    pub instances: u32,
    /// Its version, a time.
    pub version: String,
    /// How many tasks are being started.
    pub staged: u32,
    /// How many run.
    pub running: u32,
    /// How many of these are healthy by their checks.
    pub healthy: u32,
    /// How many are not.
    pub unhealthy: u32,
    /// Deployments that change it.
    pub deployments: Vec<DeploymentRef>,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// How the last task that failed did so.
    pub last_failure: Option<TaskFailure>,
}

/// The part of an app that is state.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct State {
    id: String,
    instances: u32,
    version: String,
    tasks_staged: u32,
    tasks_running: u32,
    tasks_healthy: u32,
    tasks_unhealthy: u32,
    deployments: Vec<DeploymentRef>,
    tasks: Vec<Task>,
    last_task_failure: Option<TaskFailure>,
}

impl AppState {
    /// Reads an app from its JSON.
    pub fn from_value(definition: Value) -> Result<Self, serde_json::Error> {
        let state = State::deserialize(&definition)?;
        Ok(Self {
            id: state.id,
            instances: state.instances,
            version: state.version,
            staged: state.tasks_staged,
            running: state.tasks_running,
            healthy: state.tasks_healthy,
            unhealthy: state.tasks_unhealthy,
            deployments: state.deployments,
            tasks: state.tasks,
            last_failure: state.last_task_failure,
            definition,
        })
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.definition["labels"][name].as_str()
    }

    /// The value of a plain environment variable.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.definition["env"][name].as_str()
    }

    /// Whether it has health checks.
    pub fn has_health_checks(&self) -> bool {
        self.definition["healthChecks"]
            .as_array()
            .is_some_and(|checks| !checks.is_empty())
    }
}

/// Names a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeploymentRef {
    /// Its id.
    pub id: String,
}

/// A task of an app.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Task {
    /// Its id, in Mesos as well.
    pub id: String,
    /// The agent's host name.
    pub host: String,
    /// The agent's id.
    pub slave_id: Option<String>,
    /// Host ports, in the order of the app's.
    pub ports: Vec<u16>,
    /// Its state in Mesos, `TASK_RUNNING` and so on.
    pub state: Option<String>,
    /// The app's version that it runs.
    pub version: Option<String>,
    /// When it started, RFC 3339.
    pub started_at: Option<String>,
    /// What its health checks said last.
    pub health_check_results: Vec<HealthResult>,
}

/// What a health check said last.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HealthResult {
    /// Whether the task is healthy by it.
    pub alive: bool,
    /// How often it failed in a row.
    pub consecutive_failures: u32,
    /// Why it failed last.
    pub last_failure_cause: Option<String>,
}

/// How a task failed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskFailure {
    /// The agent's host name.
    pub host: String,
    /// What Mesos said.
    pub message: String,
    /// `TASK_FAILED` and so on.
    pub state: String,
    /// When, RFC 3339.
    pub timestamp: String,
    /// Which task.
    pub task_id: String,
    /// The app's version that failed.
    pub version: String,
}

/// A deployment that is under way.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Deployment {
    /// Its id.
    pub id: String,
    /// Which apps it changes.
    pub affected_apps: Vec<String>,
    /// Which step it is at, from 1.
    pub current_step: u32,
    /// How many there are.
    pub total_steps: u32,
}

/// What a change was answered with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Submitted {
    /// The app's new version.
    pub version: String,
    /// The deployment that brings it about.
    pub deployment_id: String,
}

/// An app that waits for offers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queued {
    /// The app.
    pub app: String,
    /// How long Marathon waits before it tries again, in seconds.
    pub delay_seconds: u64,
    /// Whether that time is over, so that only an offer is missing.
    pub overdue: bool,
    /// Why the last offers were declined, the most frequent reason first, with their number.
    pub rejected: Vec<(String, u64)>,
    /// How many offers were looked at.
    pub offers: u64,
}

impl Queued {
    /// Reads one entry of `/v2/queue`.
    pub fn from_value(entry: &Value) -> Self {
        let summary = &entry["processedOffersSummary"];
        let mut rejected: Vec<(String, u64)> = summary["rejectSummaryLastOffers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|r| {
                let declined = r["declined"].as_u64().filter(|n| *n > 0)?;
                Some((r["reason"].as_str()?.to_owned(), declined))
            })
            .collect();
        rejected.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let app = entry["app"]["id"].as_str().or(entry["pod"]["id"].as_str());
        Self {
            app: app.unwrap_or_default().to_owned(),
            delay_seconds: entry["delay"]["timeLeftSeconds"].as_u64().unwrap_or(0),
            overdue: entry["delay"]["overdue"].as_bool().unwrap_or(false),
            rejected,
            offers: summary["processedOffersCount"].as_u64().unwrap_or(0),
        }
    }

    /// Why it waits, for a person.
    pub fn why(&self) -> String {
        if !self.overdue && self.delay_seconds > 0 {
            return format!(
                "its tasks failed; Marathon tries again in {} s",
                self.delay_seconds
            );
        }
        let reasons: Vec<String> = self
            .rejected
            .iter()
            .map(|(reason, n)| format!("{reason} ({n} offers)"))
            .collect();
        match (reasons.is_empty(), self.offers) {
            (false, _) => format!("no offer fits: {}", reasons.join(", ")),
            (true, 0) => "Mesos has sent Marathon no offer yet".to_owned(),
            (true, n) => format!("waits for offers, {n} looked at"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_app_is_read_with_its_state_and_keeps_what_is_not_named() {
        let value = json!({
            "id": "/kubernetes", "instances": 2, "version": "2026-11-21T11:00:00.000Z",
            "tasksStaged": 1, "tasksRunning": 1, "tasksHealthy": 1, "tasksUnhealthy": 0,
            "deployments": [{"id": "d1"}], "labels": {"A": "b"}, "env": {"X": {"secret": "s"}},
            "tasks": [{"id": "t", "host": "h", "ports": [31000], "state": "TASK_RUNNING", "slaveId": "S0"}],
            "healthChecks": [{"protocol": "MESOS_HTTP"}],
            "lastTaskFailure": {"message": "exited", "state": "TASK_FAILED", "host": "h"},
            "somethingNew": true,
        });
        let app = AppState::from_value(value).unwrap();
        assert_eq!((app.running, app.staged, app.healthy), (1, 1, 1));
        assert_eq!(app.label("A"), Some("b"));
        assert_eq!(app.env("X"), None);
        assert!(app.has_health_checks());
        assert_eq!(app.tasks[0].ports, [31000]);
        assert_eq!(app.last_failure.unwrap().message, "exited");
        assert_eq!(app.definition["somethingNew"], true);
    }

    #[test]
    fn the_queue_says_why_an_app_waits() {
        let entry = json!({
            "app": {"id": "/a"}, "delay": {"timeLeftSeconds": 0, "overdue": true},
            "processedOffersSummary": {
                "processedOffersCount": 4,
                "rejectSummaryLastOffers": [
                    {"reason": "InsufficientCpus", "declined": 1, "processed": 4},
                    {"reason": "InsufficientPorts", "declined": 3, "processed": 4},
                    {"reason": "UnfulfilledRole", "declined": 0, "processed": 4},
                ],
            },
        });
        let why = Queued::from_value(&entry).why();
        assert_eq!(
            why,
            "no offer fits: InsufficientPorts (3 offers), InsufficientCpus (1 offers)"
        );
        let delayed =
            json!({"app": {"id": "/a"}, "delay": {"timeLeftSeconds": 7, "overdue": false}});
        assert!(Queued::from_value(&delayed).why().contains("7 s"));
    }

    #[test]
    fn features_are_found_where_either_version_puts_them() {
        let old: Info = serde_json::from_value(json!({"features": ["secrets"]})).unwrap();
        let new: Info =
            serde_json::from_value(json!({"marathon_config": {"features": ["secrets"]}})).unwrap();
        assert!(old.has("secrets") && new.has("secrets") && !new.has("vips"));
    }
}
