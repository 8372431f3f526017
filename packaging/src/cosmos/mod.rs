//! What Cosmos, DC/OS' package manager, does with a package: defaults and options are merged and
//! validated, the template is rendered, and labels are added that say where the app came from.
//!
//! | step | what counts |
//! |---|---|
//! | [`defaults`] | of each property `default`, else what is below its `properties` |
//! | [`merged`] | the user's options over them; objects merge, all else replaces |
//! | [`check`] | the result against `config.json`, JSON Schema draft-4 |
//! | [`render`] | `resource` goes over everything, then the template, then [forced labels](FORCED) |

mod label;
mod package;

use serde_json::{Map, Value, json};

use crate::mustache::{self, Template};
use crate::options::merge;

pub use label::{definition_of, options_of};
pub use package::Package;

/// Labels that Cosmos sets on every app of a package, whatever the template says.
pub const FORCED: [&str; 5] = [
    "DCOS_PACKAGE_NAME",
    "DCOS_PACKAGE_VERSION",
    "DCOS_PACKAGE_SOURCE",
    "DCOS_PACKAGE_OPTIONS",
    "DCOS_PACKAGE_DEFINITION",
];

/// An option that the schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where, as a JSON pointer: `/etcd/count`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// Why a package cannot be rendered. No retry helps.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The package is none.
    #[error("the package is not as a repository has it: {0}")]
    Package(String),
    /// It has no template, so there is nothing to render.
    #[error("the package {0} has no Marathon template")]
    NoTemplate(String),
    /// Options for a package without `config.json`.
    #[error("the package takes no options: it has no config.json")]
    OptionsNotAllowed,
    /// Options that are no object.
    #[error("the options are no JSON object")]
    OptionsNoObject,
    /// `config.json` is no schema.
    #[error("config.json is no JSON Schema: {0}")]
    Schema(String),
    /// The options do not fit the schema.
    #[error("the options are not valid:\n{}", listed(.0))]
    Mismatch(Vec<Mismatch>),
    /// The template.
    #[error(transparent)]
    Template(#[from] mustache::Error),
    /// What was rendered is no JSON.
    #[error("the template renders to something that is no JSON: {reason}, at {near:?}")]
    Json {
        /// Why not.
        reason: String,
        /// The text there.
        near: String,
    },
    /// What was rendered is no object.
    #[error("the template renders to JSON that is no object")]
    NoObject,
    /// Labels that are no texts.
    #[error("the template renders labels of which {0} is no text")]
    Label(String),
}

fn listed(mismatches: &[Mismatch]) -> String {
    let lines: Vec<String> = mismatches
        .iter()
        .map(|m| {
            format!(
                "  {}: {}",
                if m.path.is_empty() { "/" } else { &m.path },
                m.message
            )
        })
        .collect();
    lines.join("\n")
}

impl Error {
    /// The name that Cosmos gives to this kind of error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Package(_) => "PackageFileSchemaMismatch",
            Self::NoTemplate(_) => "ServiceMarathonTemplateNotFound",
            Self::OptionsNotAllowed => "OptionsNotAllowed",
            Self::Mismatch(_) | Self::OptionsNoObject => "JsonSchemaMismatch",
            Self::Schema(_) | Self::Template(_) => "exception",
            Self::Json { .. } => "JsonParsingError",
            Self::NoObject => "MarathonTemplateMustBeJsonObject",
            Self::Label(_) => "JsonDecodingError",
        }
    }
}

/// The defaults of a `config.json`.
pub fn defaults(config: &Value) -> Value {
    let mut found = Map::new();
    let properties = config.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if !property.is_object() {
            continue;
        }
        let value = match property.get("default") {
            Some(value) => value.clone(),
            None if property.get("properties").is_some() => match defaults(property) {
                Value::Object(inner) if !inner.is_empty() => Value::Object(inner),
                _ => continue,
            },
            None => continue,
        };
        found.insert(name.clone(), value);
    }
    Value::Object(found)
}

/// Defaults with the user's options over them.
pub fn merged(package: &Package, options: Option<&Value>) -> Value {
    let mut all = package.config().map_or_else(|| json!({}), defaults);
    if let Some(options) = options {
        merge(&mut all, options.clone());
    }
    all
}

/// Checks merged options.
pub fn check(package: &Package, merged: &Value) -> Result<(), Error> {
    Schema::of(package)?.check(merged)
}

/// A package's `config.json`, ready to check options.
struct Schema(Option<jsonschema::Validator>);

impl Schema {
    fn of(package: &Package) -> Result<Self, Error> {
        let build = |config| {
            jsonschema::options()
                .with_draft(jsonschema::Draft::Draft4)
                .build(config)
                .map_err(|e| Error::Schema(e.to_string()))
        };
        package.config().map(build).transpose().map(Self)
    }

    fn check(&self, merged: &Value) -> Result<(), Error> {
        let members = merged.as_object().ok_or(Error::OptionsNoObject)?;
        if members.is_empty() {
            return Ok(());
        }
        let schema = self.0.as_ref().ok_or(Error::OptionsNotAllowed)?;
        let mismatches: Vec<Mismatch> = schema
            .iter_errors(merged)
            .map(|error| Mismatch {
                path: error.instance_path().to_string(),
                message: error.to_string(),
            })
            .collect();
        match mismatches.is_empty() {
            true => Ok(()),
            false => Err(Error::Mismatch(mismatches)),
        }
    }
}

/// What the template is rendered over: merged options, and `resource` over them.
pub fn context(package: &Package, merged: Value) -> Value {
    let mut context = merged;
    if let Some(resource) = package.resource() {
        merge(&mut context, json!({"resource": resource}));
    }
    context
}

/// The app that Cosmos would post. `source` is the address of the repository, `app_id` what
/// `dcos package install --app-id` says.
pub fn render(
    package: &Package,
    source: &str,
    options: Option<&Value>,
    app_id: Option<&str>,
) -> Result<Value, Error> {
    Renderer::new(package)?.render(source, options, app_id)
}

/// A package whose schema and template have been read, to be rendered many times.
pub struct Renderer<'p> {
    package: &'p Package,
    schema: Schema,
    template: Template,
    definition: String,
}

impl std::fmt::Debug for Renderer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer")
            .field("package", &self.package.name())
            .finish_non_exhaustive()
    }
}

impl<'p> Renderer<'p> {
    /// Reads a package's schema and template.
    pub fn new(package: &'p Package) -> Result<Self, Error> {
        let template = package
            .template()?
            .ok_or_else(|| Error::NoTemplate(package.name().to_owned()))?;
        Ok(Self {
            package,
            schema: Schema::of(package)?,
            template: Template::parse(&template)?,
            definition: label::definition(package),
        })
    }

    /// Checks a user's options.
    pub fn check(&self, options: Option<&Value>) -> Result<(), Error> {
        if options.is_some_and(|o| !o.is_object()) {
            return Err(Error::OptionsNoObject);
        }
        self.schema.check(&merged(self.package, options))
    }

    /// The app, as [`render`].
    pub fn render(
        &self,
        source: &str,
        options: Option<&Value>,
        app_id: Option<&str>,
    ) -> Result<Value, Error> {
        self.check(options)?;
        let merged = merged(self.package, options);
        let text = self.template.render(&context(self.package, merged))?;
        let mut app = parse(&text)?;
        let labels = match app.get("labels") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(labels)) => labels.clone(),
            Some(_) => return Err(Error::Label("labels".to_owned())),
        };
        if let Some((name, _)) = labels.iter().find(|(_, value)| !value.is_string()) {
            return Err(Error::Label(name.clone()));
        }
        let mut over = json!({ "labels": labels });
        if let Some(id) = app_id {
            over["id"] = format!("/{}", id.trim_start_matches('/')).into();
        }
        let forced = label::forced(self.package, &self.definition, source, options);
        merge(&mut over, json!({ "labels": forced }));
        merge(&mut app, over);
        Ok(app)
    }
}

/// Reads what a template made.
fn parse(text: &str) -> Result<Value, Error> {
    let app: Value = serde_json::from_str(text).map_err(|error| {
        let line = text.lines().nth(error.line().saturating_sub(1));
        let near: String = line.unwrap_or_default().chars().take(200).collect();
        Error::Json {
            reason: error.to_string(),
            near,
        }
    })?;
    match app {
        Value::Object(_) => Ok(app),
        _ => Err(Error::NoObject),
    }
}

#[cfg(test)]
mod tests;
