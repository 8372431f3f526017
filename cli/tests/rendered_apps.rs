//! What `packaging` renders is what Marathon takes: devcluster's Marathon applies the real one's
//! rules.

use devcluster::marathon::ids::PathId;
use devcluster::marathon::model::read;
use devcluster::marathon::validate::{self, Rules};
use packaging::marathon::{EtcdStorage, Facts, PkiDelivery, render};
use packaging::options::Layers;

/// Marathon's default for what it can store, bytes.
const NODE_SIZE: usize = 1_024_000;

fn facts() -> Facts {
    serde_json::from_str(include_str!("../../packaging/tests/fixtures/facts.json")).unwrap()
}

fn accepted(options: &str, mut facts: Facts) {
    let mut layers = Layers::new();
    layers.document(options).unwrap();
    layers
        .document("artifacts: {base_url: 'https://files.example.org'}")
        .unwrap();
    let options = layers.finish().unwrap();
    if facts.etcd_storage != EtcdStorage::External {
        let members = usize::try_from(options.etcd.count).unwrap();
        facts
            .etcd_hosts
            .resize(members, facts.etcd_hosts[0].clone());
    }
    let rules = Rules {
        features: ["secrets".to_owned()].into(),
        roles: ["*".to_owned(), "k8s".to_owned()].into(),
    };
    for app in render(&options, &facts).unwrap() {
        let body = serde_json::to_vec(&app).unwrap();
        let read = read::app(read::json(&body).unwrap(), None, &PathId::root())
            .unwrap_or_else(|e| panic!("{} is read: {e:?}", app.id));
        validate::app(&read, &rules, NODE_SIZE)
            .unwrap_or_else(|e| panic!("{} is accepted: {e:?}", app.id));
    }
}

#[test]
fn marathon_takes_the_defaults() {
    accepted("", facts());
}

#[test]
fn marathon_takes_everything_at_once() {
    accepted(
        include_str!("../../packaging/tests/fixtures/everything.yaml"),
        facts(),
    );
}

#[test]
fn marathon_takes_persistent_volumes_and_secrets() {
    let facts = Facts {
        etcd_storage: EtcdStorage::Persistent,
        pki: PkiDelivery::Secrets {
            digests: Default::default(),
            path: "kubernetes".to_owned(),
        },
        ..facts()
    };
    let options = "\
service: {principal: k8s, secret_name: k8s/mesos}
pki: {source: secrets}
etcd: {storage: persistent}
";
    accepted(options, facts.clone());
    let images = "images: {runtime: mesos_image, repository: r.example.org/k8sm}";
    accepted(&format!("{options}{images}"), facts);
}

#[test]
fn marathon_takes_images_of_both_kinds() {
    for runtime in ["mesos_image", "docker"] {
        accepted(
            &format!("images: {{runtime: {runtime}, repository: r.example.org/k8sm}}"),
            facts(),
        );
    }
}

#[test]
fn marathon_takes_apps_that_take_no_ports() {
    accepted("marathon: {require_ports: false}", facts());
}
