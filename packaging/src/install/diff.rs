//! What differs between an app as it should be and as Marathon has it. Marathon completes what it
//! is given with defaults and state, so only what we say is compared, and those collections that
//! are ours alone are compared as a whole.

use std::fmt;

use serde_json::Value;

/// Members whose content is ours alone: something that is in them without our saying so was put
/// there by somebody else.
const OURS: [&str; 10] = [
    "acceptedResourceRoles",
    "constraints",
    "dependencies",
    "env",
    "fetch",
    "healthChecks",
    "labels",
    "portDefinitions",
    "readinessChecks",
    "secrets",
];

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where: `env.K8SM_RUN`, `healthChecks[0].path`.
    pub path: String,
    /// What is there, shortened; `None` for nothing.
    pub from: Option<String>,
    /// What should be there.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {from} -> {to}", self.path),
            (None, Some(to)) => write!(f, "{}: set to {to}", self.path),
            (Some(from), None) => write!(f, "{}: {from} removed", self.path),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

/// The differences, none when `found` is what `wanted` says.
pub fn diff(wanted: &Value, found: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", wanted, found, false, &mut changes);
    for name in OURS {
        if wanted.get(name).is_none() {
            let empty = match &found[name] {
                Value::Object(o) => o.is_empty(),
                Value::Array(a) => a.is_empty(),
                _ => true,
            };
            // Marathon gives an app without ports one of its own choice.
            if !empty && name != "portDefinitions" {
                changes.push(Change {
                    path: name.to_owned(),
                    from: Some(shown(name, &found[name])),
                    to: None,
                });
            }
        }
    }
    changes
}

fn compare(path: &str, wanted: &Value, found: &Value, whole: bool, changes: &mut Vec<Change>) {
    match (wanted, found) {
        (Value::Object(w), Value::Object(f)) => {
            for (name, value) in w {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let whole = whole || (path.is_empty() && matches!(&**name, "env" | "labels"));
                compare(
                    &inner,
                    value,
                    f.get(name).unwrap_or(&Value::Null),
                    whole,
                    changes,
                );
            }
            if whole {
                for (name, value) in f.iter().filter(|(name, _)| !w.contains_key(*name)) {
                    let inner = format!("{path}.{name}");
                    changes.push(Change {
                        from: Some(shown(&inner, value)),
                        to: None,
                        path: inner,
                    });
                }
            }
        }
        (Value::Array(w), Value::Array(f)) if w.len() == f.len() => {
            for (n, (w, f)) in w.iter().zip(f).enumerate() {
                compare(&format!("{path}[{n}]"), w, f, whole, changes);
            }
        }
        (Value::Number(w), Value::Number(f)) if w.as_f64() == f.as_f64() => {}
        (w, f) if w == f => {}
        // What is empty and what is not there are the same.
        (Value::Array(w), Value::Null) if w.is_empty() => {}
        (Value::Object(w), Value::Null) if w.is_empty() => {}
        (Value::Bool(false), Value::Null) => {}
        (w, f) => changes.push(Change {
            path: path.to_owned(),
            from: (!f.is_null()).then(|| shown(path, f)),
            to: Some(shown(path, w)),
        }),
    }
}

/// A value for people: short, and without keys.
fn shown(path: &str, value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let secret = ["K8SM_PKI", "PASSWORD", "TOKEN", "SECRET"];
    let name = path.rsplit('.').next().unwrap_or(path).to_uppercase();
    if text.contains("PRIVATE KEY") || secret.iter().any(|s| name.contains(s)) {
        return "(secret)".to_owned();
    }
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(wanted: &Value, found: &Value) -> Vec<String> {
        diff(wanted, found).iter().map(Change::to_string).collect()
    }

    #[test]
    fn what_marathon_adds_is_no_difference() {
        let wanted = json!({
            "id": "/a", "cpus": 1.0, "instances": 1, "cmd": "x",
            "fetch": [{"uri": "http://f/x", "executable": true}],
            "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/h"}],
        });
        let found = json!({
            "id": "/a", "cpus": 1, "instances": 1, "cmd": "x", "backoffFactor": 1.15,
            "fetch": [{"uri": "http://f/x", "executable": true, "cache": false, "extract": true}],
            "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/h", "ipProtocol": "IPv4"}],
            "tasks": [], "version": "2026", "portDefinitions": [{"port": 10000}],
        });
        assert_eq!(texts(&wanted, &found), Vec::<String>::new());
    }

    #[test]
    fn what_somebody_changed_added_or_removed_is_named() {
        let wanted = json!({
            "cpus": 0.5, "env": {"A": "1", "B": "2"}, "labels": {"X": "y"},
            "constraints": [["hostname", "CLUSTER", "a"]],
        });
        let found = json!({
            "cpus": 0.7, "env": {"A": "1", "C": "3"}, "labels": {"X": "y"},
            "constraints": [], "dependencies": ["/other"],
        });
        assert_eq!(
            texts(&wanted, &found),
            [
                "cpus: 0.7 -> 0.5",
                "env.B: set to 2",
                "env.C: 3 removed",
                r#"constraints: [] -> [["hostname","CLUSTER","a"]]"#,
                r#"dependencies: ["/other"] removed"#,
            ]
        );
    }

    #[test]
    fn keys_are_never_shown() {
        let wanted = json!({"env": {"K8SM_PKI": "geheim-1", "X": "-----BEGIN PRIVATE KEY-----"}});
        let found = json!({"env": {"K8SM_PKI": "geheim-2", "X": "b"}});
        let text = texts(&wanted, &found).join("\n");
        assert!(
            text.contains("env.K8SM_PKI: (secret) -> (secret)"),
            "{text}"
        );
        assert!(
            !text.contains("geheim") && !text.contains("BEGIN"),
            "{text}"
        );
    }
}
