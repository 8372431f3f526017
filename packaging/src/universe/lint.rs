//! What the Universe, Cosmos or Marathon would refuse, or take and silently get wrong: files that
//! are no ASCII or say too much, a name in the template that stands for nothing, an option that
//! has no effect, and whatever is wrong with an app that some value of some option makes.

mod files;
mod values;

use std::fmt;

use serde_json::{Value, json};

use super::command::Command;
use super::{Files, source};
use crate::cosmos::{self, Package, Renderer};
use crate::marathon::{self, App};
use crate::mustache::{Node, Template};

/// Something wrong with a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In which file.
    pub file: &'static str,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// So many findings about values say what is wrong.
const ENOUGH: usize = 10;

pub(super) const PACKAGE: &str = "package.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const RESOURCE: &str = "resource.json";
pub(super) const TEMPLATE: &str = "marathon.json.mustache";

/// Findings being collected.
#[derive(Default)]
struct Found(Vec<Finding>);

impl Found {
    fn add(&mut self, file: &'static str, what: impl Into<String>) {
        let what = what.into();
        let finding = Finding { file, what };
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }
}

/// Checks a package. Nothing found means that it can be published.
pub fn lint(files: &Files) -> Vec<Finding> {
    let mut found = Found::default();
    files::ascii(files, &mut found);
    files::package(&files.package, &mut found);
    files::config(&files.config, &mut found);
    files::resource(&files.resource, &mut found);
    match files.package(0) {
        Ok(package) => template(&files.template, &package, &mut found),
        Err(source::Error::Json { file, reason }) => found.add(file, reason),
        Err(other) => found.add(PACKAGE, other.to_string()),
    }
    found.0
}

fn template(text: &str, package: &Package, found: &mut Found) {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            found.add(TEMPLATE, error.to_string());
            return;
        }
    };
    let context = cosmos::context(package, cosmos::merged(package, None));
    for name in template.unresolved(&context) {
        found.add(
            TEMPLATE,
            format!("`{name}` is neither an option nor a resource: it would be empty"),
        );
    }
    let mut used = Vec::new();
    names(template.nodes(), &mut used, found);
    for path in values::leaves(package.config()) {
        if !used.contains(&path.name) {
            found.add(
                CONFIG,
                format!("{} is used nowhere in the template", path.name),
            );
        }
    }
    let uris = package.resource().and_then(|r| r.pointer("/assets/uris"));
    for name in uris
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|u| u.keys())
    {
        if !used.contains(&format!("resource.assets.uris.{name}")) {
            found.add(
                RESOURCE,
                format!("assets.uris.{name} is used nowhere in the template"),
            );
        }
    }
    for name in &used {
        if context_of(&context, name).is_some_and(Value::is_object) {
            found.add(
                TEMPLATE,
                format!("`{name}` is an object, which is not printed as JSON"),
            );
        }
    }
    // Values are tried where nothing else is wrong: each would find the same again.
    if !found.0.is_empty() {
        return;
    }
    let renderer = match Renderer::new(package) {
        Ok(renderer) => renderer,
        Err(error) => return found.add(TEMPLATE, error.to_string()),
    };
    for options in values::documents(package, &renderer) {
        for problem in made(package, &renderer, &options) {
            found.add(TEMPLATE, format!("with the options {options}: {problem}"));
        }
        if found.0.len() >= ENOUGH {
            return;
        }
    }
}

fn context_of<'v>(context: &'v Value, name: &str) -> Option<&'v Value> {
    name.split('.')
        .try_fold(context, |value, step| value.get(step))
}

/// The names of values; of a section, only what is printed in it.
fn names(nodes: &[Node], used: &mut Vec<String>, found: &mut Found) {
    for node in nodes {
        match node {
            Node::Value { name, raw, .. } => {
                if !raw {
                    found.add(
                        TEMPLATE,
                        format!("write {{{{{{{name}}}}}}}: with two braces older Cosmos escapes for HTML"),
                    );
                }
                used.push(name.clone());
            }
            Node::Section { name, nodes, .. } => {
                let before = used.len();
                names(nodes, used, found);
                if used[before..].iter().any(|n| n == ".") {
                    used.push(name.clone());
                }
            }
            Node::Block { nodes, .. } => names(nodes, used, found),
            Node::Text(_) | Node::Comment { .. } => {}
        }
    }
}

/// What is wrong with the app that options make.
pub fn made(package: &Package, renderer: &Renderer<'_>, options: &Value) -> Vec<String> {
    let source = "https://repository.example.org/repo";
    let value = match renderer.render(source, Some(options), None) {
        Ok(value) => value,
        Err(error) => return vec![error.to_string()],
    };
    let app: App = match serde_json::from_value(value) {
        Ok(app) => app,
        Err(error) => return vec![format!("no app of Marathon's: {error}")],
    };
    let mut problems: Vec<String> = marathon::lint(std::slice::from_ref(&app))
        .into_iter()
        .map(|finding| finding.to_string())
        .collect();
    let args = app.args.as_deref().unwrap_or_default();
    match Command::parse(args.get(3..).unwrap_or_default()) {
        Ok(command) => {
            let wanted = cosmos::merged(package, Some(options));
            if alike(&command.options) != alike(&wanted) {
                problems.push("the app is not told the options that were given".to_owned());
            }
        }
        Err(error) => problems.push(error.to_string()),
    }
    problems
}

/// A document with numbers as they compare: 1.0 is 1.
fn alike(value: &Value) -> Value {
    match value {
        Value::Number(n) => json!(n.as_f64()),
        Value::Array(entries) => entries.iter().map(alike).collect(),
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> =
                members.iter().map(|(k, v)| (k.clone(), alike(v))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            members.into_iter().collect()
        }
        other => other.clone(),
    }
}
