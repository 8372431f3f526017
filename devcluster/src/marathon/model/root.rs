//! All groups and apps.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::App;
use crate::marathon::ids::{PathId, Version};

/// A group, without what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Apps or groups that must run before all that is in it.
    #[serde(default)]
    pub dependencies: Vec<PathId>,
    /// When it was last changed.
    #[serde(default)]
    pub version: Version,
    /// Whether its name is the role of what is in it.
    #[serde(default)]
    pub enforce_role: bool,
}

/// All groups and apps, by their paths. A path is a group's or an app's, never both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// The groups; `/` among them.
    pub groups: BTreeMap<PathId, Group>,
    /// The apps.
    pub apps: BTreeMap<PathId, App>,
}

impl Default for Root {
    fn default() -> Self {
        Self {
            groups: [(PathId::root(), Group::default())].into(),
            apps: BTreeMap::new(),
        }
    }
}

impl Root {
    /// Adds or replaces an app, and the groups that it is in.
    pub fn put(&mut self, app: App, version: Version) {
        for id in app.id.ancestors() {
            self.groups.entry(id).or_insert_with(|| Group {
                version,
                ..Group::default()
            });
        }
        self.apps.insert(app.id.clone(), app);
    }

    /// Removes an app; groups stay.
    pub fn remove_app(&mut self, id: &PathId) {
        self.apps.remove(id);
    }

    /// Removes a group with all that is in it. The root itself stays.
    pub fn remove_group(&mut self, id: &PathId) {
        self.apps.retain(|app, _| !app.is_below(id));
        self.groups
            .retain(|group, _| group.is_root() || (group != id && !group.is_below(id)));
    }

    /// Apps somewhere in a group.
    pub fn apps_below(&self, group: &PathId) -> impl Iterator<Item = &App> {
        self.apps.values().filter(move |a| a.id.is_below(group))
    }

    /// On which apps each app depends: by itself or by a group that it is in.
    pub fn dependencies(&self) -> BTreeMap<&PathId, BTreeSet<&PathId>> {
        let mut edges = BTreeMap::new();
        for app in self.apps.values() {
            let mut wanted: Vec<PathId> = Vec::new();
            let base = app.id.parent();
            let own = app.dependencies.iter();
            wanted.extend(own.filter_map(|d| PathId::parse(d, &base).ok()));
            for group in app.id.ancestors() {
                if let Some(group) = self.groups.get(&group) {
                    wanted.extend(group.dependencies.iter().cloned());
                }
            }
            let mut on = BTreeSet::new();
            for target in wanted {
                if let Some((id, _)) = self.apps.get_key_value(&target) {
                    on.insert(id);
                }
                on.extend(self.apps_below(&target).map(|a| &a.id));
            }
            on.remove(&app.id);
            edges.insert(&app.id, on);
        }
        edges
    }

    /// For each app the length of the longest chain of dependencies that begins with it;
    /// nothing if there is a cycle.
    pub fn layers(&self) -> Option<BTreeMap<&PathId, usize>> {
        let mut edges = self.dependencies();
        let mut layers: BTreeMap<&PathId, usize> = BTreeMap::new();
        while !edges.is_empty() {
            let ready: Vec<&PathId> = edges
                .iter()
                .filter(|(_, on)| on.iter().all(|d| layers.contains_key(d)))
                .map(|(id, _)| *id)
                .collect();
            if ready.is_empty() {
                return None;
            }
            for id in ready {
                let on = edges.remove(id).unwrap_or_default();
                let below = on.iter().filter_map(|d| layers.get(d)).max();
                layers.insert(id, below.map_or(0, |l| l + 1));
            }
        }
        Some(layers)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::marathon::model::read;

    fn path(text: &str) -> PathId {
        PathId::parse(text, &PathId::root()).unwrap()
    }

    fn root(apps: &[(&str, &[&str])]) -> Root {
        let mut root = Root::default();
        for (id, dependencies) in apps {
            let app = json!({"id": id, "cmd": "x", "dependencies": dependencies});
            root.put(
                read::app(app, None, &PathId::root()).unwrap(),
                Version::default(),
            );
        }
        root
    }

    #[test]
    fn layers_follow_dependencies_on_apps_and_groups() {
        let mut root = root(&[
            ("/db", &[]),
            ("/b/web", &["../db"]),
            ("/b/api", &["/db"]),
            ("/c/front", &[]),
        ]);
        root.groups.get_mut(&path("/c")).unwrap().dependencies = vec![path("/b")];
        let layers = root.layers().unwrap();
        assert_eq!(layers[&path("/db")], 0);
        assert_eq!(layers[&path("/b/web")], 1);
        assert_eq!(layers[&path("/b/api")], 1);
        assert_eq!(layers[&path("/c/front")], 2);
    }

    #[test]
    fn a_cycle_has_no_layers() {
        assert_eq!(root(&[("/a", &["/b"]), ("/b", &["/a"])]).layers(), None);
    }

    #[test]
    fn removing_a_group_removes_what_is_in_it() {
        let mut root = root(&[("/a/b/c", &[]), ("/a/d", &[]), ("/ab", &[])]);
        root.remove_group(&path("/a"));
        let left: Vec<_> = root.apps.keys().map(PathId::as_str).collect();
        assert_eq!(left, ["/ab"]);
        assert_eq!(root.groups.len(), 1);
    }
}
