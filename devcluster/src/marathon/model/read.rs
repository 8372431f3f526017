//! From the JSON of a request to an app: deprecated forms become today's, unknown fields and
//! wrong types are told with their path.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::App;
use crate::marathon::error::{ApiError, Violation};
use crate::marathon::ids::PathId;

/// What only answers have. Whoever sends an answer back as it came is understood.
const ANSWER_ONLY: [&str; 9] = [
    "tasksStaged",
    "tasksRunning",
    "tasksHealthy",
    "tasksUnhealthy",
    "deployments",
    "readinessCheckResults",
    "tasks",
    "lastTaskFailure",
    "taskStats",
];

/// Reads the body of a request.
pub fn json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::Syntax(e.to_string()))
}

/// The fields of an object.
pub fn object(value: Value) -> Result<Map<String, Value>, ApiError> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(ApiError::Malformed(vec![Violation::new(
            "",
            "error.expected.jsobject",
        )])),
    }
}

/// A complete definition. `id`, where it is given, takes the place of that in the object.
pub fn app(value: Value, id: Option<&PathId>, base: &PathId) -> Result<App, ApiError> {
    let mut fields = object(value)?;
    prepare(&mut fields)?;
    if let Some(id) = id {
        fields.insert("id".to_owned(), id.as_str().into());
    } else {
        let text = fields.get("id").and_then(Value::as_str).unwrap_or("");
        if text.is_empty() {
            return Err(ApiError::Malformed(vec![Violation::new(
                "/id",
                "error.path.missing",
            )]));
        }
        let id = PathId::parse(text, base)
            .map_err(|e| ApiError::Invalid(vec![Violation::new("/id", e.to_string())]))?;
        fields.insert("id".to_owned(), id.as_str().into());
    }
    typed(Value::Object(fields))
}

/// What an app becomes by an update that names some of its fields.
pub fn updated(existing: &App, update: Value) -> Result<App, ApiError> {
    let mut update = object(update)?;
    prepare(&mut update)?;
    let mut fields = object(to_value(existing)?)?;
    // Networks decide what ports mean; those of before would contradict new ones.
    if update.contains_key("networks") && !update.contains_key("portDefinitions") {
        let host = |fields: &Map<String, Value>| {
            fields["networks"]
                .as_array()
                .is_none_or(|n| n.iter().all(|n| n["mode"] == "host"))
        };
        if host(&fields) != host(&update) {
            fields.remove("portDefinitions");
        }
    }
    if update.contains_key("container") && !update.contains_key("residency") {
        fields.remove("residency");
    }
    for (key, value) in update {
        fields.insert(key, value);
    }
    fields.insert("id".to_owned(), existing.id.as_str().into());
    typed(Value::Object(fields))
}

/// Any typed document, with the path of the first thing that is wrong.
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut path = String::new();
        for segment in error.path() {
            match segment {
                serde_path_to_error::Segment::Seq { index } => path += &format!("({index})"),
                serde_path_to_error::Segment::Map { key } => path += &format!("/{key}"),
                serde_path_to_error::Segment::Enum { variant } => path += &format!("/{variant}"),
                serde_path_to_error::Segment::Unknown => {}
            }
        }
        let why = error.into_inner().to_string();
        ApiError::Malformed(vec![Violation::new(path, why)])
    })
}

fn to_value(app: &App) -> Result<Value, ApiError> {
    serde_json::to_value(app).map_err(|e| ApiError::Unprocessable(e.to_string()))
}

/// Removes what says nothing and turns deprecated forms into today's.
fn prepare(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    for key in ANSWER_ONLY {
        fields.remove(key);
    }
    strip_nulls(fields);
    let mut wrong = Vec::new();
    if let Some(uris) = fields.remove("uris") {
        if fields.contains_key("fetch") {
            if uris.as_array().is_some_and(|u| !u.is_empty()) {
                wrong.push(Violation::new(
                    "/uris",
                    "may not be set in conjunction with fetch",
                ));
            }
        } else {
            fields.insert("fetch".to_owned(), fetch_of(&uris));
        }
    }
    if let Some(ports) = fields.remove("ports") {
        let list = ports.as_array().cloned().unwrap_or_default();
        match fields.get("portDefinitions").and_then(Value::as_array) {
            Some(definitions) => {
                let same = definitions.iter().map(|d| &d["port"]).eq(list.iter());
                if !same {
                    let text = "cannot specify both ports and port definitions";
                    wrong.push(Violation::new("/", text));
                }
            }
            None => {
                let definitions: Vec<_> = list.iter().map(|p| json!({"port": p})).collect();
                fields.insert("portDefinitions".to_owned(), definitions.into());
            }
        }
    }
    networks(fields, &mut wrong);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(ApiError::Invalid(wrong))
    }
}

/// Fields that are null count as left out, at any depth.
fn strip_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    for value in fields.values_mut() {
        strip_nulls_below(value);
    }
}

fn strip_nulls_below(value: &mut Value) {
    match value {
        Value::Object(fields) => strip_nulls(fields),
        Value::Array(list) => list.iter_mut().for_each(strip_nulls_below),
        _ => {}
    }
}

/// `uris` know only the address; what is to be unpacked is told by its name.
fn fetch_of(uris: &Value) -> Value {
    const ARCHIVES: [&str; 7] = [
        ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip",
    ];
    let list = uris.as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .map(|uri| {
            let extract = uri
                .as_str()
                .is_some_and(|u| ARCHIVES.iter().any(|a| u.ends_with(a)));
            json!({"uri": uri, "extract": extract})
        })
        .collect()
}

/// `ipAddress`, `container.docker.network` and `container.docker.portMappings` of old.
fn networks(fields: &mut Map<String, Value>, wrong: &mut Vec<Violation>) {
    let mut docker_network = None;
    if let Some(container) = fields.get_mut("container").and_then(Value::as_object_mut)
        && let Some(docker) = container.get_mut("docker").and_then(Value::as_object_mut)
    {
        docker_network = docker.remove("network");
        if let Some(mappings) = docker.remove("portMappings") {
            container.entry("portMappings").or_insert(mappings);
        }
    }
    let address = fields.remove("ipAddress");
    let given = fields
        .get("networks")
        .and_then(Value::as_array)
        .is_some_and(|n| !n.is_empty());
    if given && docker_network.is_some() {
        let text = "must not specify both container.docker.network and networks";
        wrong.push(Violation::new("/", text));
    }
    if given && address.is_some() {
        let text = "must not specify both networks and ipAddress";
        wrong.push(Violation::new("/", text));
    }
    if given {
        return;
    }
    let named = |address: &Value| {
        let mut network = json!({"mode": "container"});
        if let Some(name) = address.get("networkName") {
            network["name"] = name.clone();
        }
        if let Some(labels) = address.get("labels") {
            network["labels"] = labels.clone();
        }
        network
    };
    let network = match (docker_network.as_ref().and_then(Value::as_str), &address) {
        (Some("HOST"), _) => json!({"mode": "host"}),
        (Some("BRIDGE"), _) => json!({"mode": "container/bridge"}),
        (Some("USER"), Some(address)) | (None, Some(address)) => named(address),
        (Some("USER"), None) => json!({"mode": "container"}),
        (Some(other), _) => {
            let text = format!("unsupported docker network type {other}");
            wrong.push(Violation::new("/container/docker/network", text));
            return;
        }
        (None, None) => return,
    };
    fields.insert("networks".to_owned(), json!([network]));
}
