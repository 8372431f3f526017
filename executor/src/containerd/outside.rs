//! How containerd reaches registries: through a proxy, and which authorities it trusts there.
//! Both are variables of its environment, which Go's standard library reads.

use std::path::Path;

use seam::node::{ClusterConfig, HttpProxy};

/// Where Linux distributions keep the authorities that the machine trusts. Go reads a list in
/// place of its own where one is given.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs:/etc/pki/tls/certs";

/// The proxy's variables. Where the cluster's options name none, it is the one that the operator
/// gave to the Mesos agent: `inherited` reads the executor's environment.
pub fn proxy(
    proxy: &HttpProxy,
    cluster: &ClusterConfig,
    inherited: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let values = if proxy.is_none() {
        ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"].map(|name| {
            let value = inherited(name).or_else(|| inherited(&name.to_lowercase()));
            (name, value)
        })
    } else {
        let mut direct = vec![
            "localhost".to_owned(),
            "127.0.0.0/8".to_owned(),
            cluster.pod_cidr.clone(),
            cluster.service_cidr.clone(),
            ".svc".to_owned(),
            format!(".{}", cluster.dns_domain),
        ];
        direct.extend(proxy.no_proxy.iter().cloned());
        [
            ("HTTP_PROXY", proxy.http.clone()),
            ("HTTPS_PROXY", proxy.https.clone()),
            ("NO_PROXY", Some(direct.join(","))),
        ]
    };
    values
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .flat_map(|(name, value)| {
            [
                (name.to_owned(), value.clone()),
                (name.to_lowercase(), value),
            ]
        })
        .collect()
}

/// Names of the files with the authorities of registries, and their content.
pub fn authorities(cas: &[String]) -> Vec<(String, &str)> {
    cas.iter()
        .enumerate()
        .map(|(n, pem)| (format!("{n}.crt"), pem.as_str()))
        .collect()
}

/// The variable that makes these authorities trusted besides the machine's own. Its value changes
/// with them, so that containerd is started anew.
pub fn trust(dir: &Path, digest: &str) -> Vec<(String, String)> {
    vec![
        (
            "SSL_CERT_DIR".to_owned(),
            format!("{}:{SYSTEM_AUTHORITIES}", dir.display()),
        ),
        ("K8SM_REGISTRY_CAS_SHA256".to_owned(), digest.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterConfig {
        seam::testing::node_config().cluster
    }

    #[test]
    fn the_options_proxy_leaves_the_cluster_alone() {
        let given = HttpProxy {
            http: None,
            https: Some("http://proxy:3128".to_owned()),
            no_proxy: vec![".example.org".to_owned()],
        };
        let env = proxy(&given, &cluster(), |_| Some("inherited".to_owned()));
        let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"]
        );
        let direct = &env[2].1;
        for part in [
            "127.0.0.0/8",
            &cluster().pod_cidr,
            &cluster().service_cidr,
            ".example.org",
        ] {
            assert!(direct.split(',').any(|d| d == part), "{direct}");
        }
    }

    #[test]
    fn without_one_the_agents_is_used() {
        let env = proxy(&HttpProxy::default(), &cluster(), |name| {
            (name == "https_proxy").then(|| "http://p".to_owned())
        });
        assert_eq!(
            env,
            [
                ("HTTPS_PROXY".to_owned(), "http://p".to_owned()),
                ("https_proxy".to_owned(), "http://p".to_owned())
            ]
        );
    }
}
