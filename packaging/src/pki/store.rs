//! Certificates on a disk: made when they are missing, checked when they are there, renewed when
//! they no longer are what the plan says or when a third of their life or less is left.
//!
//! Authorities are never renewed silently: every node and every user trusts them. A damaged one
//! is an error that names the file and the remedy.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::plan::{Authority, Certificate, Name};
use crate::files::{self, PUBLIC, SECRET, keep_secret, make_dir, read_optional, write_atomic};

/// Life of an authority: ten years, as kubeadm's.
pub const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// Life of a certificate: one year, as kubeadm's.
pub const CERTIFICATE_LIFE: Duration = Duration::days(365);
/// Certificates begin this much in the past, for machines whose clocks differ a little.
const BACKDATE: Duration = Duration::minutes(5);

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
    #[error("make {what}: {source}")]
    Make {
        /// Which.
        what: String,
        /// Why.
        source: rcgen::Error,
    },
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
}

impl Pki {
    /// The certificates in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
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
        let certificate = sign(wanted, &key, &issuer, now)?;
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

fn new_key(what: &str) -> Result<KeyPair, Error> {
    KeyPair::generate().map_err(|source| make(what, source))
}

fn make(what: &str, source: rcgen::Error) -> Error {
    Error::Make {
        what: what.to_owned(),
        source,
    }
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<KeyPair, Error> {
    let damaged = |reason: String| Error::Damaged {
        path: path.to_owned(),
        reason,
    };
    let pem = std::str::from_utf8(pem).map_err(|_| damaged("it is not text".to_owned()))?;
    KeyPair::from_pem(pem).map_err(|e| damaged(e.to_string()))
}

fn serial() -> SerialNumber {
    // 20 octets at most, and positive (RFC 5280, 4.1.2.2).
    let mut octets: [u8; 16] = rand::random();
    octets[0] &= 0x7f;
    SerialNumber::from_slice(&octets)
}

fn sign_authority(
    authority: Authority,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = now + AUTHORITY_LIFE;
    params.serial_number = Some(serial());
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, authority.common_name());
    // No certificate of an authority below: kubelets' are signed directly.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
        .self_signed(key)
        .map(|c| c.pem())
        .map_err(|e| make(authority.common_name(), e))
}

fn sign(
    wanted: &Certificate,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
    now: OffsetDateTime,
) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = now + CERTIFICATE_LIFE;
    params.serial_number = Some(serial());
    params.distinguished_name = DistinguishedName::new();
    if let Some(organisation) = &wanted.organisation {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organisation.as_str());
    }
    params
        .distinguished_name
        .push(DnType::CommonName, wanted.common_name.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if wanted.usage.client() {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    if wanted.usage.server() {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    for name in &wanted.dns_names {
        let name = name
            .as_str()
            .try_into()
            .map_err(|e| make(&format!("{} for the name {name}", wanted.name), e))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    for address in &wanted.addresses {
        params.subject_alt_names.push(SanType::IpAddress(*address));
    }
    params
        .signed_by(key, issuer)
        .map(|c| c.pem())
        .map_err(|e| make(wanted.name.file_name(), e))
}

fn check_authority(
    certificate_path: &Path,
    certificate: &[u8],
    key_path: &Path,
    key: &[u8],
    now: OffsetDateTime,
) -> Result<(), Error> {
    let damaged = |reason: &str| Error::Damaged {
        path: certificate_path.to_owned(),
        reason: reason.to_owned(),
    };
    let key = parse_key(key_path, key)?;
    let der = pem::parse(certificate).map_err(|e| damaged(&e.to_string()))?;
    let (_, parsed) =
        X509Certificate::from_der(der.contents()).map_err(|e| damaged(&e.to_string()))?;
    if !parsed.is_ca() {
        return Err(damaged("it is no certificate of an authority"));
    }
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(damaged("its key is not the one beside it"));
    }
    if parsed.validity().not_after.timestamp() <= now.unix_timestamp() {
        return Err(Error::AuthorityExpired {
            path: certificate_path.to_owned(),
            expired: parsed.validity().not_after.to_string(),
        });
    }
    Ok(())
}

/// Whether a certificate is good; else why not, for a person.
fn verdict(
    wanted: &Certificate,
    certificate: &[u8],
    key: &[u8],
    ca: &str,
    now: OffsetDateTime,
) -> Result<(), String> {
    let unreadable = "it was unreadable";
    let der = pem::parse(certificate).map_err(|_| unreadable)?;
    let (_, parsed) = X509Certificate::from_der(der.contents()).map_err(|_| unreadable)?;
    let key = std::str::from_utf8(key)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok())
        .ok_or("its key was unreadable")?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("its key was another's".to_owned());
    }
    let ca_der = pem::parse(ca).map_err(|_| "its authority was unreadable")?;
    let (_, ca) =
        X509Certificate::from_der(ca_der.contents()).map_err(|_| "its authority was unreadable")?;
    parsed
        .verify_signature(Some(ca.public_key()))
        .map_err(|_| "its authority is another now")?;
    let (begin, end) = (
        parsed.validity().not_before.timestamp(),
        parsed.validity().not_after.timestamp(),
    );
    let left = end - now.unix_timestamp();
    if left <= 0 {
        return Err("it had expired".to_owned());
    }
    if left * 3 <= end - begin {
        return Err(format!("it would expire in {} days", left / 86_400));
    }
    let first = |mut values: Vec<&str>| values.pop().map(str::to_owned);
    let subject = parsed.subject();
    let common_name = first(
        subject
            .iter_common_name()
            .filter_map(|a| a.as_str().ok())
            .collect(),
    );
    let organisation = first(
        subject
            .iter_organization()
            .filter_map(|a| a.as_str().ok())
            .collect(),
    );
    if common_name.as_deref() != Some(wanted.common_name.as_str())
        || organisation != wanted.organisation
    {
        return Err("its subject is another now".to_owned());
    }
    let usages = parsed
        .extended_key_usage()
        .ok()
        .flatten()
        .map_or((false, false), |e| {
            (e.value.client_auth, e.value.server_auth)
        });
    if usages != (wanted.usage.client(), wanted.usage.server()) {
        return Err("its usages are others now".to_owned());
    }
    let (names, addresses) = alternative_names(&parsed);
    if names != wanted.dns_names || addresses != wanted.addresses {
        return Err("its names or addresses have changed".to_owned());
    }
    Ok(())
}

fn alternative_names(certificate: &X509Certificate<'_>) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    names.insert((*name).to_owned());
                }
                GeneralName::IPAddress(octets) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(*octets) {
                        addresses.insert(IpAddr::from(v4));
                    } else if let Ok(v6) = <[u8; 16]>::try_from(*octets) {
                        addresses.insert(IpAddr::from(v6));
                    }
                }
                _ => {}
            }
        }
    }
    (names, addresses)
}

#[cfg(test)]
mod tests;
