//! Task ids. A task id names what it is for without any stored state:
//! `<pod uid>.<attempt>` for a pod, `node.<node name>.<attempt>` for a node.
//! The attempt is random, never a counter, so that an id is not used twice even when every
//! memory of the first use is lost.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a Mesos task id of ours stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TaskKind {
    /// The task of a pod.
    Pod {
        /// `metadata.uid` of the pod.
        uid: String,
        /// Random, eight hexadecimal digits.
        attempt: String,
    },
    /// The task that carries a node's overhead and keeps its executor alive.
    Node {
        /// Name of the Kubernetes node.
        node: String,
        /// Random, eight hexadecimal digits.
        attempt: String,
    },
}

/// A task id that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no task id of ours: expected <pod uid>.<attempt> or node.<node name>.<attempt>")]
pub struct NotOurs(pub String);

impl TaskKind {
    /// A new task id for a pod.
    pub fn pod(uid: &str, attempt: u32) -> Self {
        Self::Pod {
            uid: uid.to_owned(),
            attempt: format!("{attempt:08x}"),
        }
    }

    /// A new task id for a node.
    pub fn node(node: &str, attempt: u32) -> Self {
        Self::Node {
            node: node.to_owned(),
            attempt: format!("{attempt:08x}"),
        }
    }

    /// Reads a task id.
    pub fn parse(id: &str) -> Result<Self, NotOurs> {
        let (stem, attempt) = id.rsplit_once('.').ok_or_else(|| NotOurs(id.to_owned()))?;
        let attempt_ok = attempt.len() == 8 && attempt.bytes().all(|b| b.is_ascii_hexdigit());
        if stem.is_empty() || !attempt_ok {
            return Err(NotOurs(id.to_owned()));
        }
        let attempt = attempt.to_owned();
        Ok(match stem.strip_prefix("node.") {
            Some("") => return Err(NotOurs(id.to_owned())),
            Some(node) => Self::Node {
                node: node.to_owned(),
                attempt,
            },
            None => Self::Pod {
                uid: stem.to_owned(),
                attempt,
            },
        })
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { uid, attempt } => write!(f, "{uid}.{attempt}"),
            Self::Node { node, attempt } => write!(f, "node.{node}.{attempt}"),
        }
    }
}

impl TryFrom<String> for TaskKind {
    type Error = NotOurs;
    fn try_from(value: String) -> Result<Self, NotOurs> {
        Self::parse(&value)
    }
}

impl From<TaskKind> for String {
    fn from(value: TaskKind) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_names_its_pod_or_its_node() {
        let uid = "0b6a8d3c-7b43-4bfb-8a6a-3b9a1f0f8f11";
        let pod = TaskKind::pod(uid, 0xbeef);
        assert_eq!(pod.to_string(), format!("{uid}.0000beef"));
        assert_eq!(TaskKind::parse(&pod.to_string()), Ok(pod));
        let node = TaskKind::node("agent-1.example.org", 7);
        assert_eq!(node.to_string(), "node.agent-1.example.org.00000007");
        assert_eq!(TaskKind::parse(&node.to_string()), Ok(node));
    }

    #[test]
    fn a_foreign_task_id_is_refused_by_name() {
        for id in [
            "",
            "x",
            "a.b",
            "node..00000001",
            ".00000001",
            "marathon.app.1234567",
        ] {
            assert_eq!(TaskKind::parse(id), Err(NotOurs(id.to_owned())), "{id}");
        }
    }
}
