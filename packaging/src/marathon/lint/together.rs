//! Rules about apps beside each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Found};
use crate::marathon::app::{App, AppId};

/// What concerns several apps.
pub(super) fn together(apps: &[App], findings: &mut Vec<Finding>) {
    let mut ids = BTreeSet::new();
    let mut ports: BTreeMap<u16, &AppId> = BTreeMap::new();
    for app in apps {
        let mut found = Found {
            app: &app.id,
            findings,
        };
        if !ids.insert(&app.id) {
            found.add("id", "twice");
        }
        let below = format!("{}/", app.id);
        if let Some(other) = apps.iter().find(|o| o.id.as_str().starts_with(&below)) {
            found.add(
                "id",
                format!(
                    "is also the group of {}; an app and a group cannot share an id",
                    other.id
                ),
            );
        }
        // Members of etcd never share an agent; all others may.
        let definitions = app.port_definitions.iter().flatten();
        for definition in definitions.filter(|d| d.port != 0) {
            match ports.get(&definition.port) {
                Some(other) if !pinned_apart(apps, app, other) => {
                    found.add(
                        "portDefinitions",
                        format!(
                            "port {} is also {other}'s; both may be on one agent",
                            definition.port
                        ),
                    );
                }
                _ => {
                    ports.insert(definition.port, &app.id);
                }
            }
        }
    }
    for app in apps {
        let mut found = Found {
            app: &app.id,
            findings,
        };
        if reaches(apps, app, &app.id, &mut BTreeSet::new()) {
            found.add("dependencies", "lead back to the app itself");
        }
        for dependency in &app.dependencies {
            if !ids.contains(dependency) {
                found.add("dependencies", format!("there is no {dependency}"));
            }
        }
    }
}

/// Whether constraints keep two apps on different agents.
fn pinned_apart(apps: &[App], app: &App, other: &AppId) -> bool {
    let agent = |app: &App| {
        app.constraints.iter().find_map(|row| match row.as_slice() {
            [field, operator, value] if field == "hostname" && operator == "CLUSTER" => {
                Some(value.clone())
            }
            _ => None,
        })
    };
    let other = apps.iter().find(|a| a.id == *other).and_then(agent);
    matches!((agent(app), other), (Some(a), Some(b)) if a != b)
}

fn reaches<'a>(apps: &'a [App], from: &'a App, to: &AppId, seen: &mut BTreeSet<&'a AppId>) -> bool {
    from.dependencies.iter().any(|d| {
        d == to
            || (seen.insert(d)
                && apps
                    .iter()
                    .find(|a| a.id == *d)
                    .is_some_and(|next| reaches(apps, next, to, seen)))
    })
}
