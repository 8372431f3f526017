//! Identifiers, each a type of its own, cheap to copy around.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use mesos::pb;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $pb:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The identifier as Mesos writes it in messages.
            pub fn to_pb(&self) -> pb::$pb {
                pb::$pb { value: self.0.to_string() }
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                Self(value.into())
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                Self(value.into())
            }
        }

        impl From<&pb::$pb> for $name {
            fn from(value: &pb::$pb) -> Self {
                Self(value.value.as_str().into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A framework, for instance `<master id>-0000`.
    FrameworkId,
    FrameworkId
);
id!(
    /// An agent, for instance `<master id>-S0`. Stays the same while the agent's work
    /// directory lives.
    AgentId,
    AgentId
);
id!(
    /// A task, unique among the live tasks of a framework.
    TaskId,
    TaskId
);
id!(
    /// An executor, unique for a framework on one agent.
    ExecutorId,
    ExecutorId
);
id!(
    /// An offer, for instance `<master id>-O0`.
    OfferId,
    OfferId
);

/// Why Mesos would refuse an id that a user chose (task, executor, framework, agent ids name
/// directories), or `None` if it is fine.
pub fn why_invalid(id: &str) -> Option<String> {
    // NAME_MAX: an id is one component of a path on the agent.
    const NAME_MAX: usize = 255;
    if id.is_empty() {
        return Some("ID must not be empty".to_owned());
    }
    if id.len() > NAME_MAX {
        return Some(format!("ID must not be greater than {NAME_MAX} characters"));
    }
    if id == "." || id == ".." {
        return Some(format!("'{id}' is disallowed"));
    }
    if id.chars().any(|c| c.is_control() || c == '/' || c == '\\') {
        return Some(format!("'{id}' contains invalid characters"));
    }
    None
}
