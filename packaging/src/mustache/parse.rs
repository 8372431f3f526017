//! Text -> template, with mustache.java's own idea of which line ends and blanks belong to a tag
//! that stands alone on its line.

use super::node::{Delimiters, Node, Template};
use super::{DEEPEST, Error, LARGEST_TEMPLATE};

/// Reads a template whose tags begin and end with these.
pub(super) fn parse(text: &str, delimiters: Delimiters) -> Result<Template, Error> {
    if text.len() > LARGEST_TEMPLATE {
        return Err(Error::Long(text.len()));
    }
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
    };
    let nodes = reader.level(None, delimiters, true, 0)?;
    Ok(Template { nodes })
}

/// A section that is open.
struct Outer<'a> {
    name: &'a str,
    line: usize,
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

/// The parts of a level, texts that follow each other joined.
#[derive(Default)]
struct Parts {
    nodes: Vec<Node>,
    /// Text that is not yet a part.
    pending: String,
}

impl Parts {
    fn write(&mut self) {
        let text = std::mem::take(&mut self.pending);
        if text.is_empty() {
            return;
        }
        match self.nodes.last_mut() {
            Some(Node::Text(there)) => there.push_str(&text),
            _ => self.nodes.push(Node::Text(text)),
        }
    }
}

impl Reader {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Takes the rest of a delimiter of which the first character was just taken.
    fn rest_of(&mut self, delimiter: &str) -> bool {
        match delimiter.chars().nth(1) {
            None => true,
            Some(second) if self.peek() == Some(second) => {
                self.at += 1;
                true
            }
            Some(_) => false,
        }
    }

    /// What stands in a tag, and whether the tag has an end.
    fn tag(&mut self, end: &str) -> (String, bool) {
        let mut text = String::new();
        while let Some(c) = self.next() {
            if end.starts_with(c) && self.rest_of(end) {
                return (text, true);
            }
            text.push(c);
        }
        (text, false)
    }

    /// Reads to the end of a section, or of the template.
    fn level(
        &mut self,
        outer: Option<&Outer<'_>>,
        mut delimiters: Delimiters,
        mut line_start: bool,
        depth: usize,
    ) -> Result<Vec<Node>, Error> {
        if depth > DEEPEST {
            return Err(Error::Deep);
        }
        let mut parts = Parts::default();
        let mut carriage_return = false;
        let mut blank = true;
        // Whether the end of this line belongs to a tag: it does after one that spans lines.
        let mut swallows = outer.is_some();
        while let Some(c) = self.next() {
            if c == '\r' {
                // Comes back with the end of the line, or not at all.
                carriage_return = true;
                continue;
            }
            if c == '\n' {
                self.line += 1;
                if !(swallows && blank) {
                    if carriage_return {
                        parts.pending.push('\r');
                    }
                    parts.pending.push('\n');
                }
                parts.write();
                (swallows, blank, line_start) = (false, true, true);
                continue;
            }
            carriage_return = false;
            let start = delimiters.start.clone();
            if !(start.starts_with(c) && self.rest_of(&start)) {
                blank = blank && matches!(c, ' ' | '\t');
                parts.pending.push(c);
                continue;
            }
            let (command, closed) = self.tag(&delimiters.end);
            let line = self.line;
            let mut rest = command.chars();
            let Some(sigil) = rest.next() else {
                return Err(Error::Empty { line });
            };
            let name = trim(rest.as_str()).to_owned();
            match sigil {
                '#' | '^' | '$' | '<' => {
                    line_start &= blank;
                    let inner = Outer { name: &name, line };
                    let nodes =
                        self.level(Some(&inner), delimiters.clone(), line_start, depth + 1)?;
                    let spans = self.line != line;
                    if blank && spans {
                        parts.pending.clear();
                    }
                    parts.write();
                    if sigil == '<' {
                        return Err(Error::Partial { line, name });
                    }
                    let delimiters = delimiters.clone();
                    parts.nodes.push(if sigil == '$' {
                        Node::Block {
                            name,
                            nodes,
                            delimiters,
                        }
                    } else {
                        Node::Section {
                            name,
                            inverted: sigil == '^',
                            nodes,
                            delimiters,
                        }
                    });
                    swallows = spans;
                }
                '/' => {
                    if line_start && blank {
                        parts.pending.clear();
                    }
                    parts.write();
                    let wanted = outer.map_or("", |o| o.name);
                    if outer.is_none() || wanted != name {
                        return Err(Error::Mismatch {
                            line,
                            wanted: wanted.to_owned(),
                            found: name,
                        });
                    }
                    return Ok(parts.nodes);
                }
                '>' => return Err(Error::Partial { line, name }),
                '{' => {
                    parts.write();
                    let name = if delimiters.end.chars().nth(1) == Some('}') {
                        if self.next() != Some('}') {
                            return Err(Error::Unclosed { line, tag: command });
                        }
                        name
                    } else {
                        // The brace is a part of what was read.
                        let mut chars = name.chars();
                        chars.next_back();
                        chars.as_str().to_owned()
                    };
                    parts.nodes.push(value(name, true, &delimiters));
                }
                '&' => {
                    parts.write();
                    parts.nodes.push(value(name, true, &delimiters));
                }
                // What mustache.java knows of pragmas changes nothing here.
                '%' => parts.write(),
                '!' => {
                    // The text before it comes after it, which nobody sees.
                    let delimiters = delimiters.clone();
                    parts.nodes.push(Node::Comment {
                        text: name,
                        delimiters,
                    });
                    parts.write();
                }
                '=' => {
                    parts.write();
                    delimiters = set(&command, line)?;
                }
                _ if !closed => return Err(Error::Unclosed { line, tag: command }),
                _ => {
                    parts.write();
                    let name = trim(&command).to_owned();
                    parts.nodes.push(value(name, false, &delimiters));
                }
            }
            line_start = false;
        }
        parts.write();
        match outer {
            None => Ok(parts.nodes),
            Some(open) => Err(Error::Open {
                line: open.line,
                name: open.name.to_owned(),
            }),
        }
    }
}

fn value(name: String, raw: bool, delimiters: &Delimiters) -> Node {
    Node::Value {
        name,
        raw,
        delimiters: delimiters.clone(),
    }
}

/// Reads `=<% %>=`.
fn set(command: &str, line: usize) -> Result<Delimiters, Error> {
    let wrong = || Error::Delimiters {
        line,
        found: command.to_owned(),
    };
    let all: Vec<char> = command.chars().filter(|c| !c.is_whitespace()).collect();
    let inner = match all.as_slice() {
        ['=', inner @ .., '='] if matches!(inner.len(), 2 | 4) => inner,
        _ => return Err(wrong()),
    };
    let (start, end) = inner.split_at(inner.len() / 2);
    Ok(Delimiters {
        start: start.iter().collect(),
        end: end.iter().collect(),
    })
}

/// Java's `trim`: everything up to the blank, control characters too.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}
