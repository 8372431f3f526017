//! Options from several places, later ones over earlier ones: files, then `--set`. Objects merge,
//! lists and values replace, as Cosmos does it.

use serde_json::{Map, Value};

use super::{Kind, Options, Problem, Problems, What, check, schema};

/// Largest options file, bytes.
pub const LARGEST_DOCUMENT: usize = 1 << 20;

/// Options being put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Layers {
    document: Value,
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl Layers {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self {
            document: Value::Object(Map::new()),
        }
    }

    /// Lays a document over what is there: YAML, of which JSON is a part. The text's syntax is
    /// checked here, its content by [`Self::finish`].
    pub fn document(&mut self, text: &str) -> Result<(), Problems> {
        let one = |why: String| Problems(vec![Problem::document(why)]);
        if text.len() > LARGEST_DOCUMENT {
            return Err(one(format!(
                "{} bytes, where at most {LARGEST_DOCUMENT} are read",
                text.len()
            )));
        }
        // By way of YAML's own values, which know of duplicate keys.
        let parsed: serde_yaml::Value =
            serde_yaml::from_str(text).map_err(|e| one(e.to_string()))?;
        let value = serde_json::to_value(&parsed).map_err(|e| one(e.to_string()))?;
        self.value(value)
    }

    /// Lays a parsed document over what is there.
    pub fn value(&mut self, value: Value) -> Result<(), Problems> {
        match value {
            // An empty file, or one of comments only.
            Value::Null => Ok(()),
            Value::Object(_) => {
                merge(&mut self.document, value);
                Ok(())
            }
            other => Err(Problems(vec![Problem::document(format!(
                "an object of options is wanted, this is {}",
                check::shown(&other)
            ))])),
        }
    }

    /// Lays one `path=value` over what is there; the option's type says how the value is read.
    /// Lists are JSON arrays, or texts with commas between them; `\,` is a comma in a text.
    pub fn set(&mut self, assignment: &str) -> Result<(), Problems> {
        let problem = |path: &str, what| {
            Problems(vec![Problem {
                path: path.to_owned(),
                what,
            }])
        };
        let Some((path, text)) = assignment.split_once('=') else {
            return Err(problem(
                assignment,
                What::Value {
                    value: "an option without a value".to_owned(),
                    allowed: "an option's path, `=`, and its value, for instance etcd.count=1"
                        .to_owned(),
                },
            ));
        };
        let path = path.trim();
        let Some(key) = schema().key(path) else {
            return Err(Problems(vec![check::unknown(path)]));
        };
        let value = match key.kind {
            Kind::Text => Some(Value::from(text)),
            Kind::Boolean | Kind::Integer | Kind::Number => serde_json::from_str(text.trim()).ok(),
            Kind::List if text.trim_start().starts_with('[') => serde_json::from_str(text).ok(),
            Kind::List => Some(Value::from(entries(text))),
            Kind::Table if text.trim().is_empty() => Some(Value::Array(Vec::new())),
            Kind::Table => serde_json::from_str(text).ok(),
        };
        let value = value.unwrap_or_else(|| Value::from(text));
        match check::value(key, &value) {
            None => {
                put(&mut self.document, path, value);
                Ok(())
            }
            Some(what) => Err(problem(path, what)),
        }
    }

    /// The document as it is.
    pub fn said(&self) -> &Value {
        &self.document
    }

    /// The options. Every problem is reported.
    pub fn finish(&self) -> Result<Options, Problems> {
        Options::from_value(&self.document)
    }
}

/// The entries of `a,b`; none for the empty text.
fn entries(text: &str) -> Vec<String> {
    let mut entries = Vec::new();
    if text.is_empty() {
        return entries;
    }
    let mut entry = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&',') => {
                entry.push(',');
                chars.next();
            }
            ',' => entries.push(std::mem::take(&mut entry)),
            c => entry.push(c),
        }
    }
    entries.push(entry);
    entries
}

/// Merges `over` into `base`: objects member by member, everything else replaces.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                match base.get_mut(&name) {
                    Some(there) => merge(there, value),
                    None => {
                        base.insert(name, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// The value at a path.
pub(super) fn get<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.')
        .try_fold(document, |value, name| value.get(name))
}

/// Sets the value at a path, making the objects on the way. What is in the way is replaced.
pub(super) fn put(document: &mut Value, path: &str, value: Value) {
    let (group, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut place = document;
    for step in group.split('.').filter(|s| !s.is_empty()) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = match place {
            Value::Object(object) => object
                .entry(step)
                .or_insert_with(|| Value::Object(Map::new())),
            // Just made an object.
            _ => return,
        };
    }
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    if let Value::Object(object) = place {
        object.insert(name.to_owned(), value);
    }
}
