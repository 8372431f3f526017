//! Documents of apps, tasks and groups.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::marathon::core::{Condition, Core, Instance};
use crate::marathon::ids::PathId;
use crate::marathon::model::{App, Root};

/// What an app's document is to have besides its definition.
#[derive(Debug, Clone, Default)]
pub struct Embed {
    /// Counts of tasks.
    pub counts: bool,
    /// Deployments that change it.
    pub deployments: bool,
    /// Its tasks.
    pub tasks: bool,
    /// Its last failure.
    pub last_failure: bool,
    /// What readiness checks found.
    pub readiness: bool,
    /// Statistics of tasks.
    pub stats: bool,
}

impl Embed {
    /// What `embed` parameters ask for; `prefix` is `app` or `apps`, or `group.apps`.
    pub fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut embed = Self::default();
        for value in values {
            let name = value.rsplit('.').next().unwrap_or(value);
            match name {
                "counts" => embed.counts = true,
                "deployments" => embed.deployments = true,
                "tasks" => embed.tasks = true,
                "lastTaskFailure" => embed.last_failure = true,
                "readiness" => embed.readiness = true,
                "taskStats" => embed.stats = true,
                "failures" => {
                    embed.tasks = true;
                    embed.last_failure = true;
                    embed.deployments = true;
                }
                _ => {}
            }
        }
        embed
    }
}

/// The definition alone.
pub fn definition(app: &App) -> Value {
    serde_json::to_value(app).unwrap_or(Value::Null)
}

/// An app with what is asked for.
pub fn app(core: &Core, app: &App, embed: &Embed) -> Value {
    let mut out = definition(app);
    if embed.counts {
        let (mut staged, mut running, mut healthy, mut unhealthy) = (0, 0, 0, 0);
        for instance in core.durable.instances_of(&app.id) {
            match instance.condition {
                Condition::Provisioned | Condition::Staging | Condition::Starting => staged += 1,
                Condition::Running => running += 1,
                _ => {}
            }
            match instance.healthy {
                Some(true) => healthy += 1,
                Some(false) => unhealthy += 1,
                None => {}
            }
        }
        out["tasksStaged"] = staged.into();
        out["tasksRunning"] = running.into();
        out["tasksHealthy"] = healthy.into();
        out["tasksUnhealthy"] = unhealthy.into();
    }
    if embed.deployments {
        let deployments = core.deployments_of(|id| *id == app.id);
        out["deployments"] = deployments.map(|d| json!({"id": d.id})).collect();
    }
    if embed.tasks {
        out["tasks"] = tasks(core, |id| *id == app.id).into();
    }
    if embed.readiness {
        out["readinessCheckResults"] = core.readiness_results(app).into();
    }
    if embed.last_failure
        && let Some(failure) = core.failures.get(&app.id)
    {
        out["lastTaskFailure"] = json!(failure);
    }
    if embed.stats {
        let total = core
            .durable
            .instances_of(&app.id)
            .filter(|i| i.task.is_some());
        out["taskStats"] = json!({"totalSummary": {"stats": {"counts": {
            "running": total.filter(|i| i.condition == Condition::Running).count()}}}});
    }
    out
}

/// Tasks of some apps.
pub fn tasks(core: &Core, of: impl Fn(&PathId) -> bool) -> Vec<Value> {
    let instances = core.durable.all_instances();
    let of_these = instances.filter(|i| of(&i.app));
    of_these.filter_map(|i| task(core, i)).collect()
}

/// The task of an instance, if it has one.
pub fn task(core: &Core, instance: &Instance) -> Option<Value> {
    let task = instance.task.as_ref()?;
    let agent = instance.agent.as_ref();
    let ports: Vec<u16> = task.host_ports.iter().flatten().copied().collect();
    let addresses: Vec<Value> = task
        .addresses
        .iter()
        .map(|a| json!({"ipAddress": a, "protocol": if a.contains(':') { "IPv6" } else { "IPv4" }}))
        .collect();
    let mut out = json!({
        "id": task.id,
        "appId": instance.app,
        "host": agent.map_or("", |a| &a.host),
        "slaveId": agent.map(|a| &a.id),
        "ports": ports,
        "ipAddresses": addresses,
        "stagedAt": task.staged_at,
        "state": instance.condition.task_state(),
        "version": instance.version,
        "role": instance.role,
        "localVolumes": [],
    });
    if let Some(started) = task.started_at {
        out["startedAt"] = json!(started);
    }
    if let Some(agent) = agent {
        for (name, value) in [("region", &agent.region), ("zone", &agent.zone)] {
            if let Some(value) = value {
                out[name] = value.as_str().into();
            }
        }
    }
    if let Some(reservation) = &instance.reservation {
        out["localVolumes"] = reservation
            .volumes
            .iter()
            .map(|id| json!({"containerPath": id.split('#').nth(1), "persistenceId": id, "runSpecId": instance.app}))
            .collect();
    }
    let app = core.durable.app_version(&instance.app, instance.version);
    if let Some(app) = app {
        out["servicePorts"] = json!(app.service_ports());
    }
    if let Some(health) = core.health.get(&task.id) {
        let known = health.values();
        let results: Vec<Value> = known
            .filter(|h| h.last_success.is_some() || h.last_failure.is_some())
            .map(|h| h.document(&instance.id))
            .collect();
        if !results.is_empty() {
            out["healthCheckResults"] = results.into();
        }
    }
    Some(out)
}

/// A group, as deep as it goes. Without an embedding groups and apps are left out.
pub fn group(core: &Core, root: &Root, id: &PathId, embeds: &BTreeSet<&str>) -> Option<Value> {
    let group = root.groups.get(id)?;
    let mut out = Map::new();
    out.insert("id".to_owned(), json!(id));
    let dependencies = &group.dependencies;
    out.insert("dependencies".to_owned(), json!(dependencies));
    out.insert("version".to_owned(), json!(group.version));
    if embeds.contains("group.apps") {
        let below = root
            .apps
            .values()
            .filter(|a| a.id.parent() == *id && !a.id.is_root());
        let extra = Embed::parse(
            embeds
                .iter()
                .copied()
                .filter(|e| e.starts_with("group.apps.")),
        );
        let apps: Vec<Value> = below.map(|a| app(core, a, &extra)).collect();
        out.insert("apps".to_owned(), apps.into());
    }
    if embeds.contains("group.pods") {
        out.insert("pods".to_owned(), json!([]));
    }
    if embeds.contains("group.groups") {
        let below = root
            .groups
            .keys()
            .filter(|g| !g.is_root() && g.parent() == *id);
        let groups: Vec<Value> = below
            .filter_map(|g| self::group(core, root, g, embeds))
            .collect();
        out.insert("groups".to_owned(), groups.into());
    }
    if !id.is_root() {
        out.insert("enforceRole".to_owned(), group.enforce_role.into());
    }
    Some(out.into())
}
