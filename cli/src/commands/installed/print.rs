//! Prints a value as a table, as JSON or as YAML.

use serde_json::Value;

use crate::args::Shape;

/// The text of a value; `table` makes the one for people.
pub fn shaped(shape: Shape, value: &Value, table: impl FnOnce() -> String) -> String {
    match shape {
        Shape::Table => table(),
        Shape::Json => format!("{value:#}\n"),
        // Plain data always has a YAML form; should it not, JSON is YAML.
        Shape::Yaml => serde_yaml::to_string(value).unwrap_or_else(|_| format!("{value:#}\n")),
    }
}
