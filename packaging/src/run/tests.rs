//! A task runs what it was told, and nothing that it does not understand.

use super::*;

fn spec() -> RunSpec {
    RunSpec {
        version: RUN_VERSION,
        cluster: "kubernetes".to_owned(),
        install: "i-1".to_owned(),
        log_level: "info".to_owned(),
        programs: BTreeMap::new(),
        run: Run::Proxy(ProxyRun {
            api_servers: vec!["192.0.2.1:6444".to_owned()],
            port: 6443,
            http_port: 6480,
            metrics_port: 6481,
            legacy_port: None,
            max_connections: 10,
            extra_args: vec![],
        }),
    }
}

#[test]
fn a_document_survives_the_way_through_the_environment() {
    let text = spec().to_json();
    assert_eq!(RunSpec::parse(&text, "proxy").unwrap(), spec());
}

#[test]
fn another_components_document_is_refused_by_name() {
    let error = RunSpec::parse(&spec().to_json(), "etcd").unwrap_err();
    assert_eq!(
        error.to_string(),
        "K8SM_RUN is for `k8sm run proxy`, not for `k8sm run etcd`"
    );
}

#[test]
fn a_later_version_is_told_from_a_broken_document() {
    let later = spec().to_json().replace("\"version\":1", "\"version\":2");
    let error = RunSpec::parse(&later, "proxy").unwrap_err();
    assert!(matches!(error, Error::Version(2)), "{error}");
    let error = RunSpec::parse("{", "proxy").unwrap_err();
    assert!(matches!(error, Error::Malformed(_)), "{error}");
}

#[test]
fn what_is_not_understood_is_refused() {
    let text = spec().to_json().replacen("\"port\"", "\"prot\"", 1);
    assert!(RunSpec::parse(&text, "proxy").is_err());
}
