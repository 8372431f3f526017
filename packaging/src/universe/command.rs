//! The arguments of `k8sm run framework` in the package's app: all options, and where the programs
//! are. Mustache can print no list within a JSON text, so each option is an argument, and each
//! entry of a list:
//!
//! | argument | what |
//! |---|---|
//! | `--kubernetes=v1.37.1` | version of Kubernetes among the programs |
//! | `--artifact=etcd,<sha256>,<size>,<uri>` | a program |
//! | `--set=etcd.count=3` | an option |
//! | `--list=etcd.agents` `--item` `a1` `--item` `a2` | an option that is a list |
//! | `--table=service.constraints` `--row` `--item` `rack` `--item` `UNIQUE` | one that is a list of lists |
//! | `--end` | nothing follows; without it something was cut off |

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::marathon::Artifact;
use crate::mustache;
use crate::options::{Kind, Layers, Options, Problems, schema};

/// What the arguments say.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Version of Kubernetes: `v1.37.1`.
    pub kubernetes_version: String,
    /// The programs by name.
    pub artifacts: BTreeMap<String, Artifact>,
    /// The options as a document.
    pub options: Value,
}

/// Why arguments are of no use. No retry helps: the app was not rendered by the template of this
/// program's version, or was changed by hand.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An argument that is not known.
    #[error("argument {place} of the package's app, `{found}`, is not expected there: {wanted} is")]
    Unexpected {
        /// Its place, the first is 1.
        place: usize,
        /// What is there; nothing at the end.
        found: String,
        /// What should be.
        wanted: &'static str,
    },
    /// An option that is none, or a value that it cannot have.
    #[error("an option of the package's app is not usable:\n{0}")]
    Option(Problems),
    /// There is no version.
    #[error("the package's app does not say `--kubernetes=`")]
    Version,
}

/// The arguments for options.
pub fn args(
    options: &Options,
    kubernetes_version: &str,
    artifacts: &BTreeMap<String, Artifact>,
) -> Vec<String> {
    let mut args = vec![format!("--kubernetes={kubernetes_version}")];
    for (name, a) in artifacts {
        args.push(format!(
            "--artifact={name},{},{},{}",
            a.sha256, a.size, a.uri
        ));
    }
    let whole = options.to_value();
    for key in &schema().keys {
        let pointer = format!("/{}", key.path.replace('.', "/"));
        let value = whole.pointer(&pointer).unwrap_or(&Value::Null);
        let entries = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let item = |args: &mut Vec<String>, value: &Value| {
            args.push("--item".to_owned());
            args.push(value.as_str().unwrap_or_default().to_owned());
        };
        match key.kind {
            Kind::List => {
                args.push(format!("--list={}", key.path));
                for entry in entries(value) {
                    item(&mut args, &entry);
                }
            }
            Kind::Table => {
                args.push(format!("--table={}", key.path));
                for row in entries(value) {
                    args.push("--row".to_owned());
                    for entry in entries(&row) {
                        item(&mut args, &entry);
                    }
                }
            }
            Kind::Text => args.push(format!(
                "--set={}={}",
                key.path,
                value.as_str().unwrap_or_default()
            )),
            // As the template prints them.
            _ => args.push(format!("--set={}={}", key.path, mustache::printed(value))),
        }
    }
    args.push("--end".to_owned());
    args
}

impl Command {
    /// Reads arguments. The options' contradictions are for [`Options::from_value`] to find.
    pub fn parse(args: &[String]) -> Result<Self, Error> {
        let mut words = Words { args, at: 0 };
        let mut version = None;
        let mut artifacts = BTreeMap::new();
        let mut layers = Layers::new();
        loop {
            let Some(word) = words.next() else {
                return Err(words.unexpected("`--end`"));
            };
            if word == "--end" {
                break;
            }
            let (name, rest) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "--kubernetes" => version = Some(rest.to_owned()),
                "--artifact" => {
                    let (name, artifact) =
                        artifact(rest).ok_or_else(|| words.wrong("NAME,SHA256,SIZE,URI"))?;
                    artifacts.insert(name, artifact);
                }
                "--set" => layers.set(rest).map_err(Error::Option)?,
                "--list" => {
                    let items = words.items()?;
                    layers.value(nested(rest, items)).map_err(Error::Option)?;
                }
                "--table" => {
                    let mut rows = Vec::new();
                    while words.take("--row") {
                        rows.push(words.items()?);
                    }
                    layers
                        .value(nested(rest, rows.into()))
                        .map_err(Error::Option)?;
                }
                _ => return Err(words.wrong("an option, an artifact or `--end`")),
            }
        }
        if words.next().is_some() {
            return Err(words.wrong("nothing"));
        }
        Ok(Self {
            kubernetes_version: version.ok_or(Error::Version)?,
            artifacts,
            options: layers.said().clone(),
        })
    }
}

/// `{"a": {"b": value}}` for `a.b`.
fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |value, name| {
        let mut object = Map::new();
        object.insert(name.to_owned(), value);
        Value::Object(object)
    })
}

fn artifact(text: &str) -> Option<(String, Artifact)> {
    let mut parts = text.splitn(4, ',');
    let name = parts.next().filter(|n| !n.is_empty())?;
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let sha256 = parts
        .next()
        .filter(|s| s.len() == 64 && s.chars().all(hex))?;
    let size = parts.next()?.parse().ok()?;
    let uri = parts.next().filter(|u| !u.is_empty())?;
    let artifact = Artifact {
        uri: uri.to_owned(),
        sha256: sha256.to_owned(),
        size,
    };
    Some((name.to_owned(), artifact))
}

struct Words<'a> {
    args: &'a [String],
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.args.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// Takes the next word if it is this one.
    fn take(&mut self, word: &str) -> bool {
        let is = self.args.get(self.at).is_some_and(|w| w == word);
        self.at += usize::from(is);
        is
    }

    fn items(&mut self) -> Result<Value, Error> {
        let mut items = Vec::new();
        while self.take("--item") {
            let item = self
                .next()
                .ok_or_else(|| self.unexpected("an entry of a list"))?;
            items.push(json!(item));
        }
        Ok(items.into())
    }

    /// The next word is not what it should be.
    fn unexpected(&self, wanted: &'static str) -> Error {
        Error::Unexpected {
            place: self.at + 1,
            found: self.args.get(self.at).cloned().unwrap_or_default(),
            wanted,
        }
    }

    /// The word that was just taken is not what it should be.
    fn wrong(&self, wanted: &'static str) -> Error {
        let before = Words {
            args: self.args,
            at: self.at.saturating_sub(1),
        };
        before.unexpected(wanted)
    }
}
