//! A cluster of the DC/OS package whose keys were in its apps' environment, and go to DC/OS' secret
//! store.

use serde_json::json;

use super::dcos::{Begun, Dcos, PATIENCE, no_key_is_shown, pod_that_stays, secrets, stored};
use super::{nothing_is_left, strict};
use crate::support::Cluster;

#[test]
fn slow_keys_in_the_environment_of_apps_move_to_the_secret_store() {
    let cluster = Cluster::prepare(&[]);
    let Begun { site, mut options } = Begun::new(&cluster);
    let dcos = Dcos::start(&cluster, &site);
    dcos.add_repository();
    options["pki"]["source"] = json!("env");
    let install = json!({"packageName": "kubernetes", "options": options});
    dcos.package("install", &install);
    dcos.runs("the package's cluster runs");
    let status = dcos.plugin(&["status"]).unwrap();
    assert!(!status.contains("secret store"), "{status}");
    assert_eq!(stored(&secrets(&cluster)), [strict::SECRET]);
    let apps = site.get("/v2/apps").to_string();
    assert!(apps.contains("PRIVATE KEY"), "that is what env means");

    let file = dcos.kubeconfig();
    let container = || pod_that_stays(&file);
    let pod = dcos.run_pod(&file);

    dcos.update(&json!({"pki": {"source": "secrets"}}));
    cluster.wait("the keys are in the store", PATIENCE, || {
        stored(&secrets(&cluster)).len() > 5
    });
    cluster.wait("no app has a key", PATIENCE, || {
        !site.get("/v2/apps").to_string().contains("PRIVATE KEY")
    });
    dcos.runs("the changed cluster runs");
    no_key_is_shown(&cluster, &site);
    cluster.wait("the API answers", 60, || container().is_some());
    assert_eq!(container(), pod);

    dcos.package("uninstall", &json!({"packageName": "kubernetes"}));
    cluster.wait("the package has removed itself", PATIENCE, || {
        site.apps().is_empty() && site.held().is_empty()
    });
    nothing_is_left(&site);
    assert_eq!(stored(&secrets(&cluster)), [strict::SECRET]);
    drop(dcos);
    drop(site);
    cluster.finish();
}
