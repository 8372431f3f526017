//! One option as data: what its type is, what it may be, and what it means. Everything that
//! is generated or checked (`config.json`, the reference page, `--set`, completion) reads these.

use serde_json::{Number, Value};

use super::format::Format;

/// Type of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Text.
    Text,
    /// A list of texts.
    List,
    /// A list of lists of texts: Marathon's constraints.
    Table,
}

impl Kind {
    /// As people and JSON Schema call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "string",
            Self::List => "list of strings",
            Self::Table => "list of lists of strings",
        }
    }
}

/// All options: the one table that everything else is made of.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// The options, in the order of the reference page.
    pub keys: Vec<Key>,
    /// The groups, each with what it is about; a group comes before what it contains.
    pub groups: Vec<(String, String)>,
}

impl Schema {
    /// An option by its path.
    pub fn key(&self, path: &str) -> Option<&Key> {
        self.keys.iter().find(|k| k.path == path)
    }

    /// Whether a path is a group's.
    pub fn is_group(&self, path: &str) -> bool {
        self.groups.iter().any(|(group, _)| group == path)
    }
}

/// An option.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its place: `etcd.count`.
    pub path: String,
    /// Its type.
    pub kind: Kind,
    /// Its value when nothing is said.
    pub default: Value,
    /// Smallest number.
    pub minimum: Option<Number>,
    /// Largest number.
    pub maximum: Option<Number>,
    /// The only values, if these are few.
    pub allowed: Vec<Value>,
    /// What texts look like.
    pub format: Option<Format>,
    /// Whether the empty text is good besides, and means what the description says.
    pub optional: bool,
    /// Most entries of a list, or most bytes of a text.
    pub longest: usize,
    /// What a number counts.
    pub unit: Option<&'static str>,
    /// What it means: sentences for people.
    pub description: String,
    /// Whether ordinary installations leave it alone.
    pub advanced: bool,
    /// Whether it cannot change once the cluster exists.
    pub fixed: bool,
}

/// Most bytes of a text that has no bound of its own.
pub(super) const LONGEST_TEXT: usize = 1024;
/// Most entries of a list that has no bound of its own.
pub(super) const LONGEST_LIST: usize = 64;

impl Key {
    pub(super) fn new(path: String, kind: Kind, default: Value, description: String) -> Self {
        Self {
            path,
            kind,
            default,
            minimum: None,
            maximum: None,
            allowed: Vec::new(),
            format: None,
            optional: false,
            longest: if kind == Kind::Text {
                LONGEST_TEXT
            } else {
                LONGEST_LIST
            },
            unit: None,
            description,
            advanced: false,
            fixed: false,
        }
    }

    /// Numbers of this range, both ends included.
    pub(super) fn range(mut self, minimum: impl Into<Number>, maximum: impl Into<Number>) -> Self {
        self.minimum = Some(minimum.into());
        self.maximum = Some(maximum.into());
        self
    }

    /// Like [`Self::range`], for fractions.
    pub(super) fn fractions(mut self, minimum: f64, maximum: f64) -> Self {
        self.minimum = Number::from_f64(minimum);
        self.maximum = Number::from_f64(maximum);
        self
    }

    /// Only these.
    pub(super) fn one_of<T: Into<Value> + Clone>(mut self, values: &[T]) -> Self {
        self.allowed = values.iter().cloned().map(Into::into).collect();
        self
    }

    /// A user or service port that needs no privilege.
    pub(super) fn port(self) -> Self {
        self.range(1024, 65535)
    }

    /// Like [`Self::port`]; 0 means none.
    pub(super) fn optional_port(mut self) -> Self {
        self.optional = true;
        self.range(0, 65535)
    }

    /// Texts look like this.
    pub(super) fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// The empty text is good too.
    pub(super) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Most entries or bytes.
    pub(super) fn longest(mut self, longest: usize) -> Self {
        self.longest = longest;
        self
    }

    /// What a number counts.
    pub(super) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    /// Ordinary installations leave it alone.
    pub(super) fn advanced(mut self) -> Self {
        self.advanced = true;
        self
    }

    /// It cannot change once the cluster exists.
    pub(super) fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// Its last name: `count` of `etcd.count`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// What it may be, as a person reads it.
    pub fn allows(&self) -> String {
        super::check::allows(self)
    }
}

/// A type of an option's value.
pub(super) trait Typed {
    /// Which.
    const KIND: Kind;
}

impl Typed for bool {
    const KIND: Kind = Kind::Boolean;
}
impl Typed for u16 {
    const KIND: Kind = Kind::Integer;
}
impl Typed for u32 {
    const KIND: Kind = Kind::Integer;
}
impl Typed for u64 {
    const KIND: Kind = Kind::Integer;
}
impl Typed for f64 {
    const KIND: Kind = Kind::Number;
}
impl Typed for String {
    const KIND: Kind = Kind::Text;
}
impl Typed for Vec<String> {
    const KIND: Kind = Kind::List;
}
impl Typed for Vec<Vec<String>> {
    const KIND: Kind = Kind::Table;
}
