//! Readiness: what has to be true of new tasks before a deployment counts them.

use std::time::Duration;

use serde_json::{Value, json};

use super::durable::Instance;
use super::health::reachable;
use super::{CheckId, Core, Effect, Probe, ProbeId, ProbeResult, Timer};
use crate::marathon::ids::TaskId;
use crate::marathon::model::App;

/// What one check of a task found so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Whether it was ready once; then it is asked no more.
    pub ready: bool,
    /// The last answer, where it is to be shown.
    pub last_response: Option<Value>,
    under_way: bool,
}

impl Core {
    pub(super) fn readiness_done(&self, instance: &Instance, app: &App) -> bool {
        let known = instance
            .task
            .as_ref()
            .and_then(|t| self.readiness.get(&t.id));
        (0..app.readiness_checks.len())
            .all(|index| known.and_then(|r| r.get(&index)).is_some_and(|r| r.ready))
    }

    pub(super) fn readiness_check_due(&mut self, task: &TaskId, index: usize) {
        let Some((instance, app)) = self.checked(task) else {
            return;
        };
        let Some(check) = app.readiness_checks.get(index) else {
            return;
        };
        let of_task = self.readiness.entry(task.clone()).or_default();
        let readiness = of_task.entry(index).or_default();
        if readiness.ready {
            return;
        }
        let under_way = std::mem::replace(&mut readiness.under_way, true);
        let next = self.now + Duration::from_secs(check.interval_seconds.max(1).into());
        self.arm(next, Timer::Check(task.clone(), CheckId::Readiness(index)));
        if under_way {
            return;
        }
        let id = ProbeId {
            task: task.clone(),
            check: CheckId::Readiness(index),
        };
        let names = port_names(&app);
        let place = names
            .iter()
            .position(|n| *n == Some(check.port_name.as_str()));
        let place = place.and_then(|p| u16::try_from(p).ok());
        let target = place.and_then(|p| reachable(&instance, &app, None, Some(p)));
        let Some((host, port)) = target else {
            let reason = format!("the task has no port {}", check.port_name);
            self.probed(&id, &ProbeResult::Failed { reason });
            return;
        };
        let scheme = check.protocol.as_str();
        let path = check.path.trim_start_matches('/');
        let probe = Probe::Http {
            url: format!("{scheme}://{host}:{port}/{path}"),
            timeout: Duration::from_secs(check.timeout_seconds.max(1).into()),
        };
        self.effect(Effect::Probe(id, probe));
    }

    pub(super) fn readiness_probed(&mut self, task: &TaskId, index: usize, result: &ProbeResult) {
        let checked = self.checked(task);
        let Some(readiness) = self.readiness.get_mut(task).and_then(|r| r.get_mut(&index)) else {
            return;
        };
        readiness.under_way = false;
        let Some((_, app)) = checked else {
            return;
        };
        let Some(check) = app.readiness_checks.get(index) else {
            return;
        };
        if let ProbeResult::Http {
            status,
            content_type,
            body,
        } = result
        {
            readiness.ready |= check.http_status_codes_for_ready.contains(status);
            if check.preserve_last_response {
                readiness.last_response =
                    Some(json!({"status": status, "contentType": content_type, "body": body}));
            }
        }
    }

    /// What the readiness checks of an app's tasks found, for apps and deployments.
    pub(in crate::marathon) fn readiness_results(&self, app: &App) -> Vec<Value> {
        let mut out = Vec::new();
        for instance in self.durable.instances_of(&app.id) {
            let Some(task) = &instance.task else {
                continue;
            };
            for (index, check) in app.readiness_checks.iter().enumerate() {
                let found = self.readiness.get(&task.id).and_then(|r| r.get(&index));
                let Some(found) = found else {
                    continue;
                };
                let mut result =
                    json!({"name": check.name, "taskId": task.id, "ready": found.ready});
                if let Some(response) = &found.last_response {
                    result["lastResponse"] = response.clone();
                }
                out.push(result);
            }
        }
        out
    }
}

/// Names of an app's ports, by their places.
fn port_names(app: &App) -> Vec<Option<&str>> {
    if app.port_mappings().is_empty() {
        let definitions = app.port_definitions.iter().flatten();
        definitions.map(|d| d.name.as_deref()).collect()
    } else {
        app.port_mappings()
            .iter()
            .map(|m| m.name.as_deref())
            .collect()
    }
}
