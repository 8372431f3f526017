//! Renders kubeconfigs. JSON, which is YAML too. Pure.

use std::path::Path;

use serde_json::{Value, json};

/// How the user of a kubeconfig proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity<'a> {
    /// A bootstrap token. The rendered file is a secret.
    Token(&'a str),
    /// One file that holds both certificate and key, replaced when the certificate is renewed.
    CertificateFile(&'a Path),
}

/// A kubeconfig for the API servers behind the executor's balancer.
pub fn render(balancer_port: u16, ca_file: &Path, identity: &Identity<'_>) -> String {
    let user: Value = match identity {
        Identity::Token(token) => json!({ "token": token }),
        Identity::CertificateFile(file) => json!({
            "client-certificate": file,
            "client-key": file,
        }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "cluster",
            "cluster": {
                "server": format!("https://127.0.0.1:{balancer_port}"),
                "certificate-authority": ca_file,
            },
        }],
        "users": [{ "name": "node", "user": user }],
        "contexts": [{ "name": "node", "context": { "cluster": "cluster", "user": "node" } }],
        "current-context": "node",
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_the_balancer_and_the_identity() {
        let ca = Path::new("/n/pki/ca.crt");
        let token = render(31003, ca, &Identity::Token("abcdef.0123456789abcdef"));
        insta::assert_snapshot!(token);
        let file = Path::new("/n/pki/kubelet-client-current.pem");
        insta::assert_snapshot!(render(31003, ca, &Identity::CertificateFile(file)));
    }
}
