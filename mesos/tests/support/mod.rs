//! What the integration tests share: the recordings of a real Mesos, and JSON compared by value.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod server;
pub mod zookeeper;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One scenario: the conversation of a real Mesos 1.12 with its clients.
pub struct Scenario {
    pub name: String,
    pub directory: PathBuf,
    /// In the order of time.
    pub exchanges: Vec<Exchange>,
}

/// One line of `exchange.jsonl`.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Names the client's connection.
    pub conn: String,
    /// `request`, `response-head`, `response-body`, `event`, `stream-closed` or `note`.
    pub dir: String,
    /// The whole line.
    pub line: Value,
}

impl Exchange {
    pub fn json(&self) -> Option<&Value> {
        self.line.get("json")
    }

    pub fn status(&self) -> u64 {
        self.line["status"].as_u64().expect("a response has one")
    }

    pub fn path(&self) -> &str {
        self.line["path"].as_str().expect("a request has one")
    }

    /// A header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.line["headers"].as_object()?;
        let found = headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        found.1.as_str()
    }
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire")
}

/// Every scenario, by name.
pub fn scenarios() -> Vec<Scenario> {
    let mut found: Vec<Scenario> = std::fs::read_dir(fixtures())
        .expect("the recordings are part of the crate")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .map(|directory| load(&directory))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(found.len(), 35, "scenarios");
    found
}

/// The scenario whose name starts with this.
pub fn scenario(prefix: &str) -> Scenario {
    scenarios()
        .into_iter()
        .find(|scenario| scenario.name.starts_with(prefix))
        .expect("a scenario of this name")
}

fn load(directory: &Path) -> Scenario {
    let text = std::fs::read_to_string(directory.join("exchange.jsonl")).expect("readable");
    let exchanges = text
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("each line is JSON");
            Exchange {
                conn: line["conn"].as_str().expect("a name").to_owned(),
                dir: line["dir"].as_str().expect("a direction").to_owned(),
                line,
            }
        })
        .collect();
    Scenario {
        name: directory
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned(),
        directory: directory.to_owned(),
        exchanges,
    }
}

impl Scenario {
    /// Requests that were answered with success, each with the head of its answer and, if it
    /// has one, the body.
    pub fn accepted(&self) -> Vec<(Exchange, Exchange, Option<Exchange>)> {
        let mut accepted = Vec::new();
        for (index, request) in self.exchanges.iter().enumerate() {
            if request.dir != "request" {
                continue;
            }
            let mut later = self.exchanges[index + 1..]
                .iter()
                .filter(|exchange| exchange.conn == request.conn);
            let Some(head) = later.next().filter(|next| next.dir == "response-head") else {
                continue;
            };
            let body = later.next().filter(|next| next.dir == "response-body");
            if head.status() / 100 == 2 {
                accepted.push((request.clone(), head.clone(), body.cloned()));
            }
        }
        accepted
    }

    /// The events of one connection.
    pub fn events(&self, conn: &str) -> Vec<Value> {
        self.exchanges
            .iter()
            .filter(|exchange| exchange.conn == conn && exchange.dir == "event")
            .map(|exchange| exchange.json().expect("an event has one").clone())
            .collect()
    }
}

/// Where two JSON values differ, ignoring the order of members and how a number is written.
pub fn difference(path: &str, left: &Value, right: &Value) -> Option<String> {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let inner = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => difference(&inner, a, b),
                    // Protobuf cannot tell an empty list from none.
                    (Some(Value::Array(list)), None) | (None, Some(Value::Array(list)))
                        if list.is_empty() =>
                    {
                        None
                    }
                    (a, b) => Some(format!("{inner}: {a:?} and {b:?}")),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b)),
        (Value::Number(a), Value::Number(b)) => {
            let same = match (a.as_u64().zip(b.as_u64()), a.as_i64().zip(b.as_i64())) {
                (Some((a, b)), _) => a == b,
                (None, Some((a, b))) => a == b,
                (None, None) => a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| {
                    (a - b).abs() <= 2.0 * f64::EPSILON * a.abs().max(b.abs())
                }),
            };
            (!same).then(|| format!("{path}: {a} and {b}"))
        }
        _ => (left != right).then(|| format!("{path}: {left} and {right}")),
    }
}
