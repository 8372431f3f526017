//! Certificates on a disk: made when they are missing, checked when they are there, renewed when
//! they no longer are what the plan says or when a third of their life or less is left.
//!
//! Authorities are never renewed silently: every node and every user trusts them. A damaged one
//! is an error that names the file and the remedy.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

mod bundles;

pub use bundles::Expiry;

use super::bundle::BundleError;
use super::issue::{self, Fault, MakeError, new_key, sign, sign_authority, verdict};
use super::plan::{Authority, Certificate, Name};
use crate::files::{self, PUBLIC, SECRET, keep_secret, make_dir, read_optional, write_atomic};

pub use super::issue::{AUTHORITY_LIFE, CERTIFICATE_LIFE};

/// Why the certificates could not be made good. A retry helps only after the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A file is there but is not what its name says.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or remove it together with everything that trusts it"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the operator brought is of no use.
    #[error("{path} cannot be used: {reason}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// One file of a pair exists without the other.
    #[error(
        "{present} exists without {missing}; restore the missing file from a backup, or remove the other to have new ones made"
    )]
    Incomplete {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// An authority's life is over.
    #[error("{path} expired on {expired}; a new authority must be rolled out to every node")]
    AuthorityExpired {
        /// Its certificate.
        path: PathBuf,
        /// When.
        expired: String,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A component's files could not be put together.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// What was done with a certificate, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It did not exist.
    Created(String),
    /// It was replaced.
    Renewed {
        /// Its name.
        name: String,
        /// Why, for a person.
        reason: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(name) => write!(f, "{name}: created"),
            Self::Renewed { name, reason } => write!(f, "{name}: renewed, {reason}"),
        }
    }
}

/// A directory with certificates and keys.
#[derive(Debug, Clone)]
pub struct Pki {
    dir: PathBuf,
    life: Duration,
}

impl Pki {
    /// The certificates in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            life: CERTIFICATE_LIFE,
        }
    }

    /// The same, where new certificates live this long.
    #[must_use]
    pub fn with_life(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A certificate's file.
    pub fn certificate(&self, name: Name) -> PathBuf {
        self.dir.join(format!("{}.crt", name.file_name()))
    }

    /// A certificate's key.
    pub fn key(&self, name: Name) -> PathBuf {
        self.dir.join(format!("{}.key", name.file_name()))
    }

    /// An authority's certificate.
    pub fn authority_certificate(&self, authority: Authority) -> PathBuf {
        self.dir.join(format!("{}.crt", authority.file_name()))
    }

    /// An authority's key.
    pub fn authority_key(&self, authority: Authority) -> PathBuf {
        self.dir.join(format!("{}.key", authority.file_name()))
    }

    /// The key that signs service account tokens.
    pub fn service_account_key(&self) -> PathBuf {
        self.dir.join("service-account.key")
    }

    /// The public half of [`Self::service_account_key`].
    pub fn service_account_public_key(&self) -> PathBuf {
        self.dir.join("service-account.pub")
    }

    /// Makes what is missing and renews what is due. Safe to repeat, and to be killed in.
    pub fn ensure(&self, plan: &[Certificate], now: OffsetDateTime) -> Result<Vec<Change>, Error> {
        make_dir(&self.dir, 0o700)?;
        let mut changes = Vec::new();
        for authority in Authority::ALL {
            changes.extend(self.ensure_authority(authority, now)?);
        }
        changes.extend(self.ensure_service_account_key()?);
        for wanted in plan {
            changes.extend(self.ensure_certificate(wanted, now)?);
        }
        Ok(changes)
    }

    /// Why a certificate would be renewed now; `None` when it is good or missing.
    pub fn due(&self, wanted: &Certificate, now: OffsetDateTime) -> Result<Option<String>, Error> {
        let authority = self.authority_certificate(wanted.authority);
        let ca = read_pem(&authority)?.ok_or_else(|| Error::Damaged {
            path: authority,
            reason: "it is missing".to_owned(),
        })?;
        let certificate = read_optional(&self.certificate(wanted.name))?;
        let key = read_optional(&self.key(wanted.name))?;
        Ok(match (certificate, key) {
            (Some(certificate), Some(key)) => verdict(wanted, &certificate, &key, &ca, now).err(),
            _ => None,
        })
    }

    fn ensure_authority(
        &self,
        authority: Authority,
        now: OffsetDateTime,
    ) -> Result<Option<Change>, Error> {
        let certificate_path = self.authority_certificate(authority);
        let key_path = self.authority_key(authority);
        let certificate = read_optional(&certificate_path)?;
        let key = read_optional(&key_path)?;
        match (certificate, key) {
            // A key alone is what a kill between the two writes leaves, and nothing trusts it yet.
            (None, _) => {
                let key = new_key(authority.common_name())?;
                let certificate = sign_authority(authority, &key, now)?;
                write_atomic(&key_path, key.serialize_pem().as_bytes(), SECRET)?;
                write_atomic(&certificate_path, certificate.as_bytes(), PUBLIC)?;
                Ok(Some(Change::Created(authority.file_name().to_owned())))
            }
            (Some(_), None) => Err(Error::Incomplete {
                present: certificate_path,
                missing: key_path,
            }),
            (Some(certificate), Some(key)) => {
                keep_secret(&key_path)?;
                check_authority(&certificate_path, &certificate, &key_path, &key, now)?;
                Ok(None)
            }
        }
    }

    fn ensure_service_account_key(&self) -> Result<Option<Change>, Error> {
        let path = self.service_account_key();
        let public_path = self.service_account_public_key();
        let (key, change) = match read_optional(&path)? {
            Some(pem) => {
                keep_secret(&path)?;
                (parse_key(&path, &pem)?, None)
            }
            None => {
                let key = new_key("service account key")?;
                write_atomic(&path, key.serialize_pem().as_bytes(), SECRET)?;
                (key, Some(Change::Created("service-account".to_owned())))
            }
        };
        let public = key.public_key_pem();
        if read_optional(&public_path)?.as_deref() != Some(public.as_bytes()) {
            write_atomic(&public_path, public.as_bytes(), PUBLIC)?;
        }
        Ok(change)
    }

    fn ensure_certificate(
        &self,
        wanted: &Certificate,
        now: OffsetDateTime,
    ) -> Result<Option<Change>, Error> {
        let certificate_path = self.certificate(wanted.name);
        let key_path = self.key(wanted.name);
        let ca_path = self.authority_certificate(wanted.authority);
        let ca = read_pem(&ca_path)?.ok_or_else(|| Error::Damaged {
            path: ca_path.clone(),
            reason: "it is missing".to_owned(),
        })?;
        let name = wanted.name.to_string();
        let change = match (read_optional(&certificate_path)?, read_optional(&key_path)?) {
            (Some(certificate), Some(key)) => match verdict(wanted, &certificate, &key, &ca, now) {
                Ok(()) => {
                    keep_secret(&key_path)?;
                    return Ok(None);
                }
                Err(reason) => Change::Renewed { name, reason },
            },
            (None, None) => Change::Created(name),
            _ => Change::Renewed {
                name,
                reason: "half of it was missing".to_owned(),
            },
        };
        let ca_key_path = self.authority_key(wanted.authority);
        let ca_key = read_pem(&ca_key_path)?.unwrap_or_default();
        let ca_key = parse_key(&ca_key_path, ca_key.as_bytes())?;
        let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).map_err(|e| Error::Damaged {
            path: ca_path,
            reason: e.to_string(),
        })?;
        let key = new_key(&wanted.common_name)?;
        let end = issue::end(&ca, self.life, now);
        let certificate = sign(wanted, &key, &issuer, (now, end))?;
        write_atomic(&key_path, key.serialize_pem().as_bytes(), SECRET)?;
        write_atomic(&certificate_path, certificate.as_bytes(), PUBLIC)?;
        Ok(Some(change))
    }
}

fn read_pem(path: &Path) -> Result<Option<String>, Error> {
    read_optional(path)?
        .map(|bytes| {
            String::from_utf8(bytes).map_err(|_| Error::Damaged {
                path: path.to_owned(),
                reason: "it is not text".to_owned(),
            })
        })
        .transpose()
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<KeyPair, Error> {
    issue::parse_key(pem).map_err(|reason| Error::Damaged {
        path: path.to_owned(),
        reason,
    })
}

fn check_authority(
    certificate_path: &Path,
    certificate: &[u8],
    key_path: &Path,
    key: &[u8],
    now: OffsetDateTime,
) -> Result<(), Error> {
    issue::check_authority(certificate, key, now).map_err(|fault| {
        let damaged = |path: &Path, reason| Error::Damaged {
            path: path.to_owned(),
            reason,
        };
        match fault {
            Fault::Certificate(reason) => damaged(certificate_path, reason),
            Fault::Key(reason) => damaged(key_path, reason),
            Fault::Expired(expired) => Error::AuthorityExpired {
                path: certificate_path.to_owned(),
                expired,
            },
        }
    })
}

#[cfg(test)]
mod tests;
