//! Values to try a package's options with: all defaults, and each option at its extremes.

use serde_json::{Map, Value, json};

use crate::cosmos::{Package, Renderer};

/// Texts that break what is put together carelessly.
const ODD: [&str; 4] = ["x", "quote \" and \\", "line\nline\ttab", "<b>&'{{x}}</b>"];

/// An option in `config.json`.
pub(super) struct Leaf<'a> {
    /// Its path: `etcd.count`.
    pub name: String,
    /// What the schema says.
    property: &'a Value,
}

/// The options of a `config.json`.
pub(super) fn leaves(config: Option<&Value>) -> Vec<Leaf<'_>> {
    let mut leaves = Vec::new();
    if let Some(config) = config {
        collect("", config, &mut leaves);
    }
    leaves
}

fn collect<'a>(path: &str, property: &'a Value, leaves: &mut Vec<Leaf<'a>>) {
    let Some(properties) = property.get("properties").and_then(Value::as_object) else {
        leaves.push(Leaf {
            name: path.to_owned(),
            property,
        });
        return;
    };
    for (name, inner) in properties {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect(&path, inner, leaves);
    }
}

/// Users' options that the schema allows: none, and one after the other at its extremes.
pub(super) fn documents(package: &Package, renderer: &Renderer<'_>) -> Vec<Value> {
    let mut documents = vec![json!({})];
    for leaf in leaves(package.config()) {
        let good = jsonschema::draft4::new(leaf.property);
        let Ok(good) = good else { continue };
        for value in candidates(leaf.property) {
            if good.is_valid(&value) {
                documents.push(nested(&leaf.name, value));
            }
        }
    }
    documents.retain(|options| renderer.check(Some(options)).is_ok());
    documents
}

fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |value, name| {
        let mut object = Map::new();
        object.insert(name.to_owned(), value);
        Value::Object(object)
    })
}

fn candidates(property: &Value) -> Vec<Value> {
    let member = |name: &str| property.get(name).cloned();
    if let Some(Value::Array(values)) = member("enum") {
        return values;
    }
    let texts = || ODD.into_iter().map(Value::from);
    match property.get("type").and_then(Value::as_str) {
        Some("boolean") => vec![json!(true), json!(false)],
        Some("integer" | "number") => [member("minimum"), member("maximum")]
            .into_iter()
            .flatten()
            .collect(),
        Some("string") => std::iter::once(json!("")).chain(texts()).collect(),
        Some("array") => vec![
            json!([]),
            json!(["a"]),
            json!(["a", "b"]),
            texts().collect(),
            json!([["hostname", "UNIQUE"]]),
            json!([["rack", "LIKE", "r1|r2"], ["zone", "GROUP_BY", "3"]]),
        ],
        _ => Vec::new(),
    }
}
