//! The list of an artifacts directory: everything that agents and apps fetch, each file below a
//! folder named by its SHA-256, so that a URL never changes its meaning and the fetcher's cache
//! never serves something old.
//!
//!     artifacts.json                 this list
//!     SHA256SUMS                     the same for `sha256sum -c`
//!     <sha256>/<name>                the files
//!
//! The directory may lie on any HTTP server; `base_url` says where.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of the list in its directory.
pub const FILE: &str = "artifacts.json";
/// Name of the list for `sha256sum -c`.
pub const SUMS: &str = "SHA256SUMS";
/// Version of the list.
pub const VERSION: u32 = 1;
/// Name of the node payload.
pub const PAYLOAD: &str = "payload.tar";

/// Programs of ours that are fetched. `k8sm` is the command of every app.
pub const OWN_PROGRAMS: [&str; 4] = ["k8sm", "k8sm-framework", "k8sm-executor", "k8sm-proxy"];
/// Upstream programs that the control plane's apps fetch.
pub const CONTROL_PLANE_PROGRAMS: [&str; 6] = [
    "etcd",
    "etcdctl",
    "etcdutl",
    "kube-apiserver",
    "kube-controller-manager",
    "proxy-server",
];

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file.
    pub version: u32,
    /// Where the directory is served, without a slash at the end; none while that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The files by name.
    pub files: BTreeMap<String, Entry>,
    /// Versions of the upstream components.
    pub components: BTreeMap<String, String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its SHA-256, 64 digits.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a list is of no use. Building the directory again mends it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("the list of artifacts is damaged: {0}; `k8sm artifacts build` writes it anew")]
    Damaged(String),
    /// It was written by a newer version of this program.
    #[error("the list of artifacts has version {0}, this k8sm knows {VERSION}: use the newer one")]
    Newer(u32),
    /// Something is missing.
    #[error("{0} missing among the artifacts; `k8sm artifacts build` writes them all")]
    Missing(String),
    /// Nobody knows where it is served.
    #[error(
        "nobody said where the artifacts are served: give --base-url to `k8sm artifacts build`, set artifacts.base_url, or let `k8sm install --serve` serve them"
    )]
    NoBase,
}

impl Manifest {
    /// Reads a list.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| Error::Damaged(e.to_string()))?;
        let version = value["version"].as_u64().unwrap_or(0);
        if version > u64::from(VERSION) {
            return Err(Error::Newer(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        let list: Self =
            serde_json::from_value(value).map_err(|e| Error::Damaged(e.to_string()))?;
        for (name, entry) in &list.files {
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if entry.sha256.len() != 64 || !entry.sha256.bytes().all(hex) {
                return Err(Error::Damaged(format!("{name} has no SHA-256")));
            }
            if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
                return Err(Error::Damaged(format!("`{name}` is no name of a file")));
            }
        }
        Ok(list)
    }

    /// Checks that everything that a cluster needs is there.
    pub fn complete(&self) -> Result<(), Error> {
        let missing: Vec<&str> = OWN_PROGRAMS
            .into_iter()
            .chain(CONTROL_PLANE_PROGRAMS)
            .chain([PAYLOAD])
            .filter(|name| !self.files.contains_key(*name))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Error::Missing(missing.join(", "))),
        }
    }

    /// Path of a file below the directory, also of its URL below the base.
    pub fn path(&self, name: &str) -> Option<String> {
        let entry = self.files.get(name)?;
        Some(format!("{}/{name}", entry.sha256))
    }

    /// URL of a file. `base` overrides the list's own.
    pub fn url(&self, base: Option<&str>, name: &str) -> Result<String, Error> {
        let base = base.or(self.base_url.as_deref()).ok_or(Error::NoBase)?;
        let path = self
            .path(name)
            .ok_or_else(|| Error::Missing(name.to_owned()))?;
        Ok(format!("{}/{path}", base.trim_end_matches('/')))
    }

    /// The text of [`SUMS`].
    pub fn sums(&self) -> String {
        self.files
            .iter()
            .map(|(name, e)| format!("{}  {}/{name}\n", e.sha256, e.sha256))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Manifest {
        let entry = |c: char| Entry {
            sha256: c.to_string().repeat(64),
            size: 3,
        };
        Manifest {
            version: VERSION,
            base_url: Some("http://files.example/k8sm/".to_owned()),
            files: [
                ("k8sm".to_owned(), entry('a')),
                ("etcd".to_owned(), entry('b')),
            ]
            .into(),
            components: BTreeMap::new(),
        }
    }

    #[test]
    fn a_url_names_the_content() {
        let list = list();
        let digest = "b".repeat(64);
        assert_eq!(
            list.url(None, "etcd").unwrap(),
            format!("http://files.example/k8sm/{digest}/etcd")
        );
        let other = list.url(Some("http://192.0.2.1:81"), "etcd").unwrap();
        assert_eq!(other, format!("http://192.0.2.1:81/{digest}/etcd"));
        assert!(list.url(None, "payload.tar").is_err());
        assert!(list.sums().contains(&format!("{digest}  {digest}/etcd\n")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = list().complete().unwrap_err().to_string();
        assert!(text.contains("k8sm-framework, k8sm-executor"), "{text}");
        assert!(text.contains("payload.tar"), "{text}");
    }

    #[test]
    fn a_list_is_read_back_and_a_bad_one_refused() {
        let bytes = serde_json::to_vec(&list()).unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), list());
        assert!(matches!(
            Manifest::parse(br#"{"version": 9}"#),
            Err(Error::Newer(9))
        ));
        let mut bad = list();
        let entry = bad.files["etcd"].clone();
        bad.files.insert("../../etc/passwd".to_owned(), entry);
        let error = Manifest::parse(&serde_json::to_vec(&bad).unwrap()).unwrap_err();
        assert!(error.to_string().contains("no name of a file"), "{error}");
        assert!(Manifest::parse(b"{").is_err());
    }
}
