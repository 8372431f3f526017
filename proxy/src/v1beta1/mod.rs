//! Kubernetes' first API, v1beta1, converted to and from v1: pods, replication controllers,
//! services and minions.
//!
//! The rules, in order: what both say is converted; what v1beta1 says and v1 cannot is refused
//! with the field's path; what v1 says and v1beta1 cannot is left out when read, and kept when an
//! object is updated ([`merge`]). Nothing is guessed. The page for users, with every such field,
//! is `docs/v1beta1.md`.
//!
//! Everything here is values; the requests are in [`crate::legacy`].

pub mod controller;
pub mod merge;
pub mod meta;
pub mod minion;
pub mod pod;
pub mod quantity;
pub mod request;
pub mod service;
pub mod status;
pub mod types;

mod container;
mod probe;
mod volume;

use k8s_openapi::api::core::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use request::Resource;

/// The version, as objects say it.
pub const VERSION: &str = "v1beta1";
/// Bytes of an object; API servers take 3 MiB.
pub const MAX_OBJECT: usize = 3 * 1024 * 1024;

/// An object that v1 cannot say, or that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct Refused {
    /// Where in the object, `desiredState.manifest.containers[0].cpu`.
    pub path: String,
    /// What is wrong, and what can be said instead.
    pub why: String,
}

impl Refused {
    /// At a place.
    pub fn at(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            why: why.into(),
        }
    }
}

/// Text that was said: not null and not empty, which meant the same.
pub(crate) fn said(text: Option<&String>) -> Option<String> {
    text.filter(|t| !t.is_empty()).cloned()
}

/// A list with something in it.
pub(crate) fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Reads an object; the error names the field.
fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refused> {
    let mut from = serde_json::Deserializer::from_slice(text);
    let object = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let path = match error.path().to_string() {
            whole if whole == "." || whole == "?" => String::new(),
            path => path,
        };
        Refused::at(path, error.inner().to_string())
    })?;
    from.end()
        .map_err(|error| Refused::at("", format!("after the object: {error}")))?;
    Ok(object)
}

fn value<T: Serialize>(object: &T) -> Result<Value, Refused> {
    serde_json::to_value(object).map_err(|error| Refused::at("", error.to_string()))
}

/// A v1beta1 object as v1. `namespace` is the request's.
pub fn to_v1(resource: Resource, text: &[u8], namespace: Option<&str>) -> Result<Value, Refused> {
    match resource {
        Resource::Pods => value(&pod::to_v1(&read(text)?, namespace)?),
        Resource::ReplicationControllers => value(&controller::to_v1(&read(text)?, namespace)?),
        Resource::Services => value(&service::to_v1(&read(text)?, namespace)?),
        Resource::Minions => value(&minion::to_v1(&read(text)?)?),
    }
}

/// A v1 object as v1beta1.
pub fn from_v1(resource: Resource, object: &Value) -> Result<Value, Refused> {
    fn parse<T: DeserializeOwned>(object: &Value) -> Result<T, Refused> {
        T::deserialize(object).map_err(|error| {
            Refused::at(
                "",
                format!("the API server's answer cannot be read: {error}"),
            )
        })
    }
    match resource {
        Resource::Pods => value(&pod::from_v1(&parse::<v1::Pod>(object)?)),
        Resource::ReplicationControllers => value(&controller::from_v1(&parse::<
            v1::ReplicationController,
        >(object)?)),
        Resource::Services => value(&service::from_v1(&parse::<v1::Service>(object)?)),
        Resource::Minions => value(&minion::from_v1(&parse::<v1::Node>(object)?)),
    }
}

/// A v1 list as v1beta1. Its items have no kind of their own, as lists had it.
pub fn list_from_v1(resource: Resource, list: &Value) -> Result<Value, Refused> {
    let items: Vec<Value> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| from_v1(resource, item))
        .collect::<Result<_, _>>()?;
    let mut out = json!({"kind": resource.list_kind()});
    out["selfLink"] = json!(resource.path());
    if let Some(version) = meta::version(list["metadata"]["resourceVersion"].as_str()) {
        out["resourceVersion"] = json!(version);
    }
    out["apiVersion"] = json!(VERSION);
    if resource == Resource::Minions {
        // The items' first name, which clients of that time read.
        out["minions"] = json!(items);
    }
    out["items"] = json!(items);
    Ok(out)
}

/// An object with its kind and version, as answers and events have it.
pub fn with_kind(resource: Resource, mut object: Value) -> Value {
    let Some(fields) = object.as_object_mut() else {
        return object;
    };
    let mut out = serde_json::Map::new();
    out.insert("kind".to_owned(), json!(resource.kind()));
    fields.remove("kind");
    for (name, value) in std::mem::take(fields) {
        if name == "labels" && !out.contains_key("apiVersion") {
            out.insert("apiVersion".to_owned(), json!(VERSION));
        }
        out.insert(name, value);
    }
    out.entry("apiVersion").or_insert(json!(VERSION));
    Value::Object(out)
}

#[cfg(test)]
mod tests;
