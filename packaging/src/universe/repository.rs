//! Repositories of packages in the formats that Cosmos reads, and which of them a request of
//! Cosmos' is answered with.

use std::fmt;

use serde_json::{Value, json};

use crate::cosmos::Package;

/// A format of repositories. Cosmos takes the newest that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Of DC/OS 1.8 and later.
    V3,
    /// Of DC/OS 1.10 and later: upgrades are known.
    V4,
    /// Of DC/OS 1.12 and later: packages may have managers.
    V5,
}

/// All formats, the newest first.
pub const FORMATS: [Format; 3] = [Format::V5, Format::V4, Format::V3];

impl Format {
    /// What `Content-Type` says; Cosmos takes nothing else.
    pub fn media_type(self) -> String {
        format!("application/vnd.dcos.universe.repo+json;charset=utf-8;version={self}")
    }

    /// Name of a repository's file: `repo-v5.json`.
    pub fn file(self) -> String {
        format!("repo-{self}.json")
    }

    /// A repository of packages in this format.
    pub fn repository<'p>(self, packages: impl IntoIterator<Item = &'p Package>) -> Value {
        let packages: Vec<Value> = packages
            .into_iter()
            .filter(|p| self.can_hold(p))
            .map(|p| self.entry(p))
            .collect();
        json!({ "packages": packages })
    }

    /// Whether a package can be written in this format.
    pub fn can_hold(self, package: &Package) -> bool {
        match package.text("packagingVersion") {
            Some("5.0") => self == Self::V5,
            _ => true,
        }
    }

    fn entry(self, package: &Package) -> Value {
        let mut entry = package.document().clone();
        if self == Self::V3 && entry["packagingVersion"] == "4.0" {
            entry["packagingVersion"] = "3.0".into();
            if let Some(members) = entry.as_object_mut() {
                members.remove("upgradesFrom");
                members.remove("downgradesTo");
            }
        }
        entry
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3 => "v3",
            Self::V4 => "v4",
            Self::V5 => "v5",
        })
    }
}

/// The format for a request: the newest of those that its `Accept` names. Who accepts everything,
/// a browser or curl, gets the newest. `None`: there is none.
pub fn negotiate(accept: Option<&str>) -> Option<Format> {
    let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else {
        return Some(Format::V5);
    };
    let mut best = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameter = |name: &str| {
            range.split(';').skip(1).find_map(|p| {
                let (key, value) = p.trim().split_once('=')?;
                key.eq_ignore_ascii_case(name)
                    .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
            })
        };
        if parameter("q").and_then(|q| q.parse::<f64>().ok()) == Some(0.0) {
            continue;
        }
        let found = match kind.as_str() {
            "*/*" | "application/*" => Some(Format::V5),
            "application/vnd.dcos.universe.repo+json" => match parameter("version").as_deref() {
                None => Some(Format::V5),
                Some(version) => FORMATS.into_iter().find(|f| f.to_string() == version),
            },
            _ => None,
        };
        best = best.max(found);
    }
    best
}

/// The release of DC/OS that asks: `1.13` of `cosmos/0.6 dcos/1.13`.
pub fn dcos_release(user_agent: &str) -> Option<&str> {
    user_agent
        .split_ascii_whitespace()
        .find_map(|product| product.strip_prefix("dcos/"))
        .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()))
}
