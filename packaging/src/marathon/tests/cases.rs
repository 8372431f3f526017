//! Option sets whose apps are kept, and the facts that go with them.

use super::super::*;
use crate::options::{Layers, Options};
use crate::pki::Component;
use crate::run::MemberState;

/// Their names.
pub const CASES: &[&str] = &[
    "default",
    "one_machine",
    "secrets",
    "keys_in_environment",
    "keys_from_uri",
    "persistent_volumes",
    "restored_from_snapshot",
    "external_etcd",
    "mesos_image",
    "docker",
    "without_front_door",
    "kept_by_agents",
    "kept_by_agents_with_images",
    "public_front_door",
    "unaccounted_ports",
    "dcos_package",
    "everything",
];

/// A case by its name.
pub fn case(name: &str) -> (Options, Facts) {
    let mut facts = facts();
    let document = match name {
        "default" => "",
        "one_machine" => {
            facts.etcd_hosts.truncate(1);
            facts.api_hosts.truncate(1);
            "{etcd: {count: 1, cpus: 0.2, mem: 256}, apiserver: {instances: 1, cpus: 0.5, shutdown_delay: 0},
              proxy: {legacy_port: 8080}, nodes: {min: 1}, artifacts: {base_url: ''}}"
        }
        "secrets" => {
            facts.pki = PkiDelivery::Secrets {
                digests: Default::default(),
                path: String::new(),
            };
            "{service: {principal: kubernetes, secret_name: kubernetes/mesos}, pki: {source: secrets}}"
        }
        "keys_in_environment" => {
            let key = "-----BEGIN PRIVATE KEY-----\nnot one\n-----END PRIVATE KEY-----\n";
            facts.pki = PkiDelivery::Env {
                bundles: Component::all(5)
                    .into_iter()
                    .map(|c| (c, format!("{{\"component\": \"{c}\", \"key\": {key:?}}}")))
                    .collect(),
            };
            "{pki: {source: env}}"
        }
        "keys_from_uri" => {
            facts.pki = PkiDelivery::Uri {
                base: "https://keys.example.org/k8sm/".to_owned(),
            };
            "{pki: {source: uri, uri: 'https://keys.example.org/k8sm/'}}"
        }
        "persistent_volumes" => {
            facts.etcd_storage = EtcdStorage::Persistent;
            "{etcd: {storage: persistent, disk: 10240, disk_type: mount}, marathon: {resource_roles: ['*']}}"
        }
        "restored_from_snapshot" => {
            facts.etcd_states = (0..3).map(|n| (n, MemberState::Restore)).collect();
            facts.etcd_snapshot = Some(Artifact {
                uri: "https://files.example.org/backup/1.db".to_owned(),
                sha256: "0".repeat(64),
                size: 1,
            });
            ""
        }
        "external_etcd" => {
            facts.etcd_storage = EtcdStorage::External;
            facts.etcd_hosts.clear();
            "{etcd: {storage: external, external_endpoints: ['https://e1.example.org:2379', 'https://e2.example.org:2379']},
              pki: {source: file, file: /etc/k8sm/pki}}"
        }
        "mesos_image" => {
            "{images: {runtime: mesos_image, executor: image, repository: registry.example.org/k8sm}, service: {user: nobody}}"
        }
        "docker" => {
            facts.etcd_storage = EtcdStorage::Persistent;
            "{images: {runtime: docker, repository: registry.example.org/k8sm, tag: 0.1.0-rc1, force_pull: true},
              etcd: {storage: persistent}}"
        }
        "without_front_door" => "{proxy: {enabled: false}, apiserver: {instances: 3, port: 6443}}",
        "kept_by_agents" => {
            let dir = "/var/lib/k8sm-artifacts/kubernetes/artifacts";
            for artifact in facts.artifacts.values_mut() {
                let name = artifact.uri.rsplit('/').next().unwrap();
                artifact.uri = format!("file://{dir}/{}/{name}", artifact.sha256);
            }
            facts.kept = Some(KeptBy {
                dir: dir.to_owned(),
                agents: (1..=3).map(|n| host(n).hostname).collect(),
            });
            "{proxy: {constraints: [[rack, CLUSTER, a]]}}"
        }
        "kept_by_agents_with_images" => {
            facts.kept = Some(KeptBy {
                dir: "/srv/k8sm/kubernetes/artifacts".to_owned(),
                agents: vec![host(1).hostname],
            });
            "{images: {runtime: mesos_image, repository: registry.example.org/k8sm}}"
        }
        "public_front_door" => {
            "{proxy: {public: true, instances: 2, vip: 'kubernetes:6443', haproxy_group: external, haproxy_port: 16443}}"
        }
        "unaccounted_ports" => "{marathon: {require_ports: false}}",
        "dcos_package" => {
            facts.one_app = true;
            facts.pki = PkiDelivery::Secrets {
                digests: Default::default(),
                path: "prod/kubernetes".to_owned(),
            };
            "{service: {name: k8s-prod, principal: k8s-prod, secret_name: prod/kubernetes/sa}, nodes: {min: 3}}"
        }
        "everything" => {
            facts.etcd_hosts = (1..=5).map(host).collect();
            facts.etcd_form_until = Some(1_795_000_000);
            EVERYTHING
        }
        other => panic!("no case {other}"),
    };
    let mut layers = Layers::new();
    layers.document(document).unwrap();
    // Set in most installations.
    if name != "one_machine" {
        layers
            .set("artifacts.base_url=https://files.example.org/k8sm")
            .unwrap();
    }
    (
        layers.finish().unwrap_or_else(|e| panic!("{name}: {e}")),
        facts,
    )
}

const EVERYTHING: &str = include_str!("../../../tests/fixtures/everything.yaml");

/// An agent.
pub fn host(n: u8) -> AgentHost {
    AgentHost {
        hostname: format!("a{n}.example.org"),
        address: [192, 0, 2, n].into(),
    }
}

/// A cluster of agents that serves artifacts and files with keys.
pub fn facts() -> Facts {
    serde_json::from_str(include_str!("../../../tests/fixtures/facts.json")).unwrap()
}
