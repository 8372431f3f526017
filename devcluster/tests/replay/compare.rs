//! Comparison of what was recorded with what came, ids and times aside.

use std::collections::HashMap;

use serde_json::Value;

/// Ids of the recording and what they are here.
#[derive(Debug, Default)]
pub struct Ids {
    /// Whole ids and prefixes (the master's UUID), recorded to actual.
    map: HashMap<String, String>,
    /// Master's UUIDs, recorded and actual.
    master: Vec<(String, String)>,
}

impl Ids {
    pub fn master(&mut self, recorded: &str, actual: &str) {
        self.master.push((recorded.to_owned(), actual.to_owned()));
    }

    pub fn learn(&mut self, recorded: &str, actual: &str) {
        self.map.insert(recorded.to_owned(), actual.to_owned());
    }

    /// Recorded text with the ids of this run.
    pub fn translate(&self, text: &str) -> String {
        let mut out = text.to_owned();
        // Longest first: one offer's id may begin as another's.
        let mut known: Vec<_> = self.map.iter().collect();
        known.sort_by_key(|(recorded, _)| std::cmp::Reverse(recorded.len()));
        for (i, (recorded, _)) in known.iter().enumerate() {
            out = out.replace(recorded.as_str(), &format!("\u{1}{i}\u{2}"));
        }
        for (recorded, actual) in &self.master {
            out = out.replace(recorded, actual);
        }
        for (i, (_, actual)) in known.iter().enumerate() {
            out = out.replace(&format!("\u{1}{i}\u{2}"), actual);
        }
        out
    }

    pub fn translate_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.translate(text)),
            Value::Array(items) => items.iter().map(|v| self.translate_json(v)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(k, v)| (self.translate(k), self.translate_json(v)))
                .collect(),
            other => other.clone(),
        }
    }
}

/// Members that are times: that they are there counts, not when.
const TIMES: [&str; 9] = [
    "timestamp",
    "nanoseconds",
    "registered_time",
    "reregistered_time",
    "unregistered_time",
    "unreachable_time",
    "start_time",
    "elected_time",
    "estimated_drain_start_time_seconds",
];

/// The form in which two values are compared: no times, numbers as floating point (JSON made
/// from protobuf has 64-bit numbers as text), lists whose order means nothing sorted, members
/// that only the internal messages of Mesos have left out.
pub fn normal(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut out = serde_json::Map::new();
            for (key, value) in members {
                // Not a member of an agent's description in version 1: there or not by where it is
                // printed.
                if key == "checkpoint"
                    && members.contains_key("hostname")
                    && members.contains_key("resources")
                {
                    continue;
                }
                if TIMES.contains(&key.as_str()) {
                    let zero = matches!(value.as_f64(), Some(0.0)) || value.as_str() == Some("0");
                    out.insert(
                        key.clone(),
                        Value::from(if zero { "never" } else { "a time" }),
                    );
                    continue;
                }
                out.insert(key.clone(), normal(value));
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            let mut out: Vec<_> = items.iter().map(normal).collect();
            let bare_id = |v: &Value| {
                v.as_object()
                    .is_some_and(|o| o.len() == 1 && o.contains_key("value"))
            };
            if out.iter().any(bare_id) {
                out.sort_by_key(sort_key);
            }
            // Offers, tasks, frameworks, agents come in the order of a hash table.
            let named = |v: &Value| {
                ["id", "task_id", "framework_info", "agent_info", "info"]
                    .iter()
                    .any(|k| v.get(k).is_some())
            };
            if out.iter().any(named) {
                out.sort_by_key(sort_key);
            }
            Value::Array(out)
        }
        Value::Number(n) => Value::from(n.as_f64()),
        Value::String(text) => match text.parse::<u64>() {
            Ok(n) if text.len() < 16 => Value::from(Some(n as f64)),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

fn sort_key(value: &Value) -> String {
    let mut text = String::new();
    for path in [
        "/hostname",
        "/name",
        "/framework_info/name",
        "/agent_info/hostname",
        "/task_id",
    ] {
        if let Some(part) = value.pointer(path) {
            text.push_str(&part.to_string());
        }
    }
    text.push_str(&value.to_string());
    text
}

/// Leaves out what a recording made from protobuf lacks: defaults and empty lists.
pub fn without_defaults(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(key, value)| {
                let default = match (key.as_str(), *value) {
                    ("protocol", Value::String(_)) | ("offer_constraints", Value::Object(_)) => {
                        true
                    }
                    ("shell", Value::Bool(set)) => *set,
                    ("checkpoint", Value::Bool(set)) => !set,
                    ("failover_timeout", Value::Number(n)) => n.as_f64() == Some(0.0),
                    (_, Value::Array(items)) => items.is_empty(),
                    _ => false,
                };
                !default
            })
            .map(|(k, v)| (k.clone(), without_defaults(v)))
            .collect(),
        Value::Array(items) => items.iter().map(without_defaults).collect(),
        other => other.clone(),
    }
}

/// Where two values differ, or nothing.
pub fn difference(recorded: &Value, actual: &Value) -> Option<String> {
    fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => {
                for (key, value) in a {
                    match b.get(key) {
                        Some(other) => walk(&format!("{path}/{key}"), value, other, out),
                        None => out.push(format!("{path}/{key} is missing: {value}")),
                    }
                }
                for (key, value) in b {
                    if !a.contains_key(key) {
                        out.push(format!("{path}/{key} is too much: {value}"));
                    }
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (i, (x, y)) in a.iter().zip(b).enumerate() {
                    walk(&format!("{path}/{i}"), x, y, out);
                }
            }
            _ if a == b => {}
            _ => out.push(format!("{path}: recorded {a}, here {b}")),
        }
    }
    let mut out = Vec::new();
    walk("", recorded, actual, &mut out);
    (!out.is_empty()).then(|| out.join("; "))
}

/// Puts every list of resources in one order.
pub fn sort_resources(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                sort_resources(member);
                if name == "resources"
                    && let Value::Array(list) = member
                {
                    list.sort_by_key(ToString::to_string);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_resources),
        _ => {}
    }
}
