//! What repositories hold, asked in Cosmos' ways. Pure.

use std::collections::BTreeMap;

use packaging::cosmos::Package;
use serde_json::{Map, Value, json};

use super::error::Failure;

/// The packages of all repositories, each with its repository's address. Of two that are equal in
/// name and version the one of the earlier repository counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packages {
    all: Vec<(Package, String)>,
}

impl Packages {
    /// Takes the packages of the repositories in their order.
    pub fn new(repositories: impl IntoIterator<Item = (String, Vec<Package>)>) -> Self {
        let mut all: Vec<(Package, String)> = Vec::new();
        for (uri, packages) in repositories {
            for package in packages {
                let same = |(p, _): &(Package, String)| {
                    p.name() == package.name() && p.version() == package.version()
                };
                if !all.iter().any(same) {
                    all.push((package, uri.clone()));
                }
            }
        }
        Self { all }
    }

    fn of(&self, name: &str) -> Vec<&(Package, String)> {
        let mut found: Vec<_> = self.all.iter().filter(|(p, _)| p.name() == name).collect();
        found.sort_by_key(|(p, _)| std::cmp::Reverse(p.release()));
        found
    }

    /// A package; the newest when no version is named.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<(&Package, &str), Failure> {
        let all = self.of(name);
        let first = all.first().ok_or_else(|| Failure::no_package(name))?;
        let found = match version {
            None => Some(first),
            Some(version) => all.iter().find(|(p, _)| p.version() == version),
        };
        found
            .map(|(package, uri)| (package, uri.as_str()))
            .ok_or_else(|| Failure::no_version(name, version.unwrap_or_default()))
    }

    /// Versions with their numbers.
    pub fn versions(&self, name: &str) -> Result<Value, Failure> {
        let all = self.of(name);
        if all.is_empty() {
            return Err(Failure::no_package(name));
        }
        let versions: Map<String, Value> = all
            .iter()
            .map(|(p, _)| (p.version().to_owned(), p.release().to_string().into()))
            .collect();
        Ok(versions.into())
    }

    /// Versions that may follow one.
    pub fn upgrades_to(&self, name: &str, version: &str) -> Vec<String> {
        self.of(name)
            .into_iter()
            .filter(|(p, _)| p.version() != version && names(p, "upgradesFrom", version))
            .map(|(p, _)| p.version().to_owned())
            .collect()
    }

    /// Versions that a package may go back to, as far as they are there.
    pub fn downgrades_to(&self, package: &Package) -> Vec<String> {
        self.of(package.name())
            .into_iter()
            .filter(|(p, _)| {
                p.version() != package.version() && names(package, "downgradesTo", p.version())
            })
            .map(|(p, _)| p.version().to_owned())
            .collect()
    }

    /// Packages whose name, description or tags hold a text; `*` stands for anything.
    pub fn search(&self, query: Option<&str>) -> Value {
        let mut found: BTreeMap<&str, &Package> = BTreeMap::new();
        for (package, _) in &self.all {
            let newest = found.entry(package.name()).or_insert(package);
            if package.release() > newest.release() {
                *newest = package;
            }
        }
        found
            .into_values()
            .filter(|package| query.is_none_or(|query| matches(package, query)))
            .map(|package| {
                let document = package.document();
                let mut result = json!({
                    "name": package.name(),
                    "currentVersion": package.version(),
                    "versions": self.versions(package.name()).unwrap_or_default(),
                    "description": document["description"],
                    "framework": document["framework"].as_bool().unwrap_or(false),
                    "tags": document["tags"],
                    "selected": document["selected"].as_bool().unwrap_or(false),
                });
                if let Some(images) = document.pointer("/resource/images") {
                    result["images"] = images.clone();
                }
                result
            })
            .collect()
    }
}

/// Whether a list of versions names one.
fn names(package: &Package, member: &str, version: &str) -> bool {
    let list = package.document().get(member).and_then(Value::as_array);
    list.into_iter().flatten().any(|v| v == "*" || v == version)
}

fn matches(package: &Package, query: &str) -> bool {
    let document = package.document();
    let tags = document["tags"].as_array().into_iter().flatten();
    let texts = [&document["name"], &document["description"]];
    let query = query.to_lowercase();
    texts
        .into_iter()
        .chain(tags)
        .filter_map(Value::as_str)
        .any(|text| {
            let text = text.to_lowercase();
            let mut rest = text.as_str();
            query.split('*').all(|part| match rest.find(part) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, release: u64, upgrades: &[&str]) -> Package {
        Package::from_value(json!({
            "packagingVersion": "4.0", "name": name, "version": version, "releaseVersion": release,
            "description": "Runs things", "tags": ["one", "two"], "upgradesFrom": upgrades,
        }))
        .unwrap()
    }

    fn packages() -> Packages {
        Packages::new([
            (
                "http://a".to_owned(),
                vec![package("k", "1", 1, &[]), package("k", "3", 30, &["2"])],
            ),
            (
                "http://b".to_owned(),
                vec![
                    package("k", "2", 20, &["*"]),
                    package("k", "3", 99, &[]),
                    package("other", "1", 0, &[]),
                ],
            ),
        ])
    }

    #[test]
    fn the_newest_version_and_the_earlier_repository_count() {
        let all = packages();
        let (newest, uri) = all.get("k", None).unwrap();
        assert_eq!(
            (newest.version(), newest.release(), uri),
            ("3", 30, "http://a")
        );
        assert_eq!(all.get("k", Some("2")).unwrap().1, "http://b");
        assert_eq!(
            all.get("k", Some("9")).unwrap_err().kind(),
            "VersionNotFound"
        );
        assert_eq!(all.get("no", None).unwrap_err().kind(), "PackageNotFound");
        assert_eq!(
            all.versions("k").unwrap(),
            json!({"3": "30", "2": "20", "1": "1"})
        );
        assert_eq!(all.upgrades_to("k", "2"), ["3"]);
        assert_eq!(all.upgrades_to("k", "1"), ["2"]);
    }

    #[test]
    fn a_search_looks_at_names_descriptions_and_tags() {
        let all = packages();
        let found = |query: Option<&str>| {
            let found = all.search(query);
            let names: Vec<String> = found
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p["name"].as_str().unwrap().to_owned())
                .collect();
            names.join(" ")
        };
        assert_eq!(found(None), "k other");
        assert_eq!(found(Some("OTH")), "other");
        assert_eq!(found(Some("o*r")), "other");
        assert_eq!(found(Some("two")), "k other");
        assert_eq!(found(Some("nothing")), "");
    }
}
