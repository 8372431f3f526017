//! Certificates on disk: files of mode 0600 in a directory of mode 0700, replaced by renaming.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// Makes a directory that only its owner may enter.
pub fn private_dir(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error("making the directory", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(io_error("closing the directory", path))
}

/// Writes a file that only its owner may read, whole or not at all, and durably.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    write(path, content, 0o600)
}

/// Writes a file that everyone may read, whole or not at all, and durably.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
    if fs::read(path).is_ok_and(|there| there == content)
        && fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o777 == mode)
    {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // A leftover of an earlier life may have another mode, which opening would keep.
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("replacing", &new)(e));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .map_err(io_error("making", &new))?;
    file.write_all(content)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .map_err(io_error("writing", &new))?;
    fs::rename(&new, path).map_err(io_error("replacing", path))
}

/// A certificate's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: SystemTime,
    /// To.
    pub not_after: SystemTime,
}

impl Validity {
    /// Of the first certificate in a PEM file; `None` if there is none that can be read.
    pub fn of_pem(content: &[u8]) -> Option<Self> {
        let blocks = pem::parse_many(content).ok()?;
        let block = blocks.iter().find(|b| b.tag() == "CERTIFICATE")?;
        let (_, certificate) = X509Certificate::from_der(block.contents()).ok()?;
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
        let validity = certificate.validity();
        Some(Self {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// Of the certificate in a file that also holds its key; `None` if it is not whole.
    pub fn of_file(path: &Path) -> Option<Self> {
        let content = fs::read(path).ok()?;
        let blocks = pem::parse_many(&content).ok()?;
        blocks.iter().find(|b| b.tag().ends_with("PRIVATE KEY"))?;
        Self::of_pem(&content)
    }

    /// Whether it may be used now.
    pub fn is_current(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// When to ask for the next one: after two thirds of its life, and up to a tenth of its life
    /// earlier (`jitter` from 0 to 1), so that nodes that came together do not renew together.
    pub fn renew_at(&self, jitter: f64) -> SystemTime {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default();
        self.not_before + life.mul_f64(2.0 / 3.0 - 0.1 * jitter.clamp(0.0, 1.0))
    }
}

/// Name of the file that says whose certificates are in a directory.
const OWNER: &str = "owner";

/// Removes certificates that were issued by another cluster or for another name: a cluster that
/// was made anew has another CA, and nobody would accept them.
pub fn forget_foreign(dir: &Path, node: &str, ca: &str) -> Result<(), StoreError> {
    let mut digest = Sha256::new();
    digest.update(ca.trim().as_bytes());
    let hash: String = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let owner = format!("{node} {hash}\n");
    let file = dir.join(OWNER);
    if fs::read_to_string(&file).is_ok_and(|there| there == owner) {
        return Ok(());
    }
    let entries = fs::read_dir(dir).map_err(io_error("reading", dir))?;
    for entry in entries {
        let path = entry.map_err(io_error("reading", dir))?.path();
        if path
            .extension()
            .is_some_and(|e| e == "pem" || e == "kubeconfig")
        {
            fs::remove_file(&path).map_err(io_error("removing", &path))?;
        }
    }
    write_public(&file, owner.as_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A certificate and its key in one PEM text.
    pub(crate) fn pair(days_before: u64, days_after: u64) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let day = Duration::from_secs(86_400);
        let now = SystemTime::now();
        params.not_before = (now - day * u32::try_from(days_before).unwrap()).into();
        params.not_after = (now + day * u32::try_from(days_after).unwrap()).into();
        let cert = params.self_signed(&key).unwrap();
        format!("{}{}", cert.pem(), key.serialize_pem())
    }

    #[test]
    fn secrets_are_for_their_owner_only_even_over_an_open_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (old, mode) in [(path.clone(), 0o644), (dir.path().join("token.new"), 0o666)] {
            fs::write(&old, "old").unwrap();
            fs::set_permissions(&old, fs::Permissions::from_mode(mode)).unwrap();
        }
        write_secret(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!dir.path().join("token.new").exists());
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let life = Validity {
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH + Duration::from_secs(3000),
        };
        assert_eq!(life.renew_at(0.0), UNIX_EPOCH + Duration::from_secs(2000));
        assert_eq!(life.renew_at(1.0), UNIX_EPOCH + Duration::from_secs(1700));
        assert!(life.is_current(UNIX_EPOCH) && !life.is_current(life.not_after));
    }

    #[test]
    fn a_file_without_its_key_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pair.pem");
        fs::write(&path, pair(1, 1)).unwrap();
        let validity = Validity::of_file(&path).unwrap();
        assert!(validity.is_current(SystemTime::now()));
        let whole = pair(1, 1);
        let half = whole.split("-----BEGIN PRIVATE KEY-----").next().unwrap();
        for broken in ["", "junk", half] {
            fs::write(&path, broken).unwrap();
            assert_eq!(Validity::of_file(&path), None);
        }
    }

    #[test]
    fn certificates_of_another_cluster_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubelet-client-current.pem");
        forget_foreign(dir.path(), "n1", "CA one").unwrap();
        fs::write(&file, "x").unwrap();
        forget_foreign(dir.path(), "n1", "CA one\n").unwrap();
        assert!(file.exists());
        forget_foreign(dir.path(), "n1", "CA two").unwrap();
        assert!(!file.exists());
    }
}
