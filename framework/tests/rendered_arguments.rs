//! What `packaging` renders into the framework's app is what this program takes.

use clap::Parser as _;
use framework::config::Options;
use packaging::marathon::{Facts, app::EnvValue, render};
use packaging::options::Layers;
use packaging::run::{RUN_ENV, Run, RunSpec};

fn arguments(options: &str) -> Vec<String> {
    let mut facts: Facts =
        serde_json::from_str(include_str!("../../packaging/tests/fixtures/facts.json")).unwrap();
    let mut layers = Layers::new();
    layers.document(options).unwrap();
    let options = layers.finish().unwrap();
    let members = usize::try_from(options.etcd.count).unwrap();
    facts
        .etcd_hosts
        .resize(members, facts.etcd_hosts[0].clone());
    let apps = render(&options, &facts).unwrap();
    let app = apps
        .iter()
        .find(|app| app.id.as_str() == format!("/{}", options.service.name))
        .unwrap();
    let EnvValue::Plain(text) = &app.env[RUN_ENV] else {
        panic!("it is no secret")
    };
    let Run::Framework(run) = RunSpec::parse(text, "framework").unwrap().run else {
        panic!("it is the framework's")
    };
    run.args
}

fn parse(args: Vec<String>) -> Options {
    let own = ["k8sm-framework".to_owned(), "--kubeconfig=/k".to_owned()];
    Options::try_parse_from(own.into_iter().chain(args)).unwrap()
}

#[test]
fn the_defaults_are_the_programs_own() {
    let rendered = parse(arguments(
        "artifacts: {base_url: 'https://files.example.org'}",
    ));
    let own = parse(vec![
        "--mesos-master=m:5050".to_owned(),
        "--executor-uri=/e".to_owned(),
        "--payload=/p".to_owned(),
    ]);
    assert_eq!(rendered.framework_name, own.framework_name);
    assert_eq!(rendered.roles, own.roles);
    assert_eq!(rendered.failover_timeout, own.failover_timeout);
    assert_eq!(rendered.node_overhead(), own.node_overhead());
    assert_eq!(rendered.nodes_idle_timeout, own.nodes_idle_timeout);
    assert_eq!(rendered.nodes_start_timeout, own.nodes_start_timeout);
    assert_eq!(rendered.executor_grace, own.executor_grace);
    assert_eq!(rendered.pods_per_node, own.pods_per_node);
    assert_eq!(rendered.default_cpu, own.default_cpu);
    assert_eq!(rendered.default_mem, own.default_mem);
    assert_eq!(rendered.pod_overhead, own.pod_overhead);
    assert_eq!(rendered.overcommit, own.overcommit);
    assert_eq!(rendered.cluster_cidr, own.cluster_cidr);
    assert_eq!(rendered.service_cidr, own.service_cidr);
    assert_eq!(rendered.vxlan_id(), own.vxlan_id());
    assert_eq!(rendered.scheduler_name, own.scheduler_name);
}

#[test]
fn everything_that_an_operator_may_set_arrives() {
    let o = parse(arguments(include_str!(
        "../../packaging/tests/fixtures/everything.yaml"
    )));
    assert_eq!(o.roles, ["team/k8s", "slave_public"]);
    assert_eq!(o.principal.as_deref(), Some("k8s"));
    assert_eq!(o.node_cpu, 250);
    assert_eq!(o.default_cpu, 2, "half a thousandth is not given away");
    assert_eq!(o.nodes_min, 3);
    assert_eq!(o.vxlan_id, Some(77));
    assert_eq!(o.registry_mirrors.len(), 2);
    assert_eq!(
        o.node_https_proxy.as_deref(),
        Some("http://proxy.example.org:3128")
    );
    assert_eq!(o.node_no_proxy, [".example.org", "192.0.2.0/24"]);
    assert_eq!(
        o.executor_args,
        ["--data-dir=/data/k8sm", "--run-dir=/run/k8s"]
    );
    assert_eq!(
        o.kubelet_args,
        [
            "--feature-gates=Foo=true,Bar=false",
            "--max-open-files=100000"
        ]
    );
}
