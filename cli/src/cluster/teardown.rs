//! Removes the cluster's framework from a Mesos that is not ours: Mesos then ends its tasks,
//! nodes and pods with them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use mesos::operator::OperatorClient;
use mesos::pb;

use super::Error;
use super::api::Cluster;

/// How long the master may take to be found and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The framework's id, as it has written it down (docs/contracts.md).
pub async fn framework_id(cluster: &Cluster, name: &str) -> Result<Option<String>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client(), "kube-system");
    let found = api
        .get_opt(&format!("k8sm-{name}"))
        .await
        .map_err(|e| Error::api("read the framework's id", &e))?;
    Ok(found.and_then(|map| map.data?.get("framework-id").cloned()))
}

/// Tears the framework down. One that is gone already is no error to Mesos' operator API only
/// within limits, so the caller treats an error as a warning.
pub async fn teardown(url: &str, id: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Api {
        action: format!("tear the framework {id} down in Mesos"),
        reason,
    };
    let url = MasterUrl::parse(url).map_err(|e| failed(e.to_string()))?;
    let client = OperatorClient::new(&url, &ClientConfig::default())
        .map_err(|e| failed(crate::error::chain(&e)))?;
    let call = pb::master::Call {
        r#type: Some(pb::master::call::Type::Teardown.into()),
        teardown: Some(pb::master::call::Teardown {
            framework_id: pb::FrameworkId {
                value: id.to_owned(),
            },
        }),
        ..Default::default()
    };
    match tokio::time::timeout(PATIENCE, client.call(&call)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(crate::error::chain(&error))),
        Err(_) => Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}
