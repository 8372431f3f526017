//! Options: what is read, what is refused and in which words, and what is generated.

pub(crate) mod random;

use serde_json::{Value, json};

use super::*;

fn problems(document: Value) -> String {
    Options::from_value(&document).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_good() {
    assert_eq!(Options::from_value(&json!({})), Ok(Options::default()));
    assert_eq!(Options::default().validate(), []);
    assert_eq!(Options::default().changed(), json!({}));
}

#[test]
fn every_key_of_the_table_has_a_description_and_a_default_of_its_own_type() {
    let whole = Options::default().to_value();
    for key in &schema().keys {
        assert_eq!(
            layers::get(&whole, &key.path),
            Some(&key.default),
            "{}",
            key.path
        );
        assert_eq!(check::value(key, &key.default), None, "{}", key.path);
        assert!(
            key.description.ends_with('.'),
            "{}: {}",
            key.path,
            key.description
        );
        assert!(key.description.is_ascii(), "{}", key.path);
        let number = matches!(key.kind, Kind::Integer | Kind::Number);
        let bounded = key.minimum.is_some() || !key.allowed.is_empty();
        assert!(!number || bounded, "{} has no range", key.path);
    }
    assert!(schema().keys.len() > 100, "the table is whole");
}

#[test]
fn all_problems_are_reported_together_with_path_value_and_what_is_allowed() {
    insta::assert_snapshot!(problems(json!({
        "etcd": {"count": 4, "cpu": 1, "disk": "3Gi", "agents": ["UPPER"], "storage": "disk"},
        "kubernetes": {"service_cidr": "10.96.0.1/16", "dns": true, "node_port_range": "31000-30000"},
        "service": {"name": "My Cluster", "constraints": [["hostname", "NEAR"]]},
        "apiserver": {"instances": 9, "port": 80, "extra_args": ["v=3"]},
        "proxy": {"enabled": "yes", "legacy-port": 8080, "legacy_port": 80},
        "mesos": {"master": "zk://user:word@h/mesos", "refuse_seconds": -1},
        "registry": {"mirrors": ["docker.io"], "cas": ["not PEM"]},
        "oidc": {"issuer_url": "http://login.example.org"},
        "pki": {"ca": "relative/../path"},
        "api_server": {},
        "something": 1,
        "nodes": null,
    })));
}

#[test]
fn contradictions_are_reported_together_with_their_remedy() {
    insta::assert_snapshot!(problems(json!({
        "etcd": {"storage": "host_path", "external_endpoints": ["https://e:2379"], "agents": ["a", "a"], "quota": 8000,
            "client_port": 30100},
        "kubernetes": {"service_cidr": "10.96.0.0/16", "pod_cidr": "10.96.128.0/17", "node_port_range": "10000-30999",
            "dns": {"service_ip": "10.97.0.10"}},
        "proxy": {"port": 6444},
        "service": {"secret_name": "a", "secret_file": "/b"},
        "pki": {"source": "uri"},
        "oidc": {"client_id": "k8s"},
        "audit": {"enabled": true, "policy": "x"},
        "images": {"runtime": "docker"},
        "marathon": {"require_ports": false},
    })));
}

#[test]
fn other_contradictions_are_found_too() {
    let text = [
        problems(json!({"etcd": {"storage": "external"}})),
        problems(json!({"etcd": {"storage": "external", "external_endpoints": ["https://e:2379"]}})),
        problems(json!({"kubernetes": {"service_cidr": "10.0.0.0/30", "pod_cidr": "10.1.0.0/25"}})),
        problems(json!({"kubernetes": {"dns": {"service_ip": "10.96.0.1"}}})),
        problems(json!({"pki": {"source": "file"}})),
        problems(json!({"audit": {"enabled": true, "level": "policy"}})),
        problems(json!({"proxy": {"vip": "api:6443"}, "marathon": {"require_ports": false}})),
        problems(json!({"kubernetes": {"dns": {"enabled": false, "nameservers": ["192.0.2.1"]}}})),
        problems(json!({"nodes": {"mem": 300}, "pods": {"overhead_mem": 1000}, "marathon": {"role": "*"}, "etcd": {"storage": "persistent"}})),
    ]
    .join("\n--\n");
    insta::assert_snapshot!(text);
}

#[test]
fn a_document_that_is_none_is_told_apart() {
    let text = |document: &str| {
        let mut layers = Layers::new();
        let read = layers
            .document(document)
            .and_then(|()| layers.finish().map(drop));
        read.unwrap_err().to_string()
    };
    let found = [
        text("[1, 2]"),
        text("etcd: {count: 1"),
        text("etcd: {count: 1, count: 3}"),
        text("true"),
        text("1: 2"),
        text(&"#".repeat(2 << 20)),
    ]
    .join("\n");
    insta::assert_snapshot!(found);
    let mut layers = Layers::new();
    layers.document("# nothing but a comment\n").unwrap();
    assert_eq!(layers.finish(), Ok(Options::default()));
}

#[test]
fn later_layers_go_over_earlier_ones_and_lists_replace() {
    let mut layers = Layers::new();
    layers
        .document(
            "etcd: {count: 1, cpus: 2}\nregistry: {mirrors: ['a.io=http://x', 'b.io=http://y']}",
        )
        .unwrap();
    layers
        .document("{\"etcd\": {\"count\": 5}, \"registry\": {\"mirrors\": [\"c.io=http://z\"]}}")
        .unwrap();
    layers.set("etcd.mem=2048").unwrap();
    let options = layers.finish().unwrap();
    assert_eq!(
        (options.etcd.count, options.etcd.cpus, options.etcd.mem),
        (5, 2.0, 2048)
    );
    assert_eq!(options.registry.mirrors, ["c.io=http://z"]);
}

#[test]
fn an_assignment_is_read_by_the_options_type() {
    let mut layers = Layers::new();
    for assignment in [
        "etcd.count=1",
        "etcd.cpus=2",
        "proxy.enabled=false",
        "service.name=k8s",
        "service.constraints=[[\"rack\", \"LIKE\", \"r1|r2\"]]",
        "http_proxy.no_proxy=a\\,b,c",
        "framework.roles=[\"x\", \"y\"]",
        "apiserver.extra_args=--v=3",
        "registry.mirrors=",
    ] {
        layers.set(assignment).unwrap();
    }
    assert_eq!(
        *layers.said(),
        json!({
            "etcd": {"count": 1, "cpus": 2},
            "proxy": {"enabled": false},
            "service": {"name": "k8s", "constraints": [["rack", "LIKE", "r1|r2"]]},
            "http_proxy": {"no_proxy": ["a,b", "c"]},
            "framework": {"roles": ["x", "y"]},
            "apiserver": {"extra_args": ["--v=3"]},
            "registry": {"mirrors": []},
        })
    );
    let refused: Vec<String> = [
        "etcd",
        "etcd=1",
        "etcd.cout=1",
        "count=1",
        "etcd.count=two",
        "etcd.cpus=NaN",
        "proxy.enabled=yes",
        "service.constraints=hostname:UNIQUE",
        "framework.roles=[1]",
        "=",
    ]
    .into_iter()
    .map(|assignment| layers.set(assignment).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(refused.join("\n"));
}

#[test]
fn config_json_is_valid_and_takes_the_defaults() {
    let document = config_json(schema());
    let meta: Value = serde_json::from_str(include_str!(
        "../../../tests/fixtures/universe/config-schema.json"
    ))
    .unwrap();
    let meta = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .build(&meta)
        .unwrap();
    let errors: Vec<String> = meta.iter_errors(&document).map(|e| e.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .build(&document)
        .unwrap();
    assert!(validator.is_valid(&Options::default().to_value()));
    assert!(!validator.is_valid(&json!({"etcd": {"count": 2}})));
    assert!(!validator.is_valid(&json!({"etcd": {"cout": 1}})));
    let text = serde_json::to_string_pretty(&document).unwrap();
    assert!(
        text.is_ascii() && !text.contains("\\u"),
        "the Universe takes plain ASCII only"
    );
    insta::assert_snapshot!(text);
}

#[test]
fn the_reference_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/options.md");
    let page = page(schema());
    if std::env::var_os("K8SM_UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept == page,
        "run K8SM_UPDATE_DOCS=1 cargo test -p packaging --lib page"
    );
}

#[test]
fn the_page_of_the_historical_package_names_only_options_that_exist() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/from-k8sm.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut named = 0;
    // The second column is today's.
    let cells = page
        .lines()
        .filter(|l| l.starts_with("| "))
        .filter_map(|l| l.split('|').nth(2));
    for word in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
        let name = word.split('=').next().unwrap_or_default();
        if name.contains('.') && !name.starts_with(['*', '-']) && !name.starts_with("k8s.") {
            let group = name.trim_end_matches(".*");
            let known = schema().key(name).is_some() || schema().is_group(group);
            assert!(known, "docs/from-k8sm.md names {word}");
            named += 1;
        }
    }
    assert!(named > 30, "the page names options: {named}");
}

#[test]
fn what_a_cluster_cannot_follow_is_named() {
    let read = |document| Options::from_value(&document).unwrap();
    let old = read(json!({"etcd": {"count": 1}}));
    let new = read(
        json!({"etcd": {"count": 3, "mem": 2048, "storage": "host_path"}, "kubernetes": {"service_cidr": "10.0.0.0/16"}}),
    );
    let problems = Problems(new.impossible_changes(&old)).to_string();
    assert_eq!(
        problems,
        "etcd.count: 3 cannot replace 1 in a cluster that exists; keep it, or install another cluster\n\
         kubernetes.service_cidr: \"10.0.0.0/16\" cannot replace \"10.96.0.0/16\" in a cluster that exists; keep it, or install another cluster"
    );
    assert_eq!(old.impossible_changes(&old), []);
}

#[test]
fn a_shell_completes_options_and_their_values() {
    assert_eq!(completions("etcd.co"), ["etcd.count="]);
    assert_eq!(
        completions("etcd.count="),
        ["etcd.count=1", "etcd.count=3", "etcd.count=5"]
    );
    assert_eq!(completions("etcd.storage=e"), ["etcd.storage=external"]);
    assert_eq!(completions("proxy.enabled=t"), ["proxy.enabled=true"]);
    assert_eq!(
        completions(""),
        schema()
            .keys
            .iter()
            .map(|k| format!("{}=", k.path))
            .collect::<Vec<_>>()
    );
    assert!(completions("nothing=").is_empty());
}
