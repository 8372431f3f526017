//! The operator's order about the nodes' roll-out, and how far it is, in the framework's own ConfigMap
//! ([`packaging::install::rolling`]).

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use packaging::install::rolling::{ORDER, Order, PROGRESS, Progress};
use seam::names::SYSTEM_NAMESPACE;
use serde_json::json;

use super::api::{ApiError, call, unless_missing};
use super::framework_id::object_name;

/// What is stored; an order that pauses nothing where nobody has stored one. One that makes no
/// sense pauses, as it may have been meant to; the framework's other work goes on.
pub async fn read(client: &Client, framework_name: &str) -> Result<Order, ApiError> {
    let name = object_name(framework_name);
    let attempted = || format!("read what is wanted of the roll-out of {framework_name}");
    let found = unless_missing(call(attempted, maps(client).get(&name)).await)?;
    let text = found.and_then(|map| map.data?.get(ORDER).cloned());
    Ok(text.map_or_else(Order::default, |text| parsed(&text)))
}

fn parsed(text: &str) -> Order {
    serde_json::from_str(text).unwrap_or_else(|error| Order {
        id: String::new(),
        paused_since: Some(format!("an order that cannot be read ({error})")),
    })
}

/// Stores how far it is. A ConfigMap that is gone stays gone: whoever deleted it wants the framework
/// to begin anew.
pub async fn write(
    client: &Client,
    framework_name: &str,
    progress: &Progress,
) -> Result<(), ApiError> {
    let name = object_name(framework_name);
    let what = || format!("store how far the roll-out of {framework_name} is");
    let patch = json!({"data": {PROGRESS: json!(progress).to_string()}});
    let params = PatchParams::default();
    let (maps, patch) = (maps(client), Patch::Merge(&patch));
    unless_missing(call(what, maps.patch(&name, &params, &patch)).await).map(drop)
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_makes_no_sense_pauses() {
        assert_eq!(parsed("{\"id\":\"a\"}").paused_since, None);
        let order = parsed("{\"paused");
        assert!(
            order
                .paused_since
                .is_some_and(|t| t.contains("cannot be read"))
        );
    }
}
