//! From two sets of apps to the steps that lead from one to the other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::marathon::ids::PathId;
use crate::marathon::model::{App, Root};

/// What is done with an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ActionKind {
    /// It is known from now on; no task is started yet.
    StartApplication,
    /// All its tasks end and it is forgotten.
    StopApplication,
    /// It gets or loses tasks.
    ScaleApplication,
    /// Its tasks are replaced.
    RestartApplication,
}

impl ActionKind {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartApplication => "StartApplication",
            Self::StopApplication => "StopApplication",
            Self::ScaleApplication => "ScaleApplication",
            Self::RestartApplication => "RestartApplication",
        }
    }
}

/// What is done with one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What.
    pub kind: ActionKind,
    /// With which.
    pub app: PathId,
}

impl Action {
    /// As the API shows it.
    pub fn document(&self) -> Value {
        json!({"action": self.kind.as_str(), "app": self.app})
    }
}

/// What is done at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// At least one.
    pub actions: Vec<Action>,
}

impl Step {
    /// As the API shows it.
    pub fn document(&self) -> Value {
        let actions: Vec<_> = self.actions.iter().map(Action::document).collect();
        json!({"actions": actions})
    }
}

/// Steps from `original` to `target`: what is not wanted stops first, then apps are started,
/// scaled and replaced after those that they depend on. Nothing to do: no steps.
pub fn plan(original: &Root, target: &Root) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |kind, apps: Vec<PathId>| {
        if !apps.is_empty() {
            let actions = apps.into_iter().map(|app| Action { kind, app }).collect();
            steps.push(Step { actions });
        }
    };
    let missing = |from: &Root, to: &Root| -> Vec<PathId> {
        let apps = from.apps.keys();
        apps.filter(|id| !to.apps.contains_key(*id))
            .cloned()
            .collect()
    };
    add(ActionKind::StopApplication, missing(original, target));
    add(ActionKind::StartApplication, missing(target, original));

    let changed: BTreeSet<&PathId> = target
        .apps
        .iter()
        .filter(|(id, app)| original.apps.get(*id) != Some(*app))
        .map(|(id, _)| id)
        .collect();
    // A cycle is refused before; without layers all would be one.
    let layers = target.layers().unwrap_or_default();
    let mut by_layer: BTreeMap<usize, Vec<Action>> = BTreeMap::new();
    for id in changed {
        let Some(new) = target.apps.get(id) else {
            continue;
        };
        if let Some(kind) = kind_of_change(original.apps.get(id), new) {
            let layer = layers.get(id).copied().unwrap_or_default();
            let app = id.clone();
            by_layer
                .entry(layer)
                .or_default()
                .push(Action { kind, app });
        }
    }
    steps.extend(by_layer.into_values().map(|actions| Step { actions }));
    steps
}

fn kind_of_change(old: Option<&App>, new: &App) -> Option<ActionKind> {
    let Some(old) = old else {
        return Some(ActionKind::ScaleApplication);
    };
    let upgrade = new.is_upgrade_from(old);
    let scaled = !upgrade && new.instances != old.instances;
    if scaled || new.instances == 0 {
        return Some(ActionKind::ScaleApplication);
    }
    // A restart changes nothing but when the configuration last changed.
    let marked = |app: &App| app.version_info.map(|i| i.last_config_change_at);
    (upgrade || marked(old) != marked(new)).then_some(ActionKind::RestartApplication)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marathon::ids::Version;
    use crate::marathon::model::read;

    fn root(apps: &[Value]) -> Root {
        let mut root = Root::default();
        for app in apps {
            let app = read::app(app.clone(), None, &PathId::root()).unwrap();
            root.put(app, Version::default());
        }
        root
    }

    fn told(original: &[Value], target: &[Value]) -> Vec<String> {
        plan(&root(original), &root(target))
            .iter()
            .map(|step| {
                let actions = step.actions.iter();
                let texts = actions.map(|a| format!("{} {}", a.kind.as_str(), a.app));
                texts.collect::<Vec<_>>().join(", ")
            })
            .collect()
    }

    #[test]
    fn new_apps_are_started_and_then_scaled_in_the_order_of_dependencies() {
        let target = [
            json!({"id": "/web", "cmd": "x", "dependencies": ["/api"]}),
            json!({"id": "/api", "cmd": "x", "dependencies": ["/db"]}),
            json!({"id": "/db", "cmd": "x"}),
        ];
        assert_eq!(
            told(&[], &target),
            [
                "StartApplication /api, StartApplication /db, StartApplication /web",
                "ScaleApplication /db",
                "ScaleApplication /api",
                "ScaleApplication /web",
            ]
        );
    }

    #[test]
    fn what_changed_decides_what_is_done() {
        let old = [
            json!({"id": "/a", "cmd": "x"}),
            json!({"id": "/b", "cmd": "x"}),
            json!({"id": "/c", "cmd": "x"}),
            json!({"id": "/d", "cmd": "x"}),
        ];
        let new = [
            json!({"id": "/a", "cmd": "x", "instances": 3}),
            json!({"id": "/b", "cmd": "y", "instances": 2}),
            json!({"id": "/c", "cmd": "x"}),
        ];
        assert_eq!(
            told(&old, &new),
            [
                "StopApplication /d",
                "ScaleApplication /a, RestartApplication /b"
            ]
        );
        assert_eq!(told(&old, &old), Vec::<String>::new());
    }
}
