//! Template and values -> text.

use std::collections::BTreeSet;

use serde_json::Value;

use super::node::{Node, Template, identity};
use super::value::print;
use super::{DEEPEST, Error, LARGEST_RESULT, parse};

/// The function that Cosmos puts beside the values.
const AS_JSON: &str = "asJson";

/// Names that stand for nothing: what Cosmos would silently render as an empty text.
pub type Unresolved = BTreeSet<String>;

impl Template {
    /// Renders the template over a document, an object.
    pub fn render(&self, document: &Value) -> Result<String, Error> {
        self.render_watched(document).map(|(text, _)| text)
    }

    /// The same, with the names that were looked up in vain.
    pub fn render_watched(&self, document: &Value) -> Result<(String, Unresolved), Error> {
        let mut run = Run {
            root: document,
            scopes: vec![Scope {
                value: document,
                in_list: false,
            }],
            out: String::new(),
            unresolved: Unresolved::new(),
        };
        run.nodes(&self.nodes, 0)?;
        Ok((run.out, run.unresolved))
    }

    /// Names in the template that stand for nothing in this document, in whichever branch:
    /// sections are looked into whether or not they would be rendered.
    pub fn unresolved(&self, document: &Value) -> Unresolved {
        let mut found = Unresolved::new();
        look(&self.nodes, &mut vec![document], &mut found);
        found
    }
}

/// A value whose members names may be.
#[derive(Clone, Copy)]
struct Scope<'a> {
    value: &'a Value,
    in_list: bool,
}

/// What a name stands for.
enum Found<'a> {
    Value(Scope<'a>),
    AsJson,
    Nothing,
}

struct Run<'a> {
    root: &'a Value,
    scopes: Vec<Scope<'a>>,
    out: String,
    unresolved: Unresolved,
}

impl<'a> Run<'a> {
    fn nodes(&mut self, nodes: &[Node], depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::Deep);
        }
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Comment { .. } => {}
                Node::Block { nodes, .. } => self.nodes(nodes, depth + 1)?,
                Node::Value { name, .. } => match self.find(name) {
                    Found::Value(scope) if !scope.value.is_null() => {
                        print(scope.value, scope.in_list, &mut self.out);
                    }
                    Found::Value(_) => {}
                    // Called without a name.
                    Found::AsJson => self.out.push_str("null"),
                    Found::Nothing => {
                        self.unresolved.insert(name.clone());
                    }
                },
                Node::Section {
                    name,
                    inverted,
                    nodes,
                    delimiters,
                } => match self.find(name) {
                    Found::Value(scope) if *inverted => {
                        if falsy(scope.value) {
                            self.nodes(nodes, depth + 1)?;
                        }
                    }
                    Found::Value(scope) => self.each(scope, nodes, depth)?,
                    Found::AsJson if *inverted => {}
                    Found::AsJson => {
                        let text = self.as_json(&identity(nodes));
                        let template = parse::parse(&text, delimiters.clone())?;
                        self.nodes(&template.nodes, depth + 1)?;
                    }
                    Found::Nothing => {
                        self.unresolved.insert(name.clone());
                        if *inverted {
                            self.nodes(nodes, depth + 1)?;
                        }
                    }
                },
            }
            if self.out.len() > LARGEST_RESULT {
                return Err(Error::Result);
            }
        }
        Ok(())
    }

    /// A section of a value.
    fn each(&mut self, scope: Scope<'a>, nodes: &[Node], depth: usize) -> Result<(), Error> {
        match scope.value {
            Value::Array(entries) => {
                for value in entries {
                    self.within(
                        Scope {
                            value,
                            in_list: true,
                        },
                        nodes,
                        depth,
                    )?;
                }
                Ok(())
            }
            value if falsy(value) => Ok(()),
            _ => self.within(scope, nodes, depth),
        }
    }

    fn within(&mut self, scope: Scope<'a>, nodes: &[Node], depth: usize) -> Result<(), Error> {
        // A null entry leaves what is around it in sight.
        let pushed = !scope.value.is_null();
        if pushed {
            self.scopes.push(scope);
        }
        let done = self.nodes(nodes, depth + 1);
        if pushed {
            self.scopes.pop();
        }
        done
    }

    /// From the innermost value outwards, the whole name first, then by its dots.
    fn find(&self, name: &str) -> Found<'a> {
        if name == "." {
            return self
                .scopes
                .last()
                .map_or(Found::Nothing, |s| Found::Value(*s));
        }
        for (n, scope) in self.scopes.iter().enumerate().rev() {
            if n == 0 && name == AS_JSON {
                return Found::AsJson;
            }
            if let Some(value) = member(scope.value, name) {
                return Found::Value(Scope {
                    value,
                    in_list: false,
                });
            }
        }
        Found::Nothing
    }

    fn as_json(&self, name: &str) -> String {
        match self.root.get(name) {
            Some(Value::String(text)) => text.clone(),
            _ => "null".to_owned(),
        }
    }
}

/// A member by its name, or by the names between its dots.
fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let members = value.as_object()?;
    if let Some(found) = members.get(name) {
        return Some(found);
    }
    let (first, rest) = name.split_once('.')?;
    let mut value = members.get(first)?;
    for step in rest.split('.') {
        value = value.as_object()?.get(step)?;
    }
    Some(value)
}

/// What leaves a section out.
fn falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::String(text) => text.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        Value::Number(_) | Value::Object(_) => false,
    }
}

/// Looks names up in all branches.
fn look<'v>(nodes: &[Node], scopes: &mut Vec<&'v Value>, found: &mut Unresolved) {
    let find = |scopes: &[&'v Value], name: &str| match name {
        "." => scopes.last().copied(),
        _ => scopes.iter().rev().find_map(|scope| member(scope, name)),
    };
    for node in nodes {
        match node {
            Node::Text(_) | Node::Comment { .. } => {}
            Node::Block { nodes, .. } => look(nodes, scopes, found),
            Node::Value { name, .. } => {
                if find(scopes, name).is_none() && name != AS_JSON {
                    found.insert(name.clone());
                }
            }
            Node::Section {
                name,
                inverted,
                nodes,
                ..
            } => {
                if name == AS_JSON && find(scopes, name).is_none() {
                    let wanted = identity(nodes);
                    if scopes.first().and_then(|root| root.get(&wanted)).is_none() {
                        found.insert(wanted);
                    }
                    continue;
                }
                let value = find(scopes, name);
                if value.is_none() {
                    found.insert(name.clone());
                }
                let inner = match value {
                    Some(Value::Array(entries)) => entries.first(),
                    other => other,
                };
                let pushed = inner.filter(|_| !inverted);
                scopes.extend(pushed);
                look(nodes, scopes, found);
                if pushed.is_some() {
                    scopes.pop();
                }
            }
        }
    }
}
