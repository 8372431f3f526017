//! Signing and checking certificates, without a disk and without a clock of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::plan::{Authority, Certificate};

/// Life of an authority: ten years, as kubeadm's.
pub const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// Life of a certificate: one year, as kubeadm's.
pub const CERTIFICATE_LIFE: Duration = Duration::days(365);
/// Certificates begin this much in the past, for machines whose clocks differ a little.
const BACKDATE: Duration = Duration::minutes(5);

/// A certificate or key could not be made. No retry helps.
#[derive(Debug, thiserror::Error)]
#[error("make {what}: {source}")]
pub struct MakeError {
    /// Which.
    pub what: String,
    /// Why.
    pub source: rcgen::Error,
}

/// What is wrong with an authority's certificate and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The certificate is of no use; why.
    Certificate(String),
    /// The key is of no use; why.
    Key(String),
    /// The certificate's life is over; since when.
    Expired(String),
}

/// A new key, ECDSA P-256; `what` it is for.
pub(super) fn new_key(what: &str) -> Result<KeyPair, MakeError> {
    KeyPair::generate().map_err(|source| make(what, source))
}

fn make(what: &str, source: rcgen::Error) -> MakeError {
    MakeError {
        what: what.to_owned(),
        source,
    }
}

fn serial() -> SerialNumber {
    // 20 octets at most, and positive (RFC 5280, 4.1.2.2).
    let mut octets: [u8; 16] = rand::random();
    octets[0] &= 0x7f;
    SerialNumber::from_slice(&octets)
}

/// Signs an authority's own certificate, PEM.
pub(super) fn sign_authority(
    authority: Authority,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<String, MakeError> {
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

/// Signs a certificate, PEM. It ends with its authority at the latest.
pub(super) fn sign(
    wanted: &Certificate,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
    (now, end): (OffsetDateTime, OffsetDateTime),
) -> Result<String, MakeError> {
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = end;
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

/// Reads a key, PKCS #8 in PEM.
pub(super) fn parse_key(pem: &[u8]) -> Result<KeyPair, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "it is not text".to_owned())?;
    let parsed = pem::parse(text).map_err(|e| format!("it is not PEM ({e})"))?;
    match parsed.tag() {
        "PRIVATE KEY" => KeyPair::from_pem(text).map_err(|e| e.to_string()),
        "ENCRYPTED PRIVATE KEY" => Err("it is encrypted; decrypt it with openssl pkey".to_owned()),
        tag @ ("RSA PRIVATE KEY" | "EC PRIVATE KEY") => Err(format!(
            "it is in the form `{tag}`; openssl pkcs8 -topk8 -nocrypt turns it into PKCS #8"
        )),
        tag => Err(format!("it holds a {tag}, not a private key")),
    }
}

/// Checks that a certificate is an authority's, good now, and that the key is its key.
pub(super) fn check_authority(
    certificate: &[u8],
    key: &[u8],
    now: OffsetDateTime,
) -> Result<(), Fault> {
    let bad = |reason: &str| Fault::Certificate(reason.to_owned());
    let key = parse_key(key).map_err(Fault::Key)?;
    let der = pem::parse(certificate).map_err(|e| bad(&format!("it is not PEM ({e})")))?;
    let (_, parsed) = X509Certificate::from_der(der.contents()).map_err(|e| bad(&e.to_string()))?;
    if !parsed.is_ca() {
        return Err(bad("it is no certificate of an authority"));
    }
    let may_sign = parsed
        .key_usage()
        .ok()
        .flatten()
        .is_none_or(|usage| usage.value.key_cert_sign());
    if !may_sign {
        return Err(bad("its key usage does not allow it to sign certificates"));
    }
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(bad("its key is not the one beside it"));
    }
    let (begin, end) = (parsed.validity().not_before, parsed.validity().not_after);
    if end.timestamp() <= now.unix_timestamp() {
        return Err(Fault::Expired(end.to_string()));
    }
    if begin.timestamp() > now.unix_timestamp() {
        return Err(bad(&format!("it is not valid before {begin}")));
    }
    Ok(())
}

/// When the life of the first certificate of a PEM text ends, seconds since 1970.
pub(super) fn not_after(certificate: &str) -> Option<i64> {
    let der = pem::parse(certificate).ok()?;
    let (_, parsed) = X509Certificate::from_der(der.contents()).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// When a certificate that is signed now ends: after its life, or with its authority.
pub(super) fn end(ca: &str, life: Duration, now: OffsetDateTime) -> OffsetDateTime {
    let wanted = now + life;
    not_after(ca)
        .and_then(|end| OffsetDateTime::from_unix_timestamp(end).ok())
        .map_or(wanted, |end| end.min(wanted))
}

/// Whether a certificate is good; else why not, for a person.
pub(super) fn verdict(
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
