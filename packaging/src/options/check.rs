//! Whether values are what their options take.

use serde_json::Value;

use super::key::{Key, Kind, LONGEST_LIST, LONGEST_TEXT};
use super::{Problem, What, schema};

/// Everything that is wrong with a document, contradictions between options aside.
pub(super) fn document(document: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    match document {
        Value::Object(_) => group("", document, &mut problems),
        other => problems.push(Problem::document(format!(
            "an object of options is wanted, this is {}",
            shown(other)
        ))),
    }
    problems
}

fn group(prefix: &str, object: &Value, problems: &mut Vec<Problem>) {
    for (name, given) in object.as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        if let Some(key) = schema().key(&path) {
            problems.extend(value(key, given).map(|what| Problem { path, what }));
        } else if !schema().is_group(&path) {
            problems.push(unknown(&path));
        } else if given.is_object() {
            group(&format!("{path}."), given, problems);
        } else {
            problems.push(Problem {
                what: What::Value {
                    value: shown(given),
                    allowed: format!("an object with options such as {}", example(&path)),
                },
                path,
            });
        }
    }
}

fn example(group: &str) -> String {
    let prefix = format!("{group}.");
    schema()
        .keys
        .iter()
        .find_map(|k| k.path.strip_prefix(&prefix))
        .unwrap_or_default()
        .to_owned()
}

/// Says that there is no such option.
pub(super) fn unknown(path: &str) -> Problem {
    let similar = if schema().is_group(path) {
        Some(format!("{path}.{}", example(path)))
    } else {
        similar(path)
    };
    Problem {
        path: path.to_owned(),
        what: What::Unknown { similar },
    }
}

/// The option whose name is nearest, if it is near.
fn similar(path: &str) -> Option<String> {
    let normal = |p: &str| p.replace('-', "_").to_lowercase();
    let wanted = normal(path);
    let last = wanted.rsplit('.').next().unwrap_or_default().to_owned();
    let keys = schema().keys.iter();
    let names = keys.map(|k| k.path.clone());
    let groups = schema().groups.iter().map(|(g, _)| g.clone());
    names
        .chain(groups)
        .map(|candidate| {
            let mut distance = strsim::damerau_levenshtein(&wanted, &candidate);
            // The right name in the wrong group.
            if candidate.rsplit('.').next() == Some(&last) && last.len() > 3 {
                distance = distance.min(2);
            }
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 6)
        .min()
        .map(|(_, candidate)| candidate)
}

/// What is wrong with a value.
pub(super) fn value(key: &Key, value: &Value) -> Option<What> {
    if good(key, value) {
        return None;
    }
    Some(What::Value {
        value: shown(value),
        allowed: allows(key),
    })
}

fn good(key: &Key, value: &Value) -> bool {
    if !key.allowed.is_empty() {
        return key.allowed.contains(value);
    }
    match key.kind {
        Kind::Boolean => value.is_boolean(),
        Kind::Integer => value.as_u64().is_some_and(|n| integer_in_range(key, n)),
        Kind::Number => value.as_f64().is_some_and(|n| {
            let bound = |b: &Option<serde_json::Number>| b.as_ref().and_then(|b| b.as_f64());
            n.is_finite()
                && bound(&key.minimum).is_none_or(|b| n >= b)
                && bound(&key.maximum).is_none_or(|b| n <= b)
        }),
        Kind::Text => value.as_str().is_some_and(|text| {
            text.len() <= key.longest && (good_text(key, text) || (key.optional && text.is_empty()))
        }),
        Kind::List => value.as_array().is_some_and(|list| {
            list.len() <= key.longest
                && list
                    .iter()
                    .all(|e| e.as_str().is_some_and(|text| good_text(key, text)))
        }),
        Kind::Table => value
            .as_array()
            .is_some_and(|rows| rows.len() <= key.longest && rows.iter().all(constraint)),
    }
}

fn integer_in_range(key: &Key, n: u64) -> bool {
    let bound = |b: &Option<serde_json::Number>| b.as_ref().and_then(|b| b.as_u64());
    // 0 is "none" of optional numbers: of ports, where it else would be below what is free to use.
    bound(&key.minimum).is_none_or(|b| n >= b)
        && bound(&key.maximum).is_none_or(|b| n <= b)
        && !(key.optional && (1..1024).contains(&n))
}

fn good_text(key: &Key, text: &str) -> bool {
    let plain = !text.is_empty() && !text.contains('\0');
    plain && key.format.is_none_or(|format| format.matches(text))
}

/// A Marathon constraint: field, operator, and what the operator wants.
fn constraint(row: &Value) -> bool {
    let texts: Option<Vec<&str>> = row
        .as_array()
        .and_then(|row| row.iter().map(Value::as_str).collect());
    let Some(texts) = texts else { return false };
    match texts.as_slice() {
        [field, operator] => !field.is_empty() && matches!(*operator, "UNIQUE" | "GROUP_BY"),
        [field, operator, value] => {
            !field.is_empty()
                && match *operator {
                    "CLUSTER" | "LIKE" | "UNLIKE" | "IS" => !value.is_empty(),
                    "GROUP_BY" | "MAX_PER" => value.parse::<u32>().is_ok(),
                    _ => false,
                }
        }
        _ => false,
    }
}

/// What an option may be, as a person reads it.
pub(super) fn allows(key: &Key) -> String {
    if !key.allowed.is_empty() {
        let values: Vec<String> = key.allowed.iter().map(plain).collect();
        return values.join(", ");
    }
    let unit = key.unit.map(|u| format!(" {u}")).unwrap_or_default();
    let range = match (&key.minimum, &key.maximum) {
        (Some(from), Some(to)) => format!("{from} to {to}{unit}"),
        _ => String::new(),
    };
    let form = key.format.map_or("text", super::format::Format::describe);
    let empty = if key.optional { ", or nothing" } else { "" };
    match key.kind {
        Kind::Boolean => "true, false".to_owned(),
        Kind::Integer if key.optional => "0 (none), or a port from 1024 to 65535".to_owned(),
        Kind::Integer => format!("whole numbers, {range}"),
        Kind::Number => format!("numbers, {range}"),
        Kind::Text => format!("{form}{empty}{}", most(key, "bytes")),
        Kind::List => format!("a list, each entry {form}{}", most(key, "entries")),
        Kind::Table => format!(
            "a list of Marathon constraints such as [[\"hostname\", \"UNIQUE\"]], at most {}",
            key.longest
        ),
    }
}

/// The bound of a text or list, where it is one that somebody may meet.
fn most(key: &Key, of: &str) -> String {
    if matches!(key.longest, LONGEST_TEXT | LONGEST_LIST) {
        return String::new();
    }
    format!(", at most {} {of}", key.longest)
}

/// A value as a person writes it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value for an error message: short, quoted when it is a text, and without a password that
/// somebody put into an address.
pub(super) fn shown(value: &Value) -> String {
    const MOST: usize = 60;
    let text = without_userinfo(&value.to_string());
    if text.chars().count() <= MOST {
        return text;
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start}...")
}

/// Replaces `user:password@` after `://`.
fn without_userinfo(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("://");
        let authority = part.find(['/', '"', ' ']).unwrap_or(part.len());
        match part.get(..authority).and_then(|a| a.rfind('@')) {
            Some(at) => {
                shown.push_str("***");
                shown.push_str(part.get(at..).unwrap_or_default());
            }
            None => shown.push_str(part),
        }
    }
    shown
}
