//! The sources of the package and a list of artifacts -> the four files of a package.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use tera::{Context, Tera};

use crate::cosmos::Package;
use crate::install::artifacts::{self, CONTROL_PLANE_PROGRAMS, Manifest, OWN_PROGRAMS, PAYLOAD};
use crate::marathon::{Artifact, image_name, programs};
use crate::options::{Kind, config_json, schema};
use crate::pki::Component;

/// Templates of a package's files, for tera.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// Of `package.json`.
    pub package: &'static str,
    /// Of `resource.json`.
    pub resource: &'static str,
    /// Of `marathon.json.mustache`.
    pub template: &'static str,
    /// The icons: names and contents.
    pub icons: [(&'static str, &'static [u8]); 3],
}

/// What `universe/` holds.
pub const SOURCES: Sources = Sources {
    package: include_str!("../../../universe/package.json.tera"),
    resource: include_str!("../../../universe/resource.json.tera"),
    template: include_str!("../../../universe/marathon.json.mustache.tera"),
    icons: [
        (
            "icon-small.png",
            include_bytes!("../../../universe/icons/icon-small.png"),
        ),
        (
            "icon-medium.png",
            include_bytes!("../../../universe/icons/icon-medium.png"),
        ),
        (
            "icon-large.png",
            include_bytes!("../../../universe/icons/icon-large.png"),
        ),
    ],
};

/// What a package is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Version of our programs: `0.1.0`.
    pub version: String,
    /// Place of this version in the order of all: `releaseVersion`, the directory's name.
    pub number: u64,
    /// Where the package's own files are served, without a slash at the end: icons below `icons/`.
    pub url: String,
    /// Where the artifacts are served.
    pub artifacts_url: String,
    /// Registry, and path in it, of the images, if they are to be mentioned.
    pub images: Option<String>,
    /// Versions of the package that may become this one.
    pub upgrades_from: Vec<String>,
    /// Versions of the package that this one may become.
    pub downgrades_to: Vec<String>,
}

/// The files of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `package.json`.
    pub package: String,
    /// `config.json`.
    pub config: String,
    /// `resource.json`.
    pub resource: String,
    /// `marathon.json.mustache`.
    pub template: String,
}

/// Why a package cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Artifacts are missing.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// A template of ours.
    #[error("make {file} of its template: {reason}")]
    Template {
        /// Which file.
        file: &'static str,
        /// Why not.
        reason: String,
    },
    /// A file is no JSON.
    #[error("{file} is no JSON: {reason}")]
    Json {
        /// Which file.
        file: &'static str,
        /// Why not.
        reason: String,
    },
    /// A number that Cosmos does not read.
    #[error("{0} is no version that a package can have: letters, digits, . and - are allowed")]
    Version(String),
}

/// A program, as the templates see it.
#[derive(Debug, Serialize)]
struct ArtifactView {
    name: String,
    key: String,
    reference: String,
    uri: String,
    sha256: String,
    size: u64,
    /// Whether the app itself fetches it.
    own: bool,
}

#[derive(Debug, Serialize)]
struct OptionView {
    path: &'static str,
    kind: &'static str,
}

/// Names of all artifacts of a package, in the order of its files.
pub fn artifact_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = OWN_PROGRAMS
        .into_iter()
        .chain(CONTROL_PLANE_PROGRAMS)
        .collect();
    names.push(PAYLOAD);
    names.sort_unstable();
    names
}

/// Name of an artifact in `resource.json`. Mustache splits names at dots.
pub fn key(name: &str) -> String {
    name.replace('.', "-")
}

/// The version of the package: both versions, of characters that it may have.
pub fn package_version(version: &str, kubernetes: &str) -> Result<String, Error> {
    let whole = format!("{version}-{}", kubernetes.trim_start_matches('v'));
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    match whole.chars().all(good) {
        true => Ok(whole),
        false => Err(Error::Version(whole)),
    }
}

/// The version of Kubernetes among artifacts.
pub fn kubernetes_version(manifest: &Manifest) -> Result<String, Error> {
    let version = manifest.components.get("kubelet").cloned();
    version.ok_or_else(|| artifacts::Error::Missing("the version of the kubelet".to_owned()).into())
}

/// The artifacts of a package with their addresses.
pub fn artifacts_of(
    manifest: &Manifest,
    base: &str,
) -> Result<std::collections::BTreeMap<String, Artifact>, Error> {
    manifest.complete()?;
    artifact_names()
        .into_iter()
        .map(|name| {
            let entry = &manifest.files[name];
            let artifact = Artifact {
                uri: manifest.url(Some(base), name)?,
                sha256: entry.sha256.clone(),
                size: entry.size,
            };
            Ok((name.to_owned(), artifact))
        })
        .collect()
}

impl Sources {
    /// Makes the files of a package.
    pub fn build(&self, manifest: &Manifest, release: &Release) -> Result<Files, Error> {
        let kubernetes = kubernetes_version(manifest)?;
        let artifacts = artifacts_of(manifest, &release.artifacts_url)?;
        let own = |name: &str| name == "k8sm" || programs(Component::Framework).contains(&name);
        let views: Vec<ArtifactView> = artifacts
            .iter()
            .map(|(name, artifact)| ArtifactView {
                name: name.clone(),
                key: key(name),
                reference: format!("resource.assets.uris.{}", key(name)),
                uri: artifact.uri.clone(),
                sha256: artifact.sha256.clone(),
                size: artifact.size,
                own: own(name),
            })
            .collect();
        let (fetched, cli): (Vec<&ArtifactView>, _) =
            (views.iter().filter(|v| v.own).collect(), &artifacts["k8sm"]);
        let options: Vec<OptionView> = schema().keys.iter().map(view).collect();
        let images: Vec<Value> = release
            .images
            .iter()
            .flat_map(|r| images(r, &release.version))
            .collect();
        let context = json!({
            "version": release.version,
            "kubernetes_version": kubernetes,
            "package_version": package_version(&release.version, &kubernetes)?,
            "upgrades_from": release.upgrades_from,
            "downgrades_to": release.downgrades_to,
            "url": release.url,
            "artifacts": views,
            "fetched": fetched,
            "options": options,
            "images": images,
            "cli": cli,
        });
        let make = |file: &'static str, text: &str| {
            let failed = |e: tera::Error| Error::Template {
                file,
                reason: chain(&e),
            };
            let mut tera = Tera::default();
            tera.autoescape_on(Vec::new());
            tera.register_filter("value", |v: &Value, _: &HashMap<String, Value>| {
                tag("{{{", v, "}}}")
            });
            tera.register_filter("each", |v: &Value, _: &HashMap<String, Value>| {
                tag("{{#", v, "}}")
            });
            tera.register_filter("end", |v: &Value, _: &HashMap<String, Value>| {
                tag("{{/", v, "}}")
            });
            tera.add_raw_template(file, text).map_err(failed)?;
            let context = Context::from_value(context.clone()).map_err(failed)?;
            tera.render(file, &context).map_err(failed)
        };
        Ok(Files {
            package: make("package.json", self.package)?,
            config: config_text(),
            resource: make("resource.json", self.resource)?,
            template: make("marathon.json.mustache", self.template)?,
        })
    }
}

/// Writes a tag of Mustache's.
fn tag(open: &str, name: &Value, close: &str) -> tera::Result<Value> {
    match name.as_str() {
        Some(name) => Ok(format!("{open}{name}{close}").into()),
        None => Err(tera::Error::msg("a tag needs a name")),
    }
}

fn view(key: &'static crate::options::Key) -> OptionView {
    let kind = match key.kind {
        Kind::List => "list",
        Kind::Table => "table",
        _ => "plain",
    };
    OptionView {
        path: &key.path,
        kind,
    }
}

/// The images of the control plane.
fn images(repository: &str, version: &str) -> Vec<Value> {
    [Component::ApiServer, Component::Proxy, Component::Framework]
        .into_iter()
        .map(|component| {
            let name = image_name(component);
            let repository = repository.trim_end_matches('/');
            json!({"key": name, "name": format!("{repository}/{name}:{version}")})
        })
        .collect()
}

/// `config.json`, generated from the table of options.
pub fn config_text() -> String {
    let mut text =
        serde_json::to_string_pretty(&config_json(schema())).expect("a schema is plain data");
    text.push('\n');
    text
}

/// What tera says, with its reasons.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

impl Files {
    /// Their names and contents.
    pub fn named(&self) -> [(&'static str, &str); 4] {
        [
            ("package.json", &self.package),
            ("config.json", &self.config),
            ("resource.json", &self.resource),
            ("marathon.json.mustache", &self.template),
        ]
    }

    /// The package as a repository has it.
    pub fn package(&self, number: u64) -> Result<Package, Error> {
        let json = |file: &'static str, text: &str| -> Result<Value, Error> {
            serde_json::from_str(text).map_err(|e| Error::Json {
                file,
                reason: e.to_string(),
            })
        };
        let mut document = json("package.json", &self.package)?;
        document["releaseVersion"] = number.into();
        document["config"] = json("config.json", &self.config)?;
        document["resource"] = json("resource.json", &self.resource)?;
        document["marathon"] = json!({"v2AppMustacheTemplate": STANDARD.encode(&self.template)});
        Package::from_value(document).map_err(|e| Error::Json {
            file: "package.json",
            reason: e.to_string(),
        })
    }
}
