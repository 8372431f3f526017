//! What Mesos holds of a cluster beside its frameworks: tasks, reservations and volumes; and what
//! of it nobody needs any more.

use std::collections::BTreeSet;
use std::fmt;

use super::judge::World;

/// A task of a framework that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskSeen {
    /// Its framework's id.
    pub framework: String,
    /// Its id; `<pod uid>.<attempt>` for pods.
    pub id: String,
    /// Its name; `<pod>.<namespace>.pod` for pods, `node.<node>` for nodes.
    pub name: String,
}

/// A resource of an agent that is reserved at run time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reserved {
    /// Host name of the agent.
    pub agent: String,
    /// For which role.
    pub role: String,
    /// What: `disk 10240`.
    pub what: String,
    /// The volume's id, where it is one: Marathon's are `<app>#<path>#<uuid>`.
    pub volume: Option<String>,
    /// Marathon's instance that it is reserved for: `<app>.<more>`.
    pub instance: Option<String>,
}

impl Reserved {
    /// The app of the cluster `name` that it is for; `None` where it is none of the cluster's.
    /// Marathon writes `/` in an app's path as `_`.
    pub fn app(&self, name: &str) -> Option<String> {
        let text = self.volume.as_deref().or(self.instance.as_deref())?;
        let app = text.split(['#', '.']).next().unwrap_or_default();
        app.starts_with(&format!("{name}-cp_"))
            .then(|| format!("/{}", app.replace('_', "/")))
    }
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.volume {
            Some(volume) => write!(f, "the volume {volume} on {}", self.agent),
            None => write!(
                f,
                "{} of {} for the role {}",
                self.what, self.agent, self.role
            ),
        }
    }
}

/// What is reserved for the cluster `name`.
pub fn reserved_for<'a>(
    name: &'a str,
    reserved: &'a [Reserved],
) -> impl Iterator<Item = &'a Reserved> {
    reserved.iter().filter(move |r| r.app(name).is_some())
}

/// What is reserved for apps of the cluster that are not there any more.
pub fn orphan_reservations<'a>(
    name: &str,
    reserved: &'a [Reserved],
    world: &World,
) -> Vec<&'a Reserved> {
    reserved
        .iter()
        .filter(|r| {
            r.app(name)
                .is_some_and(|app| !world.apps.contains_key(&app))
        })
        .collect()
}

/// Tasks of these frameworks without a pod or node in the API: `pods` are pods' uids, `nodes` are
/// nodes' names.
pub fn orphan_tasks<'a>(
    tasks: &'a [TaskSeen],
    frameworks: &[&str],
    pods: &BTreeSet<String>,
    nodes: &BTreeSet<String>,
) -> Vec<&'a TaskSeen> {
    tasks
        .iter()
        .filter(|task| frameworks.contains(&task.framework.as_str()))
        .filter(|task| match task.name.strip_prefix("node.") {
            Some(node) if !task.name.ends_with(".pod") => !nodes.contains(node),
            _ => {
                let uid = task.id.split('.').next().unwrap_or_default();
                !pods.contains(uid)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::judge::Seen;

    fn volume(app: &str) -> Reserved {
        Reserved {
            agent: "agent-1".to_owned(),
            role: "marathon".to_owned(),
            what: "disk 64".to_owned(),
            volume: Some(format!("{app}#etcd-data#1")),
            instance: None,
        }
    }

    #[test]
    fn a_reservation_belongs_to_the_app_that_its_volume_or_instance_names() {
        let mut one = volume("k8s-cp_etcd-0");
        assert_eq!(one.app("k8s").as_deref(), Some("/k8s-cp/etcd-0"));
        assert_eq!(one.app("k8"), None);
        one.volume = None;
        one.instance = Some("k8s-cp_etcd-1.instance-5".to_owned());
        assert_eq!(one.app("k8s").as_deref(), Some("/k8s-cp/etcd-1"));
    }

    #[test]
    fn what_is_reserved_for_an_app_that_is_gone_is_an_orphan() {
        let all = [
            volume("k8s-cp_etcd-0"),
            volume("k8s-cp_etcd-1"),
            volume("other_etcd-1"),
        ];
        let world = World {
            apps: [("/k8s-cp/etcd-0".to_owned(), Seen::default())].into(),
        };
        assert_eq!(orphan_reservations("k8s", &all, &world), [&all[1]]);
        assert_eq!(reserved_for("k8s", &all).count(), 2);
    }

    #[test]
    fn tasks_without_a_pod_or_node_are_orphans_those_of_other_frameworks_are_not_ours() {
        let task = |framework: &str, id: &str, name: &str| TaskSeen {
            framework: framework.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
        };
        let tasks = [
            task("F", "u1.a", "web.default.pod"),
            task("F", "u2.a", "node.default.pod"),
            task("F", "n1.a", "node.agent-1"),
            task("F", "n2.a", "node.agent-2"),
            task("G", "u9.a", "x.default.pod"),
        ];
        let pods = ["u1".to_owned()].into();
        let nodes = ["agent-1".to_owned()].into();
        let found = orphan_tasks(&tasks, &["F"], &pods, &nodes);
        assert_eq!(found, [&tasks[1], &tasks[3]]);
    }
}
