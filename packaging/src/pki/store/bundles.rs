//! What leaves the directory and what comes into it: components' bundles, the operator's own
//! authorities, and when certificates end.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use time::OffsetDateTime;

use super::{Error, Pki, check_authority, read_pem};
use crate::files::{PUBLIC, SECRET, make_dir, read_optional, write_atomic};
use crate::pki::bundle::Bundle;
use crate::pki::component::Component;
use crate::pki::issue;
use crate::pki::plan::{Authority, Certificate};

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// Its file, without `.crt`.
    pub name: String,
    /// When, seconds since 1970.
    pub ends: i64,
    /// Days until then, rounded down; negative when it is over.
    pub days: i64,
}

impl Pki {
    /// The files of one component, exactly those that it may have.
    pub fn bundle(&self, component: Component) -> Result<Bundle, Error> {
        let mut files = BTreeMap::new();
        for name in component.certificates() {
            let kept = component.kept_as(*name);
            for (file, path) in [
                (name.certificate_file(), self.certificate(kept)),
                (name.key_file(), self.key(kept)),
            ] {
                if let Some(content) = read_pem(&path)? {
                    files.insert(file, content);
                }
            }
        }
        for file in component.files() {
            if !files.contains_key(&file)
                && let Some(content) = read_pem(&self.dir().join(&file))?
            {
                files.insert(file, content);
            }
        }
        Ok(Bundle::new(component, files)?)
    }

    /// Takes the operator's own authorities (`ca.crt` and `ca.key`, likewise `etcd-ca` and
    /// `front-proxy-ca`) and, if it is there, `service-account.key`, from a directory, once: another
    /// authority later would orphan every certificate. They are checked before. Returns the names of
    /// what was taken.
    pub fn bring(&self, from: &Path, now: OffsetDateTime) -> Result<Vec<String>, Error> {
        make_dir(self.dir(), 0o700)?;
        let mut taken = Vec::new();
        for authority in Authority::ALL {
            let certificate_path = from.join(authority.certificate_file());
            let key_path = from.join(authority.key_file());
            let (certificate, key) =
                match (read_optional(&certificate_path)?, read_optional(&key_path)?) {
                    (Some(certificate), Some(key)) => (certificate, key),
                    (None, None) => continue,
                    (Some(_), None) => {
                        return Err(Error::Incomplete {
                            present: certificate_path,
                            missing: key_path,
                        });
                    }
                    (None, Some(_)) => {
                        return Err(Error::Incomplete {
                            present: key_path,
                            missing: certificate_path,
                        });
                    }
                };
            check_authority(&certificate_path, &certificate, &key_path, &key, now)
                .map_err(brought)?;
            if read_optional(&self.authority_certificate(authority))?.is_some() {
                continue;
            }
            // The key first: a certificate without its key would be an error for ever.
            write_atomic(&self.authority_key(authority), &key, SECRET)?;
            write_atomic(&self.authority_certificate(authority), &certificate, PUBLIC)?;
            taken.push(authority.file_name().to_owned());
        }
        let own = self.service_account_key();
        let path = from.join(crate::pki::component::SERVICE_ACCOUNT_KEY);
        if let (None, Some(key)) = (read_optional(&own)?, read_optional(&path)?) {
            super::parse_key(&path, &key).map_err(brought)?;
            write_atomic(&own, &key, SECRET)?;
            taken.push("service-account".to_owned());
        }
        Ok(taken)
    }

    /// When the authorities' certificates and these end, the earliest first. Those that are missing
    /// or unreadable are not in it: [`Self::ensure`] makes them anew.
    pub fn expiries(
        &self,
        certificates: &[Certificate],
        now: OffsetDateTime,
    ) -> Result<Vec<Expiry>, Error> {
        let authorities = Authority::ALL
            .into_iter()
            .map(|a| (a.file_name(), self.authority_certificate(a)));
        let others = certificates
            .iter()
            .map(|c| (c.name.file_name(), self.certificate(c.name)));
        let mut found = Vec::new();
        for (name, path) in authorities.chain(others) {
            if let Some(ends) = read_pem(&path)?.as_deref().and_then(issue::not_after) {
                found.push(Expiry {
                    name: name.to_owned(),
                    ends,
                    days: (ends - now.unix_timestamp()).div_euclid(86_400),
                });
            }
        }
        found.sort_by(|a, b| (a.ends, &a.name).cmp(&(b.ends, &b.name)));
        Ok(found)
    }
}

/// What is wrong with a file of the operator's is not mended from a backup of ours.
fn brought(error: Error) -> Error {
    match error {
        Error::Damaged { path, reason } => Error::Unusable { path, reason },
        other => other,
    }
}

#[cfg(test)]
mod tests;
