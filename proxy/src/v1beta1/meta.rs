//! Metadata: inline in v1beta1, a field of its own in v1.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::types::Words;
use super::{Refused, Resource, VERSION};

/// Annotation of ours; see [`super::probe`].
pub const PROBE_PORTS: &str = "k8s.mesosphere.io/v1beta1-probe-ports";

/// An object with v1beta1's inline metadata.
pub trait Meta {
    /// What a client wrote.
    fn meta(&self) -> Inline<'_>;
    /// What a client reads.
    fn set_meta(&mut self, from: Written);
}

/// Metadata as a client wrote it, but for what is the server's alone.
#[allow(missing_docs)]
pub struct Inline<'a> {
    pub kind: Option<&'a str>,
    pub api_version: Option<&'a str>,
    pub id: Option<&'a str>,
    pub uid: Option<&'a str>,
    pub resource_version: Option<u64>,
    pub namespace: Option<&'a str>,
    pub generate_name: Option<&'a str>,
    pub annotations: Option<&'a Words>,
    pub labels: Option<&'a Words>,
}

/// Metadata as a client reads it.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Written {
    pub id: Option<String>,
    pub uid: Option<String>,
    pub creation_timestamp: Option<String>,
    pub self_link: Option<String>,
    pub resource_version: Option<u64>,
    pub namespace: Option<String>,
    pub deletion_timestamp: Option<String>,
    pub generate_name: Option<String>,
    pub annotations: Option<Words>,
    pub labels: Option<Words>,
}

/// v1's metadata. `namespace` is the request's, none for minions.
pub fn to_v1(
    resource: Resource,
    object: &impl Meta,
    namespace: Option<&str>,
) -> Result<ObjectMeta, Refused> {
    let said = |text: Option<&str>| text.filter(|t| !t.is_empty()).map(str::to_owned);
    let meta = object.meta();
    if let Some(version) = said(meta.api_version).filter(|v| v != VERSION) {
        return Err(Refused::at(
            "apiVersion",
            format!(
                "{version:?} under /api/{VERSION}; write {VERSION}, or send the object to /api/{version}"
            ),
        ));
    }
    let kinds = resource.kinds();
    if let Some(kind) = said(meta.kind).filter(|k| !kinds.contains(&k.as_str())) {
        return Err(Refused::at(
            "kind",
            format!(
                "{kind:?} under {}; it should be {}",
                resource.path(),
                kinds[0]
            ),
        ));
    }
    let namespace = match (said(meta.namespace), namespace) {
        (Some(own), Some(asked)) if own != asked => {
            return Err(Refused::at(
                "namespace",
                format!("{own:?} in the object, {asked:?} in the request"),
            ));
        }
        (own, asked) => own.or(asked.map(str::to_owned)),
    };
    Ok(ObjectMeta {
        name: said(meta.id),
        generate_name: said(meta.generate_name),
        namespace: if resource == Resource::Minions {
            None
        } else {
            namespace
        },
        uid: said(meta.uid),
        // 0 meant none.
        resource_version: meta
            .resource_version
            .filter(|v| *v > 0)
            .map(|v| v.to_string()),
        labels: meta.labels.filter(|l| !l.is_empty()).cloned(),
        annotations: annotations_to_v1(meta.annotations),
        ..ObjectMeta::default()
    })
}

/// A client's annotations, without the one that only conversion writes.
pub fn annotations_to_v1(annotations: Option<&Words>) -> Option<Words> {
    let mut annotations = annotations?.clone();
    annotations.remove(PROBE_PORTS);
    (!annotations.is_empty()).then_some(annotations)
}

/// v1beta1's metadata.
pub fn from_v1(resource: Resource, meta: &ObjectMeta) -> Written {
    let name = meta.name.clone().unwrap_or_default();
    let namespace = meta.namespace.as_deref();
    let self_link = (!name.is_empty()).then(|| match namespace {
        Some(namespace) => format!("{}/{name}?namespace={namespace}", resource.path()),
        None => format!("{}/{name}", resource.path()),
    });
    Written {
        id: meta.name.clone(),
        uid: meta.uid.clone(),
        creation_timestamp: meta.creation_timestamp.as_ref().and_then(time),
        self_link,
        resource_version: version(meta.resource_version.as_deref()),
        namespace: meta.namespace.clone(),
        deletion_timestamp: meta.deletion_timestamp.as_ref().and_then(time),
        generate_name: meta.generate_name.clone(),
        annotations: annotations_to_v1(meta.annotations.as_ref()),
        labels: meta.labels.clone().filter(|l| !l.is_empty()),
    }
}

/// A resource version as the number it was in v1beta1. In v1 it is any text; servers write
/// numbers, and another text is left out.
pub fn version(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

/// RFC 3339.
pub fn time(time: &Time) -> Option<String> {
    serde_json::to_value(time).ok()?.as_str().map(str::to_owned)
}
