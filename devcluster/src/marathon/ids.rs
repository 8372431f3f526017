//! Names and versions: paths of apps and groups, instances, tasks, deployments.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

use crate::clock::Time;

/// The absolute path of an app or a group: `/`, `/a`, `/a/b`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathId(Arc<str>);

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A segment has characters that host names must not have.
    #[error(
        "must fully match regular expression '^(([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])\\.)*([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])|(\\.|\\.\\.)$'"
    )]
    Segment,
    /// `..` above the root.
    #[error("path must not lead above the root")]
    AboveRoot,
}

impl PathId {
    /// `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Reads a path; one that does not begin with `/` is below `base`.
    pub fn parse(text: &str, base: &Self) -> Result<Self, PathError> {
        let mut segments: Vec<&str> = if text.starts_with('/') {
            Vec::new()
        } else {
            base.segments().collect()
        };
        for segment in text.split('/').filter(|s| !s.is_empty()) {
            match segment {
                "." => {}
                ".." => {
                    segments.pop().ok_or(PathError::AboveRoot)?;
                }
                _ if is_segment(segment) => segments.push(segment),
                _ => return Err(PathError::Segment),
            }
        }
        Ok(Self(format!("/{}", segments.join("/")).into()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Its parts, outermost first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|s| !s.is_empty())
    }

    /// The group that it is in; the root's is the root.
    pub fn parent(&self) -> Self {
        match self.0.rfind('/') {
            Some(0) | None => Self::root(),
            Some(at) => Self(self.0[..at].into()),
        }
    }

    /// Whether it is somewhere below `group`; nothing is below itself.
    pub fn is_below(&self, group: &Self) -> bool {
        if group.is_root() {
            return !self.is_root();
        }
        self.0
            .strip_prefix(&*group.0)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// The groups that it is in, outermost (the root) first.
    pub fn ancestors(&self) -> Vec<Self> {
        let mut groups = Vec::new();
        let mut at = self.clone();
        while !at.is_root() {
            at = at.parent();
            groups.push(at.clone());
        }
        groups.reverse();
        groups
    }

    /// As tasks are named: `/a/b` is `b.a`.
    pub fn to_hostname(&self) -> String {
        self.segments().rev().collect::<Vec<_>>().join(".")
    }

    /// As task ids begin: `/a/b` is `a_b`.
    pub fn safe(&self) -> String {
        self.segments().collect::<Vec<_>>().join("_")
    }
}

/// Whether it is made of parts of host names, with dots between them.
fn is_segment(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split('.').all(|label| {
        label.starts_with(alphanumeric)
            && label.ends_with(alphanumeric)
            && label.chars().all(|c| alphanumeric(c) || c == '-')
    })
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PathId {
    type Error = PathError;
    fn try_from(text: String) -> Result<Self, PathError> {
        Self::parse(&text, &Self::root())
    }
}

impl From<PathId> for String {
    fn from(id: PathId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl Borrow<str> for PathId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Texts that serde reads and writes as such.
macro_rules! as_text {
    ($name:ident) => {
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

as_text!(InstanceId);
as_text!(TaskId);
as_text!(DeploymentId);

/// One place in an app where a task runs, again and again: `a_b.instance-<uuid>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The one with this unique part.
    pub fn new(app: &PathId, unique: Uuid) -> Self {
        Self(format!("{}.instance-{unique}", app.safe()).into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instance that a task belongs to, if the id has the form of one.
    pub fn of_task(task: &str) -> Option<Self> {
        let (instance, rest) = task.rsplit_once("._app.")?;
        rest.parse::<u32>().ok()?;
        instance
            .contains(".instance-")
            .then(|| Self(instance.into()))
    }

    /// The id of its `attempt`th task, from 1.
    pub fn task(&self, attempt: u32) -> TaskId {
        TaskId(format!("{}._app.{attempt}", self.0).into())
    }
}

/// A Mesos task: `<instance>._app.<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A deployment: a UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct DeploymentId(Arc<str>);

impl DeploymentId {
    /// The one with this value.
    pub fn new(value: Uuid) -> Self {
        Self(value.to_string().into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// When a definition was made; milliseconds since 1970-01-01 UTC, written
/// `2015-09-29T15:59:51.164Z`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Version(u64);

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

impl Version {
    /// The moment, to the millisecond.
    pub const fn at(time: Time) -> Self {
        Self(time.as_nanos() / 1_000_000)
    }

    /// One millisecond later.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The moment.
    pub const fn time(self) -> Time {
        Time::from_nanos(self.0.saturating_mul(1_000_000))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let text = OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .and_then(|t| t.format(FORMAT).ok());
        f.write_str(text.as_deref().unwrap_or("9999-12-31T23:59:59.999Z"))
    }
}

/// A text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error.expected.date.isoformat")]
pub struct VersionError;

impl TryFrom<String> for Version {
    type Error = VersionError;
    fn try_from(text: String) -> Result<Self, VersionError> {
        let iso = time::format_description::well_known::Rfc3339;
        let time = OffsetDateTime::parse(&text, &iso).map_err(|_| VersionError)?;
        u64::try_from(time.unix_timestamp_nanos() / 1_000_000)
            .map(Self)
            .map_err(|_| VersionError)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_relative_to_their_group() {
        let base = PathId::parse("/a/b", &PathId::root()).unwrap();
        for (text, path) in [
            ("c", "/a/b/c"),
            ("../c", "/a/c"),
            ("/c/", "/c"),
            ("", "/a/b"),
            ("/", "/"),
            ("x.y-z", "/a/b/x.y-z"),
        ] {
            assert_eq!(PathId::parse(text, &base).unwrap().as_str(), path, "{text}");
        }
        for text in ["A", "a_b", "-a", "a-", "a..b", "ä", "../../.."] {
            assert!(PathId::parse(text, &base).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_know_what_is_around_them() {
        let id = PathId::parse("/a/b/c", &PathId::root()).unwrap();
        assert_eq!(id.to_hostname(), "c.b.a");
        assert_eq!(id.safe(), "a_b_c");
        let groups: Vec<_> = id.ancestors().iter().map(ToString::to_string).collect();
        assert_eq!(groups, ["/", "/a", "/a/b"]);
        assert!(id.is_below(&id.parent()) && id.is_below(&PathId::root()));
        assert!(!id.is_below(&id));
        let other = PathId::parse("/a/bb", &PathId::root()).unwrap();
        assert!(!other.is_below(&id.parent()));
    }

    #[test]
    fn a_task_names_its_instance() {
        let app = PathId::parse("/a/b", &PathId::root()).unwrap();
        let instance = InstanceId::new(&app, Uuid::from_u128(7));
        let task = instance.task(3);
        assert_eq!(
            task.as_str(),
            "a_b.instance-00000000-0000-0000-0000-000000000007._app.3"
        );
        assert_eq!(InstanceId::of_task(task.as_str()), Some(instance));
        assert_eq!(InstanceId::of_task("something-else"), None);
    }

    #[test]
    fn versions_are_written_to_the_millisecond() {
        let version = Version::at(Time::from_nanos(1_443_542_391_164_999_999));
        assert_eq!(version.to_string(), "2015-09-29T15:59:51.164Z");
        assert_eq!(Version::try_from(version.to_string()), Ok(version));
        assert!(Version::try_from("yesterday".to_owned()).is_err());
    }
}
