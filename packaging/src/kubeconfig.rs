//! Writes kubeconfig files. Programs that run beside the certificates refer to the files, so
//! that a renewed certificate is found; a person's holds everything, so that it can be copied.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// A certificate or key in a kubeconfig.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// The path of a PEM file.
    File(PathBuf),
    /// The PEM itself.
    Inline(Vec<u8>),
}

impl Source {
    fn entry(&self, member: &str) -> (String, Value) {
        match self {
            Self::File(path) => (member.to_owned(), json!(path)),
            Self::Inline(pem) => (format!("{member}-data"), json!(BASE64.encode(pem))),
        }
    }
}

/// A kubeconfig with one cluster, one user and one context.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Name of the cluster and of the context; shown in prompts.
    pub cluster: String,
    /// `https://host:port` of an API server.
    pub server: String,
    /// Name that the server's certificate is checked for, where that is not the host of the URL:
    /// front doors and API servers move between agents.
    pub server_name: Option<String>,
    /// The cluster's authority.
    pub authority: Source,
    /// Name of the user entry.
    pub user: String,
    /// The user's certificate.
    pub certificate: Source,
    /// The user's key.
    pub key: Source,
}

impl Kubeconfig {
    /// The file's content. It holds or names a key: write it with mode 0600.
    pub fn render(&self) -> String {
        let mut cluster: serde_json::Map<String, Value> = [
            ("server".to_owned(), json!(self.server)),
            self.authority.entry("certificate-authority"),
        ]
        .into_iter()
        .collect();
        if let Some(name) = &self.server_name {
            cluster.insert("tls-server-name".to_owned(), json!(name));
        }
        let user: serde_json::Map<String, Value> = [
            self.certificate.entry("client-certificate"),
            self.key.entry("client-key"),
        ]
        .into_iter()
        .collect();
        crate::yaml(&json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.cluster, "cluster": cluster}],
            "users": [{"name": self.user, "user": user}],
            "contexts": [{
                "name": self.cluster,
                "context": {"cluster": self.cluster, "user": self.user},
            }],
            "current-context": self.cluster,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_paths_and_a_person_gets_data() {
        let program = Kubeconfig {
            cluster: "kubernetes".to_owned(),
            server: "https://127.0.0.1:6443".to_owned(),
            server_name: None,
            authority: Source::File("pki/ca.crt".into()),
            user: "system:k8sm:framework".to_owned(),
            certificate: Source::File("pki/framework.crt".into()),
            key: Source::File("pki/framework.key".into()),
        };
        let person = Kubeconfig {
            authority: Source::Inline(b"ca".to_vec()),
            certificate: Source::Inline(b"certificate".to_vec()),
            key: Source::Inline(b"key".to_vec()),
            user: "admin".to_owned(),
            ..program.clone()
        };
        insta::assert_snapshot!(format!("{}---\n{}", program.render(), person.render()));
    }
}
