//! Identifiers, each a type of its own so that they cannot be mixed up, and time.
//!
//! Identifiers are shared strings: cloning one is a reference count, because each appears in
//! several tables and in effects.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a string.
            pub fn new(value: impl Into<Arc<str>>) -> Self {
                Self(value.into())
            }

            /// The string.
            pub fn as_str(&self) -> &str {
                &self.0
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

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// A Mesos agent's id.
    AgentId
);
identifier!(
    /// A Mesos offer's id.
    OfferId
);
identifier!(
    /// A Mesos executor's id.
    ExecutorId
);
identifier!(
    /// A Mesos role of ours.
    Role
);
identifier!(
    /// A Mesos task's id; `seam::id::TaskKind` says what it stands for.
    TaskId
);
identifier!(
    /// `metadata.uid` of a pod.
    PodUid
);
identifier!(
    /// Name of a Kubernetes node.
    NodeName
);

/// A moment: milliseconds since the Unix epoch.
///
/// The loop that drives the core makes these from a monotonic clock, so that they never run
/// backwards, whatever happens to the machine's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;
    fn add(self, rhs: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}
