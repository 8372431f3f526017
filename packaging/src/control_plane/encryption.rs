//! Encryption of Secrets in etcd. The key is made once and kept beside the certificates; whoever
//! loses it loses the Secrets.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::files::{Error, SECRET, keep_secret, read_optional, write_atomic};
use crate::options::Encryption;

/// A key that encrypts Secrets: 32 bytes for secretbox (XSalsa20 and Poly1305), which needs no
/// rotation after a number of writes, as aesgcm does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKey {
    /// Its name; stored with everything that it encrypts.
    pub name: String,
    /// The key, base64.
    pub secret: String,
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The EncryptionConfiguration, YAML. The first key encrypts, all of them decrypt; what is not
/// encrypted can be read in any case, and with encryption off it is also how things are written.
pub fn encryption_config(options: &Encryption, keys: &[EncryptionKey]) -> String {
    let resources: Vec<&str> = std::iter::once("secrets")
        .chain(options.resources.iter().map(String::as_str))
        .collect();
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| json!({"name": key.name, "secret": key.secret}))
        .collect();
    let mut providers = vec![
        json!({"secretbox": {"keys": keys}}),
        json!({"identity": {}}),
    ];
    if !options.enabled {
        providers.reverse();
    }
    crate::yaml(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": resources, "providers": providers}],
    }))
}

/// Makes the API server's EncryptionConfiguration unless it is there. Returns whether it was made.
/// An existing file is never touched: it may name more than one key.
pub fn ensure_encryption_config(path: &Path) -> Result<bool, Error> {
    if read_optional(path)?.is_some() {
        keep_secret(path)?;
        return Ok(false);
    }
    let key = EncryptionKey {
        name: "key1".to_owned(),
        secret: BASE64.encode(rand::random::<[u8; 32]>()),
    };
    let config = encryption_config(&Encryption::default(), &[key]);
    write_atomic(path, config.as_bytes(), SECRET)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.yaml");
        assert!(ensure_encryption_config(&path).unwrap());
        let first = std::fs::read_to_string(&path).unwrap();
        assert!(!ensure_encryption_config(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        assert!(first.contains("secretbox"));
    }

    #[test]
    fn turned_off_it_still_reads_what_was_encrypted() {
        let key = EncryptionKey {
            name: "key1".to_owned(),
            secret: "c2VjcmV0".to_owned(),
        };
        let config = |enabled, resources: &[&str]| {
            let options = Encryption {
                enabled,
                resources: resources.iter().map(|r| (*r).to_owned()).collect(),
            };
            encryption_config(&options, std::slice::from_ref(&key))
        };
        insta::assert_snapshot!(config(true, &[]) + "---\n" + &config(false, &["configmaps"]));
        assert!(!format!("{key:?}").contains("c2VjcmV0"));
    }
}
