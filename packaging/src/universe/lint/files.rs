//! The files of a package on their own: what the Universe's validator and its schemas demand.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{CONFIG, Found, PACKAGE, RESOURCE};
use crate::universe::Files;

/// Oldest DC/OS of which Cosmos does not escape for HTML.
const OLDEST_DCOS: (u32, u32) = (1, 10);

/// Only ASCII, and no escapes of anything else: the Universe's validator refuses both.
pub(super) fn ascii(files: &Files, found: &mut Found) {
    for (file, text) in files.named() {
        if let Some((line, _)) = text
            .lines()
            .zip(1..)
            .map(|(l, n)| (n, l))
            .find(|(_, l)| !l.is_ascii())
        {
            found.add(
                file,
                format!("line {line} has characters that are not ASCII"),
            );
        }
        if let Some((line, _)) = text
            .lines()
            .zip(1..)
            .map(|(l, n)| (n, l))
            .find(|(_, l)| l.contains("\\u"))
        {
            found.add(
                file,
                format!("line {line} has an escape \\u, which the Universe refuses"),
            );
        }
    }
}

/// `package.json` of packaging version 4.0.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "members that only have to be of their type")]
struct PackageJson {
    packaging_version: String,
    name: String,
    version: String,
    maintainer: String,
    description: String,
    tags: Vec<String>,
    scm: Option<String>,
    website: Option<String>,
    #[serde(default)]
    framework: bool,
    pre_install_notes: Option<String>,
    post_install_notes: Option<String>,
    post_uninstall_notes: Option<String>,
    #[serde(default)]
    selected: bool,
    #[serde(default)]
    licenses: Vec<License>,
    min_dcos_release_version: Option<String>,
    has_known_issues: Option<bool>,
    last_updated: Option<f64>,
    #[serde(default)]
    upgrades_from: Vec<String>,
    #[serde(default)]
    downgrades_to: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct License {
    name: String,
    url: String,
}

pub(super) fn package(text: &str, found: &mut Found) {
    let package: PackageJson = match serde_json::from_str(text) {
        Ok(package) => package,
        Err(error) => return found.add(PACKAGE, error.to_string()),
    };
    let mut add = |what: String| found.add(PACKAGE, what);
    if package.packaging_version != "4.0" {
        add(format!(
            "packagingVersion is {}, where 4.0 is written",
            package.packaging_version
        ));
    }
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name = &package.name;
    if name.len() < 2
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.ends_with(lower)
        || !name.chars().all(|c| lower(c) || c == '-')
    {
        add(format!("`{name}` is no name of a package"));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    for version in [&package.version]
        .into_iter()
        .chain(&package.upgrades_from)
        .chain(&package.downgrades_to)
    {
        if version == "*" {
            add("`*` promises upgrades from versions that nobody has tried".to_owned());
        } else if version.is_empty() || !version.chars().all(good) {
            add(format!("`{version}` is no version of a package"));
        }
    }
    for tag in &package.tags {
        if tag.is_empty() || tag.contains(char::is_whitespace) {
            add(format!("the tag `{tag}` has blanks"));
        }
    }
    if package.licenses.is_empty() {
        add("licenses are missing".to_owned());
    }
    for license in &package.licenses {
        if license.name.is_empty() || !is_url(&license.url) {
            add(format!("the licence `{}` has no address", license.name));
        }
    }
    let notes = [
        ("preInstallNotes", &package.pre_install_notes),
        ("postInstallNotes", &package.post_install_notes),
        ("postUninstallNotes", &package.post_uninstall_notes),
    ];
    for (member, text) in notes {
        if text.as_deref().unwrap_or_default().is_empty() {
            add(format!("{member} is missing"));
        }
    }
    let least = package
        .min_dcos_release_version
        .as_deref()
        .and_then(release);
    if least.is_none_or(|least| least < OLDEST_DCOS) {
        add(
            "minDcosReleaseVersion is missing or before 1.10, whose Cosmos escapes for HTML"
                .to_owned(),
        );
    }
}

fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    let first = parts.next()?.parse().ok()?;
    let second = parts.next().map_or(Some(0), |n| n.parse().ok())?;
    Some((first, second))
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

pub(super) fn config(text: &str, found: &mut Found) {
    let config: Value = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(error) => return found.add(CONFIG, error.to_string()),
    };
    if let Err(error) = jsonschema::draft4::meta::validate(&config) {
        found.add(CONFIG, format!("no JSON Schema draft-4: {error}"));
    }
    property("", &config, found);
}

/// Every object is closed, everything else has a type, a description and a good default.
fn property(path: &str, property_of: &Value, found: &mut Found) {
    let mut add = |what: String| found.add(CONFIG, what);
    let text = |name: &str| property_of.get(name).and_then(Value::as_str);
    if text("description").unwrap_or_default().is_empty() {
        add(format!("`{path}` has no description"));
    }
    let Some(properties) = property_of.get("properties").and_then(Value::as_object) else {
        if text("type").is_none() {
            add(format!("`{path}` has no type"));
        }
        match property_of.get("default") {
            None => add(format!("`{path}` has no default")),
            Some(default) if !jsonschema::draft4::is_valid(property_of, default) => {
                add(format!("the default of `{path}`, {default}, is not valid"));
            }
            Some(_) => {}
        }
        return;
    };
    if property_of.get("additionalProperties") != Some(&Value::Bool(false)) {
        add(format!("`{path}` takes options that it does not know"));
    }
    for (name, inner) in properties {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if name.contains('.') {
            found.add(
                CONFIG,
                format!("`{path}` has a dot in its name, where Mustache splits it"),
            );
        }
        property(&path, inner, found);
    }
}

/// `resource.json` of repositories v3 and later.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    #[serde(default)]
    assets: Assets,
    #[serde(default)]
    images: Images,
    cli: Option<Cli>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assets {
    #[serde(default)]
    uris: BTreeMap<String, String>,
    #[serde(default)]
    container: Container,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Container {
    #[serde(default)]
    docker: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Images {
    icon_small: Option<String>,
    icon_medium: Option<String>,
    icon_large: Option<String>,
    #[serde(default)]
    screenshots: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cli {
    binaries: BTreeMap<System, BTreeMap<Machine, Binary>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum System {
    Linux,
    Darwin,
    Windows,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Machine {
    #[serde(rename = "x86-64")]
    X8664,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Binary {
    url: String,
    #[serde(rename = "kind")]
    _kind: Kind,
    content_hash: Vec<Hash>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Executable,
    Zip,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hash {
    algo: String,
    value: String,
}

pub(super) fn resource(text: &str, found: &mut Found) {
    let resource: Resource = match serde_json::from_str(text) {
        Ok(resource) => resource,
        Err(error) => return found.add(RESOURCE, error.to_string()),
    };
    let mut add = |what: String| found.add(RESOURCE, what);
    for name in resource
        .assets
        .uris
        .keys()
        .chain(resource.assets.container.docker.keys())
    {
        if name.contains('.') {
            add(format!(
                "`{name}` has a dot in its name, where Mustache splits it"
            ));
        }
    }
    for (name, image) in &resource.assets.container.docker {
        if image.is_empty() || image.contains(char::is_whitespace) || image.contains("://") {
            add(format!(
                "assets.container.docker.{name} is no image: `{image}`"
            ));
        }
    }
    let icons = [
        ("icon-small", &resource.images.icon_small),
        ("icon-medium", &resource.images.icon_medium),
        ("icon-large", &resource.images.icon_large),
    ];
    for (name, icon) in icons {
        if icon.is_none() {
            add(format!("images.{name} is missing"));
        }
    }
    let binaries = resource
        .cli
        .iter()
        .flat_map(|c| c.binaries.values())
        .flat_map(|m| m.values());
    let binaries: Vec<&Binary> = binaries.collect();
    for binary in &binaries {
        let hex = |h: &&Hash| h.value.len() == 64 && h.value.chars().all(|c| c.is_ascii_hexdigit());
        if !binary
            .content_hash
            .iter()
            .any(|h| h.algo == "sha256" && hex(&h))
        {
            add(format!(
                "the command line's program at {} has no SHA-256",
                binary.url
            ));
        }
    }
    let urls = resource.assets.uris.values();
    let urls = urls.chain(icons.iter().filter_map(|(_, icon)| icon.as_ref()));
    let urls = urls.chain(&resource.images.screenshots);
    for url in urls.chain(binaries.iter().map(|b| &b.url)) {
        if !is_url(url) || url.contains(char::is_whitespace) {
            add(format!("`{url}` is no http or https address"));
        }
    }
}
