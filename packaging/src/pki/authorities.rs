//! The authorities of one cluster with their keys, the key that signs service account tokens, and
//! the keys that encrypt Secrets in etcd: what the operator keeps, and what every other certificate
//! is made with. In memory; where it is kept is the caller's business (one JSON document).
//!
//! An operator's own authorities are checked before anything is signed with them.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::Issuer;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::bundle::{Bundle, BundleError};
use super::component::{
    Component, ENCRYPTION_FILE, SERVICE_ACCOUNT_KEY, SERVICE_ACCOUNT_PUBLIC_KEY,
};
use super::issue::{self, Fault, MakeError};
use super::plan::{Authority, Certificate};
use crate::control_plane::{EncryptionKey, encryption_config};
use crate::options::Encryption;

/// Version of the document.
const VERSION: u32 = 1;
/// Largest file of an authority that is read, bytes: certificates may come with their chain.
const LARGEST_FILE: usize = 64 * 1024;

/// Why authorities cannot be used. A retry helps only after the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The document is none. Its content is not shown: it holds keys.
    #[error(
        "the authorities in {origin} cannot be read (line {line}, column {column}); restore them from a backup"
    )]
    Malformed {
        /// Where it came from.
        origin: String,
        /// Where the error is.
        line: usize,
        /// Where the error is.
        column: usize,
    },
    /// The document is of a later version.
    #[error(
        "the authorities in {origin} are of version {found}, this program knows {VERSION}: use a later k8sm"
    )]
    Version {
        /// Where it came from.
        origin: String,
        /// Its version.
        found: u32,
    },
    /// A file is missing.
    #[error("{origin}: {file} is missing; a certificate and its key are needed: {pair}")]
    Missing {
        /// Where it was looked for.
        origin: String,
        /// Its name.
        file: String,
        /// Both names.
        pair: String,
    },
    /// A file is of no use.
    #[error("{origin}: {file}: {reason}")]
    Unusable {
        /// Where it is.
        origin: String,
        /// Its name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An authority's life is over.
    #[error("{origin}: {file} expired on {expired}; a new authority must be brought to every node")]
    Expired {
        /// Where it is.
        origin: String,
        /// Its name.
        file: String,
        /// When.
        expired: String,
    },
    /// Something could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A bundle could not be made: the plan lacks a certificate.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(<redacted>)")
    }
}

/// The authorities of a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorities {
    version: u32,
    files: BTreeMap<String, String>,
    encryption: Vec<EncryptionKey>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("files", &self.files.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Authorities {
    /// New ones.
    pub fn generate(now: OffsetDateTime) -> Result<Self, AuthoritiesError> {
        Self::bring("this machine", |_| Ok(None), now)
    }

    /// The operator's own, and new ones for what the operator does not bring. `read` gives a file
    /// by its name (`ca.crt`, `ca.key`, `etcd-ca.crt`, ..., `service-account.key`), `origin` says in
    /// errors where that is.
    pub fn bring(
        origin: &str,
        read: impl Fn(&str) -> Result<Option<Vec<u8>>, String>,
        now: OffsetDateTime,
    ) -> Result<Self, AuthoritiesError> {
        let read = |file: &str| -> Result<Option<String>, AuthoritiesError> {
            let unusable = |reason: &str| AuthoritiesError::Unusable {
                origin: origin.to_owned(),
                file: file.to_owned(),
                reason: reason.to_owned(),
            };
            let Some(content) = read(file).map_err(|e| unusable(&e))? else {
                return Ok(None);
            };
            if content.len() > LARGEST_FILE {
                return Err(unusable(&format!("larger than {LARGEST_FILE} bytes")));
            }
            String::from_utf8(content)
                .map(Some)
                .map_err(|_| unusable("it is not text"))
        };
        let mut files = BTreeMap::new();
        for authority in Authority::ALL {
            let (certificate, key) = (authority.certificate_file(), authority.key_file());
            let missing = |file: &String| AuthoritiesError::Missing {
                origin: origin.to_owned(),
                file: file.clone(),
                pair: format!("{certificate}, {key}"),
            };
            let pair = match (read(&certificate)?, read(&key)?) {
                (Some(certificate), Some(key)) => (certificate, key),
                (None, None) => {
                    let key = issue::new_key(authority.common_name())?;
                    let certificate = issue::sign_authority(authority, &key, now)?;
                    (certificate, key.serialize_pem())
                }
                (Some(_), None) => return Err(missing(&key)),
                (None, Some(_)) => return Err(missing(&certificate)),
            };
            files.insert(certificate, pair.0);
            files.insert(key, pair.1);
        }
        let key = match read(SERVICE_ACCOUNT_KEY)? {
            Some(key) => key,
            None => issue::new_key("the service account key")?.serialize_pem(),
        };
        files.insert(SERVICE_ACCOUNT_KEY.to_owned(), key);
        let authorities = Self {
            version: VERSION,
            files,
            encryption: vec![EncryptionKey {
                name: "key1".to_owned(),
                secret: BASE64.encode(rand::random::<[u8; 32]>()),
            }],
        };
        authorities.check(origin, now)?;
        Ok(authorities)
    }

    /// Reads the document that [`Self::to_json`] writes and checks what is in it.
    pub fn parse(text: &str, origin: &str, now: OffsetDateTime) -> Result<Self, AuthoritiesError> {
        let authorities: Self =
            serde_json::from_str(text).map_err(|e| AuthoritiesError::Malformed {
                origin: origin.to_owned(),
                line: e.line(),
                column: e.column(),
            })?;
        if authorities.version != VERSION {
            return Err(AuthoritiesError::Version {
                origin: origin.to_owned(),
                found: authorities.version,
            });
        }
        authorities.check(origin, now)?;
        Ok(authorities)
    }

    /// The document. Whoever has it owns the cluster: keep it where only the operator reads.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers have a JSON form")
    }

    fn check(&self, origin: &str, now: OffsetDateTime) -> Result<(), AuthoritiesError> {
        let unusable = |file: String, reason: String| AuthoritiesError::Unusable {
            origin: origin.to_owned(),
            file,
            reason,
        };
        for authority in Authority::ALL {
            let (file, key_file) = (authority.certificate_file(), authority.key_file());
            let missing = |file: &String| AuthoritiesError::Missing {
                origin: origin.to_owned(),
                file: file.clone(),
                pair: format!("{}, {}", authority.certificate_file(), authority.key_file()),
            };
            let certificate = self.files.get(&file).ok_or_else(|| missing(&file))?;
            let key = self
                .files
                .get(&key_file)
                .ok_or_else(|| missing(&key_file))?;
            issue::check_authority(certificate.as_bytes(), key.as_bytes(), now).map_err(
                |fault| match fault {
                    Fault::Certificate(reason) => unusable(file, reason),
                    Fault::Key(reason) => unusable(key_file, reason),
                    Fault::Expired(expired) => AuthoritiesError::Expired {
                        origin: origin.to_owned(),
                        file,
                        expired,
                    },
                },
            )?;
        }
        self.public_key()
            .map_err(|reason| unusable(SERVICE_ACCOUNT_KEY.to_owned(), reason))?;
        if self.encryption.is_empty() {
            return Err(unusable(
                ENCRYPTION_FILE.to_owned(),
                "there is no key; restore it, or the Secrets in etcd are lost".to_owned(),
            ));
        }
        Ok(())
    }

    fn file(&self, name: &str) -> &str {
        // `check` has seen them all.
        self.files.get(name).map_or("", String::as_str)
    }

    /// An authority's certificate, PEM.
    pub fn certificate(&self, authority: Authority) -> &str {
        self.file(&authority.certificate_file())
    }

    /// The public half of the key that signs service account tokens, PEM.
    fn public_key(&self) -> Result<String, String> {
        issue::parse_key(self.file(SERVICE_ACCOUNT_KEY).as_bytes()).map(|key| key.public_key_pem())
    }

    /// Signs a certificate, with a new key.
    pub fn issue(
        &self,
        wanted: &Certificate,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Pair, AuthoritiesError> {
        let certificate = self.certificate(wanted.authority);
        let unusable = |file: String, reason: String| AuthoritiesError::Unusable {
            origin: "the authorities".to_owned(),
            file,
            reason,
        };
        let key = issue::parse_key(self.file(&wanted.authority.key_file()).as_bytes())
            .map_err(|reason| unusable(wanted.authority.key_file(), reason))?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key)
            .map_err(|e| unusable(wanted.authority.certificate_file(), e.to_string()))?;
        let end = issue::end(certificate, life, now);
        let key = issue::new_key(&wanted.common_name)?;
        Ok(Pair {
            certificate: issue::sign(wanted, &key, &issuer, (now, end))?,
            key: key.serialize_pem(),
        })
    }

    /// The keys of a component. What `old` has and is good stays; the rest is made anew. `plan` must
    /// hold all of the component's certificates.
    pub fn bundle(
        &self,
        component: Component,
        plan: &[Certificate],
        encryption: &Encryption,
        old: Option<&Bundle>,
        (life, now): (Duration, OffsetDateTime),
    ) -> Result<Bundle, AuthoritiesError> {
        let mut files = BTreeMap::new();
        for authority in component.authorities() {
            let file = authority.certificate_file();
            files.insert(file, self.certificate(*authority).to_owned());
        }
        for authority in component.signs_for() {
            let file = authority.key_file();
            let content = self.file(&file).to_owned();
            files.insert(file, content);
        }
        for wanted in plan {
            if !component.certificates().contains(&wanted.name) {
                continue;
            }
            let (certificate_file, key_file) =
                (wanted.name.certificate_file(), wanted.name.key_file());
            let kept = old.and_then(|old| {
                let pair = Pair {
                    certificate: old.file(&certificate_file)?.to_owned(),
                    key: old.file(&key_file)?.to_owned(),
                };
                self.verdict(wanted, &pair, now).is_ok().then_some(pair)
            });
            let pair = match kept {
                Some(pair) => pair,
                None => self.issue(wanted, life, now)?,
            };
            files.insert(certificate_file, pair.certificate);
            files.insert(key_file, pair.key);
        }
        for file in component.files() {
            let content = match file.as_str() {
                SERVICE_ACCOUNT_KEY => self.file(SERVICE_ACCOUNT_KEY).to_owned(),
                SERVICE_ACCOUNT_PUBLIC_KEY => self.public_key().unwrap_or_default(),
                ENCRYPTION_FILE => encryption_config(encryption, &self.encryption),
                _ => continue,
            };
            files.insert(file, content);
        }
        Ok(Bundle::new(component, files)?)
    }

    /// Whether a certificate is good; else why not, for a person.
    pub(super) fn verdict(
        &self,
        wanted: &Certificate,
        pair: &Pair,
        now: OffsetDateTime,
    ) -> Result<(), String> {
        issue::verdict(
            wanted,
            pair.certificate.as_bytes(),
            pair.key.as_bytes(),
            self.certificate(wanted.authority),
            now,
        )
    }
}

#[cfg(test)]
mod tests;
