//! Rules about where tasks run, how they are replaced, and what outlives them.

use super::Found;
use crate::marathon::app::{App, UnreachableStrategy};

pub(super) fn residents(app: &App, found: &mut Found<'_>) {
    let disabled = matches!(app.unreachable_strategy, Some(UnreachableStrategy::Word(_)));
    if !app.is_resident() {
        if app.residency.is_some() {
            found.add("residency", "is for apps with a persistent volume");
        }
        if disabled {
            found.add("unreachableStrategy", "a lost task would never be replaced");
        }
        return;
    }
    if app.residency.is_none() {
        found.add(
            "residency",
            "is needed with a persistent volume before Marathon 1.9",
        );
    }
    if !disabled {
        found.add(
            "unreachableStrategy",
            "must be \"disabled\" with a persistent volume",
        );
    }
    if app.role.as_deref() == Some("*") {
        found.add("role", "nothing can be reserved for the role *");
    }
    if app.accepted_resource_roles.is_some() {
        found.add(
            "acceptedResourceRoles",
            "must be left out with a persistent volume: before Marathon 1.9 it may be [\"*\"] only, from then on anything else",
        );
    }
    for volume in app.container.iter().flat_map(|c| &c.volumes) {
        if volume.persistent.is_some()
            && (volume.container_path.contains('/') || volume.host_path.is_some())
        {
            found.add(
                "container",
                format!(
                    "`{}` of a persistent volume must be one name in the sandbox",
                    volume.container_path
                ),
            );
        }
    }
}

pub(super) fn upgrades(app: &App, found: &mut Found<'_>) {
    let Some(strategy) = app.upgrade_strategy else {
        found.add(
            "upgradeStrategy",
            "is needed: Marathon's default starts twice as many tasks",
        );
        return;
    };
    let (least, over) = (
        strategy.minimum_health_capacity,
        strategy.maximum_over_capacity,
    );
    if !(0.0..=1.0).contains(&least) || !(0.0..=1.0).contains(&over) {
        found.add("upgradeStrategy", "shares are from 0 to 1");
    }
    let single = app
        .labels
        .get("MARATHON_SINGLE_INSTANCE_APP")
        .is_some_and(|v| v == "true");
    if single && (app.instances > 1 || least != 0.0 || over != 0.0) {
        found.add(
            "upgradeStrategy",
            "MARATHON_SINGLE_INSTANCE_APP wants one instance and 0/0",
        );
    }
    if app.is_resident() && over != 0.0 {
        found.add(
            "upgradeStrategy",
            "maximumOverCapacity must be 0 with a persistent volume",
        );
    }
    if app.require_ports && over != 0.0 {
        found.add(
            "upgradeStrategy",
            "maximumOverCapacity must be 0 with fixed ports",
        );
    }
    let instances = f64::from(app.instances);
    if app.instances > 0
        && (instances * least).ceil() >= instances
        && (instances * over).floor() < 1.0
    {
        found.add(
            "upgradeStrategy",
            "no task may end and none may start beside: an upgrade would never begin",
        );
    }
    if app.task_kill_grace_period_seconds.is_none_or(|s| s == 0) {
        found.add(
            "taskKillGracePeriodSeconds",
            "is needed: Mesos' default is 3 s or what the agent says",
        );
    }
}

pub(super) fn constraints(app: &App, found: &mut Found<'_>) {
    for row in &app.constraints {
        let texts: Vec<&str> = row.iter().map(String::as_str).collect();
        let good = match texts.as_slice() {
            [field, "UNIQUE"] | [field, "GROUP_BY"] => !field.is_empty(),
            [field, "CLUSTER" | "LIKE" | "UNLIKE" | "IS", value] => {
                !field.is_empty() && !value.is_empty()
            }
            [field, "GROUP_BY" | "MAX_PER", value] => {
                !field.is_empty() && value.parse::<u32>().is_ok()
            }
            _ => false,
        };
        if !good {
            found.add(
                "constraints",
                format!("{texts:?} is none that Marathon knows"),
            );
        }
    }
}
