//! Prints a value as a table, as JSON or as YAML.

use serde_json::{Value, json};

use crate::args::Shape;
use crate::install::{self, Home, Record};

/// The text of a value; `table` makes the one for people.
pub fn shaped(shape: Shape, value: &Value, table: impl FnOnce() -> String) -> String {
    match shape {
        Shape::Table => table(),
        Shape::Json => format!("{value:#}\n"),
        // Plain data always has a YAML form; should it not, JSON is YAML.
        Shape::Yaml => serde_yaml::to_string(value).unwrap_or_else(|_| format!("{value:#}\n")),
    }
}

/// Prints the result of a command that changed a cluster, as JSON or as YAML. `phase` is what
/// became of the cluster where its record does not say so.
pub fn result(
    shape: Shape,
    home: &Home,
    record: &Record,
    phase: Option<&str>,
    steps: &[String],
) -> Result<(), install::Error> {
    if shape == Shape::Table {
        return Ok(());
    }
    let phase = phase.map_or_else(|| json!(record.phase), |phase| json!(phase));
    let value = json!({
        "cluster": record.name,
        "phase": phase,
        // One that was removed has none.
        "kubeconfig": Some(home.kubeconfig()).filter(|path| path.exists()),
        "steps": steps,
    });
    let text = shaped(shape, &value, String::new);
    crate::commands::print(&text).map_err(|e| install::Error::State(e.to_string()))
}
