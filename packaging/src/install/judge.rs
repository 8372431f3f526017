//! How an app stands: what Marathon says about it, and what that means.

use std::collections::BTreeMap;

use serde_json::Value;

use super::INSTALL_LABEL;

/// An app as Marathon has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Everything that Marathon says, the definition among it.
    pub definition: Value,
    /// How many instances are wanted.
    pub instances: u32,
    /// How many tasks are being started.
    pub staged: u32,
    /// How many run.
    pub running: u32,
    /// How many of these are healthy; all that run where there are no checks.
    pub healthy: u32,
    /// How many are not.
    pub unhealthy: u32,
    /// Deployments that are changing it.
    pub deployments: Vec<String>,
    /// The version that is wanted, a time.
    pub version: String,
    /// How the last task that failed did so: version, text.
    pub last_failure: Option<(String, String)>,
    /// Why Marathon waits with its next task.
    pub waits: Option<String>,
    /// Host names of the agents that run it.
    pub hosts: Vec<String>,
}

impl Seen {
    /// Which installation it belongs to.
    pub fn install_id(&self) -> Option<&str> {
        self.definition["labels"][INSTALL_LABEL].as_str()
    }
}

/// The apps of one cluster by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// The apps.
    pub apps: BTreeMap<String, Seen>,
}

/// How an app stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Absent,
    /// It is to have no instances, and has none.
    Stopped,
    /// A deployment is under way, or tasks start.
    Changing(String),
    /// It runs, but not well.
    Unhealthy(String),
    /// Every instance is healthy.
    Healthy,
}

impl Standing {
    /// Looks at an app.
    pub fn of(seen: Option<&Seen>) -> Self {
        let Some(seen) = seen else {
            return Self::Absent;
        };
        if seen.instances == 0 && seen.running == 0 && seen.staged == 0 {
            return if seen.deployments.is_empty() {
                Self::Stopped
            } else {
                Self::Changing("stopping".to_owned())
            };
        }
        if seen.instances == 0 {
            return Self::Changing(format!("{} tasks are ending", seen.running + seen.staged));
        }
        if seen.deployments.is_empty() && seen.healthy >= seen.instances && seen.unhealthy == 0 {
            return Self::Healthy;
        }
        let why = seen.why();
        if seen.deployments.is_empty() && seen.staged == 0 && seen.waits.is_none() {
            Self::Unhealthy(why)
        } else {
            Self::Changing(why)
        }
    }

    /// In a word, for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Stopped => "stopped",
            Self::Changing(_) => "changing",
            Self::Unhealthy(_) => "unhealthy",
            Self::Healthy => "healthy",
        }
    }

    /// Why, for people; empty where there is nothing to say.
    pub fn why(&self) -> &str {
        match self {
            Self::Changing(why) | Self::Unhealthy(why) => why,
            _ => "",
        }
    }
}

impl Seen {
    /// Why it is not healthy, for people.
    fn why(&self) -> String {
        let mut parts = Vec::new();
        parts.push(format!("{} of {} healthy", self.healthy, self.instances));
        if self.staged > 0 {
            parts.push(format!("{} starting", self.staged));
        }
        if let Some(waits) = &self.waits {
            parts.push(waits.clone());
        }
        if let Some((version, text)) = &self.last_failure
            && *version == self.version
        {
            parts.push(format!("its last task failed: {text}"));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(instances: u32, running: u32, healthy: u32) -> Seen {
        Seen {
            instances,
            running,
            healthy,
            version: "v2".to_owned(),
            ..Seen::default()
        }
    }

    #[test]
    fn an_app_is_healthy_when_all_its_instances_are_and_nothing_changes_it() {
        assert_eq!(Standing::of(None), Standing::Absent);
        assert_eq!(Standing::of(Some(&seen(2, 2, 2))), Standing::Healthy);
        assert_eq!(Standing::of(Some(&seen(0, 0, 0))), Standing::Stopped);
        assert_eq!(Standing::of(Some(&seen(2, 2, 1))).word(), "unhealthy");
        assert_eq!(Standing::of(Some(&seen(0, 1, 1))).word(), "changing");
        let mut deploying = seen(1, 1, 1);
        deploying.deployments = vec!["d".to_owned()];
        assert_eq!(Standing::of(Some(&deploying)).word(), "changing");
    }

    #[test]
    fn a_failure_of_an_older_version_is_not_held_against_this_one() {
        let mut app = seen(1, 0, 0);
        app.last_failure = Some(("v1".to_owned(), "exited with 1".to_owned()));
        app.waits = Some("no offer fits".to_owned());
        let standing = Standing::of(Some(&app));
        assert_eq!(standing.why(), "0 of 1 healthy; no offer fits");
        app.last_failure = Some(("v2".to_owned(), "exited with 1".to_owned()));
        assert!(Standing::of(Some(&app)).why().contains("exited with 1"));
    }
}
