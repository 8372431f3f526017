//! What a shell may complete after `--set`.

use super::check::plain;
use super::key::{Key, Kind};
use super::schema;

/// Ways to go on with what was typed: options, `etcd.count=`; after the `=`, values where there are
/// few.
pub fn completions(typed: &str) -> Vec<String> {
    let keys = schema().keys.iter();
    match typed.split_once('=') {
        None => keys
            .filter(|key| key.path.starts_with(typed))
            .map(|key| format!("{}=", key.path))
            .collect(),
        Some((path, start)) => keys
            .filter(|key| key.path == path)
            .flat_map(values)
            .filter(|value| value.starts_with(start))
            .map(|value| format!("{path}={value}"))
            .collect(),
    }
}

fn values(key: &Key) -> Vec<String> {
    if !key.allowed.is_empty() {
        return key.allowed.iter().map(plain).collect();
    }
    match key.kind {
        Kind::Boolean => vec!["true".to_owned(), "false".to_owned()],
        Kind::Integer | Kind::Number => vec![key.default.to_string()],
        _ => Vec::new(),
    }
}
