//! A package as a repository has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Error;

/// A package as a repository has it: `package.json`, with the other files as members.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    document: Value,
    name: String,
    version: String,
}

impl Package {
    /// Takes an entry of a repository.
    pub fn from_value(document: Value) -> Result<Self, Error> {
        let text = |member: &str| {
            let value = document.get(member).and_then(Value::as_str);
            value
                .map(str::to_owned)
                .ok_or_else(|| Error::Package(format!("`{member}` is missing or no text")))
        };
        let (name, version) = (text("name")?, text("version")?);
        for member in ["config", "resource"] {
            if document.get(member).is_some_and(|v| !v.is_object()) {
                return Err(Error::Package(format!("`{member}` is no object")));
            }
        }
        let package = Self {
            name,
            version,
            document,
        };
        package.template()?;
        Ok(package)
    }

    /// Its entry in a repository.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The number that orders its versions.
    pub fn release(&self) -> u64 {
        let release = self.document.get("releaseVersion");
        release.and_then(Value::as_u64).unwrap_or(0)
    }

    /// Its `config.json`.
    pub fn config(&self) -> Option<&Value> {
        self.document.get("config")
    }

    /// Its `resource.json`.
    pub fn resource(&self) -> Option<&Value> {
        self.document.get("resource")
    }

    /// Its Marathon template; none when there is none.
    pub fn template(&self) -> Result<Option<String>, Error> {
        let pointer = "/marathon/v2AppMustacheTemplate";
        let Some(encoded) = self.document.pointer(pointer) else {
            return Ok(None);
        };
        let bytes = encoded.as_str().and_then(|text| STANDARD.decode(text).ok());
        bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Some)
            .ok_or_else(|| Error::Package(format!("`{pointer}` is no text in base64")))
    }

    /// A text member: `postInstallNotes`.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.document.get(member).and_then(Value::as_str)
    }

    /// Whether `minDcosReleaseVersion` allows it on this DC/OS. One that does not say goes
    /// everywhere.
    pub fn runs_on(&self, dcos: &str) -> bool {
        let least = self.text("minDcosReleaseVersion").unwrap_or_default();
        numbers(dcos) >= numbers(least)
    }
}

/// `1.10-dev` -> `[1, 10]`.
fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split('-').next().unwrap_or_default();
    let mut numbers: Vec<u32> = plain.split('.').map_while(|n| n.parse().ok()).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}
