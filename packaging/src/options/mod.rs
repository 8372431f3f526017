//! The one set of options of a cluster. Every option is written down once, in [`model`]; from
//! that come the typed [`Options`], the table of keys ([`schema`]), the checks, `--set`, the
//! Universe's `config.json`, the reference page, and completion.
//!
//! No option holds a secret: secrets are named, by their path in a store or by a file.
//!
//! ```
//! use packaging::options::Layers;
//!
//! let mut layers = Layers::new();
//! layers.document("etcd: {count: 1}\nservice: {name: k8s}")?;
//! layers.set("proxy.legacy_port=8080")?;
//! let options = layers.finish()?;
//! assert_eq!((options.etcd.count, options.proxy.legacy_port), (1, 8080));
//! # Ok::<(), packaging::options::Problems>(())
//! ```

mod check;
mod complete;
mod config_json;
mod format;
mod group;
mod key;
mod layers;
mod model;
mod page;
mod problem;
mod rules;

use std::sync::LazyLock;

pub use complete::completions;
pub use config_json::config_json;
pub use format::Format;
pub use key::{Key, Kind, Schema};
pub use layers::{Layers, merge};
pub use model::{
    ApiServer, Artifacts, Audit, ControllerManager, Dns, Encryption, Etcd, Framework, HttpProxy,
    Images, Kubernetes, Marathon, Mesos, Nodes, Oidc, Options, Pki, Pods, Proxy, Registry, Service,
};
pub use page::page;
pub use problem::{Problem, Problems, What};
use serde_json::Value;

/// The table of all options.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let mut schema = Schema::default();
        <Options as group::Group>::describe("", &mut schema);
        schema
    });
    &SCHEMA
}

impl Pki {
    /// How long certificates live.
    pub fn certificate_life(&self) -> time::Duration {
        time::Duration::days(self.certificate_days.into())
    }
}

impl Options {
    /// Options from a document, `{"etcd": {"count": 1}}`; what it does not say is at its default.
    /// Every problem is reported, contradictions between options included.
    pub fn from_value(document: &Value) -> Result<Self, Problems> {
        let problems = check::document(document);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let options: Self = serde_json::from_value(document.clone())
            .map_err(|e| Problems(vec![Problem::document(e.to_string())]))?;
        let problems = options.validate();
        if problems.is_empty() {
            Ok(options)
        } else {
            Err(Problems(problems))
        }
    }

    /// Contradictions between options that are each good on their own.
    pub fn validate(&self) -> Vec<Problem> {
        rules::check(self)
    }

    /// The whole document, defaults included.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("options are numbers, texts and lists of them")
    }

    /// Changes from `old` that a cluster cannot follow once it exists. `etcd.storage` may be
    /// resolved: `auto` to the way that was taken, and back.
    pub fn impossible_changes(&self, old: &Self) -> Vec<Problem> {
        let (before, after) = (old.to_value(), self.to_value());
        let fixed = schema().keys.iter().filter(|key| key.fixed);
        fixed
            .filter_map(|key| {
                let was = layers::get(&before, &key.path)?;
                let is = layers::get(&after, &key.path)?;
                let auto = |v: &Value| key.path == "etcd.storage" && v == "auto";
                if was == is || auto(was) || auto(is) {
                    return None;
                }
                Some(Problem {
                    path: key.path.clone(),
                    what: What::Contradiction {
                        value: check::shown(is),
                        why: format!(
                            "cannot replace {} in a cluster that exists; keep it, or install another cluster",
                            check::shown(was)
                        ),
                    },
                })
            })
            .collect()
    }

    /// The document without what is at its default.
    pub fn changed(&self) -> Value {
        let whole = self.to_value();
        let mut changed = Value::Object(serde_json::Map::new());
        for key in &schema().keys {
            match layers::get(&whole, &key.path) {
                Some(value) if *value != key.default => {
                    layers::put(&mut changed, &key.path, value.clone());
                }
                _ => {}
            }
        }
        changed
    }
}

#[cfg(test)]
pub(crate) mod tests;
