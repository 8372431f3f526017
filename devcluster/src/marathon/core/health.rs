//! Health: Marathon's own checks, and what Mesos says of its.

use mesos::pb;
use serde_json::{Value, json};

use super::durable::{Condition, Instance};
use super::task_info::port_of_check;
use super::{CheckId, Core, Effect, Notice, Probe, ProbeId, ProbeResult, Timer};
use crate::marathon::ids::{InstanceId, TaskId, Version};
use crate::marathon::model::App;
use crate::marathon::model::health::{HealthCheck, Protocol};

/// What one check of a task found so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// The first success.
    pub first_success: Option<Version>,
    /// The last success.
    pub last_success: Option<Version>,
    /// The last failure.
    pub last_failure: Option<Version>,
    /// Why it failed.
    pub last_failure_cause: Option<String>,
    /// How many failures in a row.
    pub consecutive_failures: u32,
    /// Whether a probe is under way.
    under_way: bool,
}

impl Health {
    /// Whether the last result was a success.
    pub fn alive(&self) -> bool {
        match (self.last_success, self.last_failure) {
            (Some(success), Some(failure)) => success > failure || self.consecutive_failures == 0,
            (success, _) => success.is_some(),
        }
    }

    /// As tasks of the API show it.
    pub fn document(&self, instance: &InstanceId) -> Value {
        let mut out = json!({
            "alive": self.alive(),
            "consecutiveFailures": self.consecutive_failures,
            "instanceId": instance,
        });
        for (name, value) in [
            ("firstSuccess", self.first_success),
            ("lastSuccess", self.last_success),
            ("lastFailure", self.last_failure),
        ] {
            if let Some(value) = value {
                out[name] = json!(value);
            }
        }
        if let Some(cause) = &self.last_failure_cause {
            out["lastFailureCause"] = cause.as_str().into();
        }
        out
    }
}

impl Core {
    /// A task runs: its checks begin.
    pub(super) fn watch(&mut self, instance: &Instance) {
        let Some(task) = instance.task.as_ref().map(|t| t.id.clone()) else {
            return;
        };
        let Some(app) = self
            .durable
            .app_version(&instance.app, instance.version)
            .cloned()
        else {
            return;
        };
        for (index, check) in app.health_checks.iter().enumerate() {
            self.health
                .entry(task.clone())
                .or_default()
                .entry(index)
                .or_default();
            if !check.by_mesos() {
                self.arm(self.now, Timer::Check(task.clone(), CheckId::Health(index)));
            }
        }
        for index in 0..app.readiness_checks.len() {
            self.readiness
                .entry(task.clone())
                .or_default()
                .entry(index)
                .or_default();
            self.arm(
                self.now,
                Timer::Check(task.clone(), CheckId::Readiness(index)),
            );
        }
    }

    /// The instance and the definition that a check is about, if it still runs.
    pub(super) fn checked(&self, task: &TaskId) -> Option<(Instance, App)> {
        let instance = self.durable.instance_of_task(task.as_str())?;
        if instance.condition != Condition::Running {
            return None;
        }
        let app = self.durable.app_version(&instance.app, instance.version)?;
        Some((instance.clone(), app.clone()))
    }

    pub(super) fn check_due(&mut self, task: &TaskId, check: CheckId) {
        match check {
            CheckId::Health(index) => self.health_check_due(task, index),
            CheckId::Readiness(index) => self.readiness_check_due(task, index),
        }
    }

    fn health_check_due(&mut self, task: &TaskId, index: usize) {
        let Some((instance, app)) = self.checked(task) else {
            return;
        };
        let Some(check) = app.health_checks.get(index).filter(|c| !c.by_mesos()) else {
            return;
        };
        let next = self.now + check.interval_between();
        self.arm(next, Timer::Check(task.clone(), CheckId::Health(index)));
        let health = self.health.entry(task.clone()).or_default();
        let health = health.entry(index).or_default();
        if std::mem::replace(&mut health.under_way, true) {
            return;
        }
        let id = ProbeId {
            task: task.clone(),
            check: CheckId::Health(index),
        };
        match probe(&instance, &app, check) {
            Some(probe) => self.effect(Effect::Probe(id, probe)),
            None => {
                let reason = "the task has no such port".to_owned();
                self.probed(&id, &ProbeResult::Failed { reason });
            }
        }
    }

    pub(super) fn probed(&mut self, probe: &ProbeId, result: &ProbeResult) {
        match probe.check {
            CheckId::Health(index) => self.health_probed(&probe.task, index, result),
            CheckId::Readiness(index) => self.readiness_probed(&probe.task, index, result),
        }
    }

    fn health_probed(&mut self, task: &TaskId, index: usize, result: &ProbeResult) {
        if let Some(health) = self.health.get_mut(task).and_then(|h| h.get_mut(&index)) {
            health.under_way = false;
        }
        let Some((instance, app)) = self.checked(task) else {
            return;
        };
        let Some(check) = app.health_checks.get(index) else {
            return;
        };
        let ignored = check.ignore_http1xx == Some(true);
        let failure = match result {
            ProbeResult::Http { status, .. } if ignored && (100..200).contains(status) => return,
            ProbeResult::Http { status, .. } if (200..400).contains(status) => None,
            ProbeResult::Http { status, .. } => Some(format!("HTTP status {status}")),
            ProbeResult::Connected => None,
            ProbeResult::Failed { reason } => Some(reason.clone()),
        };
        self.health_result(&instance, &app, index, check, failure);
    }

    /// What Mesos says of the check that the executor does.
    pub(super) fn mesos_health(&mut self, instance: &Instance, status: &pb::TaskStatus) {
        let (Some(healthy), Some(app)) = (
            status.healthy,
            self.durable
                .app_version(&instance.app, instance.version)
                .cloned(),
        ) else {
            return;
        };
        let Some(index) = app.health_checks.iter().position(HealthCheck::by_mesos) else {
            return;
        };
        let check = &app.health_checks[index];
        let failure = (!healthy).then(|| "the executor says so".to_owned());
        self.health_result(instance, &app, index, check, failure);
    }

    fn health_result(
        &mut self,
        instance: &Instance,
        app: &App,
        index: usize,
        check: &HealthCheck,
        failure: Option<String>,
    ) {
        let Some(task) = instance.task.as_ref() else {
            return;
        };
        let now = self.timestamp();
        let of_task = self.health.entry(task.id.clone()).or_default();
        let health = of_task.entry(index).or_default();
        let Some(cause) = failure else {
            health.first_success.get_or_insert(now);
            health.last_success = Some(now);
            health.consecutive_failures = 0;
            self.weigh_health(instance, app);
            return;
        };
        let started = task.started_at.unwrap_or(task.staged_at).time();
        let grace = std::time::Duration::from_secs(check.grace_period_seconds.into());
        if health.first_success.is_none() && self.now < started + grace && !check.by_mesos() {
            health.last_failure_cause = Some(cause);
            return;
        }
        health.last_failure = Some(now);
        health.last_failure_cause = Some(cause.clone());
        health.consecutive_failures += 1;
        let failures = health.consecutive_failures;
        let data = json!({
            "appId": app.id,
            "instanceId": instance.id,
            "taskId": task.id,
            "healthCheck": check,
        });
        self.notify(Notice::new("failed_health_check_event", data));
        self.weigh_health(instance, app);
        // The executor itself gives up tasks whose check is its.
        let too_many = check.max_consecutive_failures;
        if !check.by_mesos() && too_many > 0 && failures >= too_many {
            self.kill_unhealthy(&instance.id, &cause);
        }
    }

    /// Whether all checks of an instance succeed; nothing before the first result.
    fn weigh_health(&mut self, instance: &Instance, app: &App) {
        let Some(task) = instance.task.as_ref() else {
            return;
        };
        let known = self.health.get(&task.id);
        let results: Vec<Option<bool>> = (0..app.health_checks.len())
            .map(|index| {
                let health = known.and_then(|h| h.get(&index))?;
                (health.last_success.is_some() || health.last_failure.is_some())
                    .then(|| health.alive())
            })
            .collect();
        let healthy = if results.contains(&Some(false)) {
            Some(false)
        } else if results.iter().all(|r| *r == Some(true)) {
            Some(true)
        } else {
            None
        };
        let Some(current) = self.durable.instance_mut(&instance.id) else {
            return;
        };
        if current.healthy == healthy {
            return;
        }
        current.healthy = healthy;
        self.touch();
        let data = json!({
            "appId": app.id,
            "instanceId": instance.id,
            "taskId": task.id,
            "version": instance.version,
            "alive": healthy == Some(true),
        });
        self.notify(Notice::new("health_status_changed_event", data));
        let data = json!({
            "instanceId": instance.id,
            "runSpecId": app.id,
            "runSpecVersion": instance.version,
            "healthy": healthy,
        });
        self.notify(Notice::new("instance_health_changed_event", data));
    }
}

/// Where a task answers: on its host, or at its own address.
pub(super) fn reachable(
    instance: &Instance,
    app: &App,
    port: Option<u16>,
    index: Option<u16>,
) -> Option<(String, u16)> {
    let task = instance.task.as_ref()?;
    let host = instance.agent.as_ref()?.host.clone();
    if app.uses_host_network() {
        let port = port_of_check(app, port, index, &task.host_ports)?;
        return Some((host, port));
    }
    let at = usize::from(index.unwrap_or(0));
    if port.is_none()
        && let Some(port) = task.host_ports.get(at).copied().flatten()
    {
        return Some((host, port));
    }
    let port = port_of_check(app, port, index, &task.host_ports)?;
    Some((task.addresses.first().cloned().unwrap_or(host), port))
}

fn probe(instance: &Instance, app: &App, check: &HealthCheck) -> Option<Probe> {
    let (host, port) = reachable(instance, app, check.port, check.port_index)?;
    let timeout = check.time_limit();
    Some(match check.protocol {
        Protocol::Tcp => Probe::Tcp {
            host,
            port,
            timeout,
        },
        protocol => {
            let scheme = match protocol {
                Protocol::Https => "https",
                _ => "http",
            };
            let url = format!("{scheme}://{host}:{port}{}", check.http_path());
            Probe::Http { url, timeout }
        }
    })
}
