//! Keys and certificates of a control plane.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// A CA and what it signed.
pub struct Pki {
    dir: PathBuf,
    pub ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes a CA in `dir`.
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.join("ca.key"), key.serialize_pem()).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "test-ca");
        params.distinguished_name = name;
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("ca.crt"), cert.pem()).unwrap();
        Self {
            dir: dir.to_owned(),
            ca_pem: cert.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Makes `<file>.crt`, `<file>.key`.
    pub fn sign(&self, file: &str, common: &str, group: Option<&str>, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common);
        if let Some(group) = group {
            name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name = name;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.dir.join(format!("{file}.crt")), cert.pem()).unwrap();
        std::fs::write(self.dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    /// `<file>.key` and `<file>.pub` without certificate.
    pub fn key(&self, file: &str) {
        let key = KeyPair::generate().unwrap();
        std::fs::write(self.dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.dir.join(format!("{file}.pub")), key.public_key_pem()).unwrap();
    }

    /// A kubeconfig for one of the certificates.
    pub fn kubeconfig(&self, file: &str, server: &str) -> String {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": "c", "user": {
                "client-certificate": self.file(&format!("{file}.crt")),
                "client-key": self.file(&format!("{file}.key")),
            }}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        let path = self.dir.join(format!("{file}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        path.display().to_string()
    }
}
