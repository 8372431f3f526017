//! The Universe's `config.json`: the table of options as JSON Schema draft-4, which Cosmos takes
//! defaults from and validates users' options by. ASCII throughout, as the Universe demands.
//!
//! It is coarser than our own checks (no cross-checks, patterns instead of parsers), never finer.

use serde_json::{Map, Value, json};

use super::format::Format;
use super::key::{Key, Kind, Schema};

/// The document.
pub fn config_json(schema: &Schema) -> Value {
    let mut root = object("All options of a Kubernetes cluster on Mesos.");
    root.insert(
        "$schema".to_owned(),
        "http://json-schema.org/schema#".into(),
    );
    let mut root = Value::Object(root);
    for (path, about) in &schema.groups {
        insert(&mut root, path, Value::Object(object(about)));
    }
    for key in &schema.keys {
        insert(&mut root, &key.path, property(key));
    }
    root
}

fn object(about: &str) -> Map<String, Value> {
    let document = json!({
        "type": "object",
        "description": about,
        "additionalProperties": false,
        "properties": {},
    });
    match document {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Puts a property at its place; its groups are there already.
fn insert(root: &mut Value, path: &str, property: Value) {
    let place = path
        .split('.')
        .fold(root, |place, name| &mut place["properties"][name]);
    *place = property;
}

fn property(key: &Key) -> Value {
    let mut property = json!({
        "type": kind(key.kind),
        "description": description(key),
        "default": key.default,
    });
    let mut set = |name: &str, value: Value| property[name] = value;
    if !key.allowed.is_empty() {
        set("enum", key.allowed.clone().into());
        return property;
    }
    if let Some(minimum) = &key.minimum {
        set("minimum", minimum.clone().into());
    }
    if let Some(maximum) = &key.maximum {
        set("maximum", maximum.clone().into());
    }
    match key.kind {
        Kind::Text => {
            set("maxLength", key.longest.into());
            match (key.format, key.optional) {
                (Some(format), true) => set("pattern", format!("^$|{}", format.pattern()).into()),
                (Some(format), false) => set("pattern", format.pattern().into()),
                (None, true) => {}
                (None, false) => set("minLength", 1.into()),
            }
        }
        Kind::List => {
            set("maxItems", key.longest.into());
            set(
                "items",
                match key.format.map(Format::pattern) {
                    Some(pattern) => json!({"type": "string", "pattern": pattern}),
                    None => json!({"type": "string", "minLength": 1}),
                },
            );
        }
        Kind::Table => {
            set("maxItems", key.longest.into());
            let row = json!({
                "type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "string"},
            });
            set("items", row);
        }
        Kind::Boolean | Kind::Integer | Kind::Number => {}
    }
    property
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "boolean",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Text => "string",
        Kind::List | Kind::Table => "array",
    }
}

/// The description, with what JSON Schema has no word for.
fn description(key: &Key) -> String {
    let mut text = key.description.clone();
    if let Some(unit) = key.unit {
        text.push_str(&format!(" Unit: {unit}."));
    }
    if key.fixed {
        text.push_str(" Cannot be changed later.");
    }
    text
}
