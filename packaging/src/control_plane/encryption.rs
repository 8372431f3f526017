//! Encryption of Secrets in etcd. The key is made once and kept beside the certificates; whoever
//! loses it loses the Secrets.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::files::{Error, SECRET, keep_secret, read_optional, write_atomic};

/// Makes the API server's EncryptionConfiguration unless it is there. Returns whether it was made.
/// An existing file is never touched: it may name more than one key.
pub fn ensure_encryption_config(path: &Path) -> Result<bool, Error> {
    if read_optional(path)?.is_some() {
        keep_secret(path)?;
        return Ok(false);
    }
    // secretbox (XSalsa20 and Poly1305) takes 32 bytes and needs no rotation after a number of
    // writes, which aesgcm does.
    let key: [u8; 32] = rand::random();
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets"],
            "providers": [
                {"secretbox": {"keys": [{"name": "key1", "secret": BASE64.encode(key)}]}},
                {"identity": {}},
            ],
        }],
    });
    write_atomic(path, crate::yaml(&config).as_bytes(), SECRET)?;
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
}
