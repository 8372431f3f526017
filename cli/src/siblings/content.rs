//! How the state is written down: JSON, gzip, base64, in a variable of an app or in a secret.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::install::Record;

/// Version of the content.
pub(super) const VERSION: u32 = 1;
/// Largest content, unpacked, bytes.
const LARGEST: u64 = 4 << 20;

/// The state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Content {
    pub version: u32,
    pub record: Record,
    /// Files of the keys' directory by name. None where they are elsewhere.
    pub keys: BTreeMap<String, String>,
    /// The kubeconfig for people, once there is one.
    #[serde(default)]
    pub kubeconfig: Option<String>,
    /// The secret of DC/OS' store that holds the whole of it, where this does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl Content {
    /// The same without anything secret, for everybody who may read Marathon's apps.
    pub fn pointing_to(&self, secret: String) -> Self {
        Self {
            keys: BTreeMap::new(),
            kubeconfig: None,
            secret: Some(secret),
            ..self.clone()
        }
    }
}

pub(super) fn pack(content: &Content) -> String {
    let json = serde_json::to_vec(content).expect("texts and numbers have a JSON form");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder
        .write_all(&json)
        .and_then(|()| encoder.finish())
        .expect("writing into memory does not fail");
    STANDARD.encode(packed)
}

pub(super) fn unpack(packed: &str) -> Result<Content, String> {
    let packed = STANDARD.decode(packed).map_err(|e| e.to_string())?;
    let mut json = Vec::new();
    GzDecoder::new(packed.as_slice())
        .take(LARGEST)
        .read_to_end(&mut json)
        .map_err(|e| e.to_string())?;
    let value: Value = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
    match value["version"].as_u64() {
        Some(version) if version > u64::from(VERSION) => {
            return Err(format!(
                "it was written by a newer k8sm (version {version})"
            ));
        }
        _ => {}
    }
    let content: Content = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match content
        .keys
        .keys()
        .find(|k| k.starts_with('.') || !k.chars().all(plain))
    {
        Some(name) => Err(format!("`{name}` is no name of a file")),
        None => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        serde_json::from_value(json!({
            "version": 1, "id": "i-1", "name": "k", "phase": "installing",
            "marathon": "http://m", "options": {},
            "choice": {"etcd_hosts": [], "etcd_storage": "host_path", "api_hosts": [], "pki": "env", "why": []},
            "first_start_until": 0, "artifacts_url": "http://a",
            "artifacts": {"version": 1, "files": {}, "components": {}},
        }))
        .unwrap()
    }

    fn content() -> Content {
        Content {
            version: VERSION,
            record: record(),
            keys: [("ca.key".to_owned(), "secret".to_owned())].into(),
            kubeconfig: Some("apiVersion: v1".to_owned()),
            secret: None,
        }
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let packed = pack(&content());
        assert_eq!(unpack(&packed).unwrap(), content());
    }

    #[test]
    fn who_reads_the_app_learns_where_the_keys_are_and_no_key() {
        let pointer = content().pointing_to("k/state".to_owned());
        let text = serde_json::to_string(&pointer).unwrap();
        assert!(
            !text.contains("secret\"}") && !text.contains("apiVersion"),
            "{text}"
        );
        let read = unpack(&pack(&pointer)).unwrap();
        assert_eq!(read.secret.as_deref(), Some("k/state"));
        assert_eq!(read.record, content().record);
    }

    #[test]
    fn what_is_damaged_newer_or_climbs_out_is_refused() {
        assert!(unpack("").is_err());
        assert!(unpack("!").is_err());
        let packed = pack(&content());
        assert!(unpack(&packed[..packed.len() / 2]).is_err());
        let newer = Content {
            version: 2,
            ..content()
        };
        assert!(unpack(&pack(&newer)).unwrap_err().contains("newer"));
        let out = Content {
            keys: [("../x".to_owned(), String::new())].into(),
            ..content()
        };
        assert!(unpack(&pack(&out)).unwrap_err().contains("no name"));
    }
}
