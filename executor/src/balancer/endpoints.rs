//! The API servers as the cluster itself lists them: EndpointSlices of the service
//! `default/kubernetes`.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Balancer;
use crate::credentials::api::{ApiAccess, PENDING_EVENTS, follow};

/// `host:port` of all ready endpoints of a slice.
fn servers(slice: &EndpointSlice) -> Vec<String> {
    let ports: Vec<i32> = slice
        .ports
        .iter()
        .flatten()
        .filter(|p| p.name.as_deref().unwrap_or("https") == "https")
        .filter_map(|p| p.port)
        .collect();
    let ready = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    ready
        .flat_map(|e| &e.addresses)
        .flat_map(|address| {
            ports.iter().map(move |port| {
                if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                }
            })
        })
        .collect()
}

/// Keeps the balancer's list current until `stop`.
pub async fn watch(access: &ApiAccess, balancer: &Balancer, stop: &CancellationToken) {
    let scope = |client: Client| Api::<EndpointSlice>::namespaced(client, "default");
    let config = watcher::Config::default().labels("kubernetes.io/service-name=kubernetes");
    let mut slices: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut listing = BTreeMap::new();
    let (tx, mut rx) = mpsc::channel(PENDING_EVENTS);
    let handle = async {
        while let Some(event) = rx.recv().await {
            let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
            match event {
                watcher::Event::Init => {
                    listing = BTreeMap::new();
                    continue;
                }
                watcher::Event::InitApply(slice) => {
                    listing.insert(name(&slice), servers(&slice));
                    continue;
                }
                watcher::Event::InitDone => slices = std::mem::take(&mut listing),
                watcher::Event::Apply(slice) => {
                    slices.insert(name(&slice), servers(&slice));
                }
                watcher::Event::Delete(slice) => {
                    slices.remove(&name(&slice));
                }
            }
            let all: Vec<String> = slices.values().flatten().cloned().collect();
            balancer.update(&all);
        }
    };
    tokio::join!(follow(access, scope, config, stop, tx), handle);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_endpoints_of_the_https_port_are_servers() {
        let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
            "addressType": "IPv4",
            "metadata": {"name": "kubernetes"},
            "ports": [{"name": "https", "port": 6443}, {"name": "other", "port": 1}],
            "endpoints": [
                {"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
                {"addresses": ["fd00::1"], "conditions": {}},
            ],
        }))
        .unwrap();
        assert_eq!(servers(&slice), ["192.0.2.1:6443", "[fd00::1]:6443"]);
    }
}
