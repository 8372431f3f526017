//! The way of kubelet, kube-proxy and the executor itself to the API servers: a balancer on
//! loopback ([`proxy::balancer`]), so that their kubeconfigs name one address that never changes.
//!
//! Its list of servers comes from the node's configuration, from messages of the framework and, as long as one
//! server answers, from the EndpointSlice `default/kubernetes` ([`endpoints`]). It is kept on disk
//! for the next life.

pub mod endpoints;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::credentials::store;
pub use proxy::balancer::{Balancer, BalancerError};

/// Starts it. `configured` are the servers of the node's configuration; the list that an earlier
/// life kept in `list_file` comes before them.
pub async fn start(
    port: u16,
    configured: &[String],
    list_file: PathBuf,
    stop: CancellationToken,
) -> Result<Balancer, BalancerError> {
    let kept = std::fs::read(&list_file)
        .ok()
        .and_then(|text| serde_json::from_slice::<Vec<String>>(&text).ok())
        .unwrap_or_default();
    let keep = move |servers: &[String]| {
        if let Ok(text) = serde_json::to_vec(servers)
            && let Err(error) = store::write_public(&list_file, &text)
        {
            tracing::warn!(%error, "keeping the list of API servers");
        }
    };
    Balancer::start(port, configured, &kept, keep, stop).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(server: &str) -> Vec<String> {
        vec![server.to_owned()]
    }

    #[tokio::test]
    async fn a_list_that_moved_is_kept_for_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("api-servers.json");
        let stop = CancellationToken::new();
        let configured = list("a:1");
        let first = start(0, &configured, file.clone(), stop.clone())
            .await
            .unwrap();
        assert_eq!(first.servers(), list("a:1"));
        first.update(&list("b:2"));
        let next = start(0, &list("a:1"), file, stop.clone()).await.unwrap();
        assert_eq!(next.servers(), list("b:2"));
        stop.cancel();
    }

    #[tokio::test]
    async fn a_corrupt_list_on_disk_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("api-servers.json");
        std::fs::write(&file, "{not json").unwrap();
        let stop = CancellationToken::new();
        let balancer = start(0, &list("a:1"), file, stop.clone()).await.unwrap();
        assert_eq!(balancer.servers(), list("a:1"));
        stop.cancel();
    }
}
