//! The labels that Cosmos sets, and what can be read from them again.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{FORCED, Package};

/// Type of a package in its label.
const PACKAGE_TYPE: &str = "application/vnd.dcos.universe.package+json;charset=utf-8;version=";
/// Largest package that is read from a label, bytes.
const LARGEST: u64 = 16 << 20;

/// The labels; `definition` is the package's, of [`definition`].
pub(super) fn forced(
    package: &Package,
    definition: &str,
    source: &str,
    options: Option<&Value>,
) -> Value {
    let mut options = options.cloned().unwrap_or_else(|| json!({}));
    drop_nulls(&mut options);
    let values = [
        package.name().to_owned(),
        package.version().to_owned(),
        source.to_owned(),
        STANDARD.encode(options.to_string()),
        definition.to_owned(),
    ];
    FORCED
        .into_iter()
        .zip(values)
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}

/// The package as its label has it.
pub(super) fn definition(package: &Package) -> String {
    STANDARD.encode(envelope(package).to_string())
}

/// Members that are null go, entries of lists stay.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(entries) => entries.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The package, packed.
fn envelope(package: &Package) -> Value {
    let version = match package.text("packagingVersion") {
        Some("2.0") => "v2",
        Some("3.0") => "v3",
        Some("5.0") => "v5",
        _ => "v4",
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder
        .write_all(package.document().to_string().as_bytes())
        .and_then(|()| encoder.finish())
        .expect("writing into memory does not fail");
    json!({
        "metadata": {
            "Content-Type": format!("{PACKAGE_TYPE}{version}"),
            "Content-Encoding": "gzip",
        },
        "data": STANDARD.encode(packed),
    })
}

/// The package that an app was rendered from; none when its label does not say.
pub fn definition_of(app: &Value) -> Option<Package> {
    let envelope = decoded(app, "DCOS_PACKAGE_DEFINITION")?;
    let packed = STANDARD.decode(envelope.get("data")?.as_str()?).ok()?;
    let mut bytes = Vec::new();
    match envelope
        .pointer("/metadata/Content-Encoding")
        .and_then(Value::as_str)
    {
        Some("gzip") => {
            GzDecoder::new(packed.as_slice())
                .take(LARGEST)
                .read_to_end(&mut bytes)
                .ok()?;
        }
        Some(_) => return None,
        None => bytes = packed,
    }
    Package::from_value(serde_json::from_slice(&bytes).ok()?).ok()
}

/// The options that the user gave for an app; none when its label does not say.
pub fn options_of(app: &Value) -> Option<Value> {
    decoded(app, "DCOS_PACKAGE_OPTIONS").filter(Value::is_object)
}

fn decoded(app: &Value, label: &str) -> Option<Value> {
    let text = app.get("labels")?.get(label)?.as_str()?;
    serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
}
