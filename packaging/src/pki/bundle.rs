//! The keys and certificates of one component as one JSON document: what travels to its app, by a
//! secret, a file or the environment. It holds exactly the files that the component may have.
//!
//! ```json
//! {"version": 1, "component": "etcd-0", "files": {"etcd-ca.crt": "-----BEGIN ...", ...}}
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::component::Component;
use crate::files::{self, PUBLIC, SECRET, make_dir, write_atomic};

/// Version of the format.
pub const BUNDLE_VERSION: u32 = 1;
/// Largest bundle that is read, bytes. The API server's is about 12 KiB.
pub const LARGEST_BUNDLE: usize = 1 << 20;

/// Why a bundle cannot be used. A retry helps only after the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is not JSON of this form. Its content is not shown: it may hold keys.
    #[error(
        "the keys from {origin} cannot be read: not a key bundle (line {line}, column {column})"
    )]
    Malformed {
        /// Where it came from.
        origin: String,
        /// Where the error is.
        line: usize,
        /// Where the error is.
        column: usize,
    },
    /// It is too large.
    #[error("the keys from {origin} have {size} bytes; at most {LARGEST_BUNDLE} are read")]
    Large {
        /// Where it came from.
        origin: String,
        /// Its size.
        size: usize,
    },
    /// It is of a later version.
    #[error(
        "the keys from {origin} are of version {version}, this program knows {BUNDLE_VERSION}: use a later k8sm"
    )]
    Version {
        /// Where it came from.
        origin: String,
        /// Its version.
        version: u32,
    },
    /// It is another component's.
    #[error("the keys from {origin} are those of {found}, not of {wanted}")]
    Component {
        /// Where it came from.
        origin: String,
        /// Whose they are.
        found: Component,
        /// Whose they should be.
        wanted: Component,
    },
    /// Files are missing, or there are some that the component must not have.
    #[error(
        "the keys from {origin} are not complete and exact: missing [{missing}], not expected [{unexpected}]; make them anew with `k8sm certs`"
    )]
    Files {
        /// Where it came from.
        origin: String,
        /// Names.
        missing: String,
        /// Names.
        unexpected: String,
    },
    /// The disk.
    #[error(transparent)]
    Write(#[from] files::Error),
}

/// The files of one component.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    version: u32,
    component: Component,
    files: BTreeMap<String, String>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("component", &self.component)
            .field("files", &self.files.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Bundle {
    /// A bundle of these files, by name.
    pub fn new(component: Component, files: BTreeMap<String, String>) -> Result<Self, BundleError> {
        let bundle = Self {
            version: BUNDLE_VERSION,
            component,
            files,
        };
        bundle.check("this machine", component)?;
        Ok(bundle)
    }

    /// Reads a bundle and checks that it is `component`'s and exact. `origin` says in errors where
    /// it came from, for instance `the variable K8SM_PKI`.
    pub fn parse(text: &str, origin: &str, component: Component) -> Result<Self, BundleError> {
        if text.len() > LARGEST_BUNDLE {
            return Err(BundleError::Large {
                origin: origin.to_owned(),
                size: text.len(),
            });
        }
        // serde's own message could quote the content.
        let bundle: Self = serde_json::from_str(text).map_err(|e| BundleError::Malformed {
            origin: origin.to_owned(),
            line: e.line(),
            column: e.column(),
        })?;
        bundle.check(origin, component)?;
        Ok(bundle)
    }

    fn check(&self, origin: &str, component: Component) -> Result<(), BundleError> {
        let origin = origin.to_owned();
        if self.version != BUNDLE_VERSION {
            return Err(BundleError::Version {
                origin,
                version: self.version,
            });
        }
        if self.component != component {
            return Err(BundleError::Component {
                origin,
                found: self.component,
                wanted: component,
            });
        }
        let wanted = component.files();
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|f| !self.files.contains_key(*f))
            .map(String::as_str)
            .collect();
        let unexpected: Vec<&str> = self
            .files
            .keys()
            .filter(|f| !wanted.contains(f))
            .map(String::as_str)
            .collect();
        if missing.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        Err(BundleError::Files {
            origin,
            missing: missing.join(", "),
            unexpected: unexpected.join(", "),
        })
    }

    /// Whose it is.
    pub fn component(&self) -> Component {
        self.component
    }

    /// A file's content.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// Names of its files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The document; it holds keys.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers have a JSON form")
    }

    /// Writes the files into a directory that only their owner can enter, where
    /// [`super::Pki`] finds them under its own names.
    pub fn write(&self, dir: &Path) -> Result<(), BundleError> {
        make_dir(dir, 0o700)?;
        for (name, content) in &self.files {
            let public = name.ends_with(".crt") || name.ends_with(".pub");
            let mode = if public { PUBLIC } else { SECRET };
            write_atomic(&dir.join(name), content.as_bytes(), mode)?;
        }
        Ok(())
    }
}
