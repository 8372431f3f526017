//! A parsed template.

use super::Error;

/// A template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) nodes: Vec<Node>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Text as it is.
    Text(String),
    /// A value.
    Value {
        /// Its name, `a.b`, or `.` for the innermost one.
        name: String,
        /// Whether it was written `{{{x}}}` or `{{&x}}`.
        raw: bool,
        /// The delimiters there.
        delimiters: Delimiters,
    },
    /// `{{#name}}`: once for each, or once for what is true; `{{^name}}`: once for what is not.
    Section {
        /// Its name.
        name: String,
        /// Whether it is `{{^name}}`.
        inverted: bool,
        /// What it holds.
        nodes: Vec<Node>,
        /// The delimiters there.
        delimiters: Delimiters,
    },
    /// `{{$name}}`: a block that could be replaced if there were parents.
    Block {
        /// Its name.
        name: String,
        /// What it holds.
        nodes: Vec<Node>,
        /// The delimiters there.
        delimiters: Delimiters,
    },
    /// `{{!text}}`.
    Comment {
        /// The text.
        text: String,
        /// The delimiters there.
        delimiters: Delimiters,
    },
}

/// What tags begin and end with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delimiters {
    pub(super) start: String,
    pub(super) end: String,
}

impl Default for Delimiters {
    fn default() -> Self {
        Self {
            start: "{{".to_owned(),
            end: "}}".to_owned(),
        }
    }
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, Error> {
        super::parse::parse(text, Delimiters::default())
    }

    /// Its parts.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

/// The text that nodes were made of, as mustache.java hands it to functions.
pub(super) fn identity(nodes: &[Node]) -> String {
    let mut text = String::new();
    for node in nodes {
        write_identity(node, &mut text);
    }
    text
}

fn write_identity(node: &Node, out: &mut String) {
    let tag = |d: &Delimiters, sigil: &str, name: &str| {
        let (open, close) = match sigil {
            "{" => ("{", "}"),
            other => (other, ""),
        };
        format!("{}{open}{name}{close}{}", d.start, d.end)
    };
    match node {
        Node::Text(text) => out.push_str(text),
        Node::Value {
            name,
            raw,
            delimiters,
        } => out.push_str(&tag(delimiters, if *raw { "{" } else { "" }, name)),
        Node::Section {
            name,
            inverted,
            nodes,
            delimiters,
        } => {
            out.push_str(&tag(delimiters, if *inverted { "^" } else { "#" }, name));
            out.push_str(&identity(nodes));
            out.push_str(&tag(delimiters, "/", name));
        }
        Node::Block {
            name,
            nodes,
            delimiters,
        } => {
            out.push_str(&tag(delimiters, "$", name));
            out.push_str(&identity(nodes));
            out.push_str(&tag(delimiters, "/", name));
        }
        Node::Comment { text, delimiters } => out.push_str(&tag(delimiters, "!", text)),
    }
}
