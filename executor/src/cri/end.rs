//! Ends all containers of a node that is given up, each with its own grace.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::{Container, Cri};

/// kubelet's annotation: the pod's `terminationGracePeriodSeconds`.
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Kubernetes' default of it.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Stops all containers at once, each with its pod's grace but at most with `most`. What does not
/// work is told and left to the killing of the cgroup that follows. Hooks (`preStop`) are
/// kubelet's to run, and it is stopped: they do not run.
pub async fn end_all(socket: &Path, most: Duration) {
    let cri = match Cri::connect(socket).await {
        Ok(cri) => cri,
        Err(error) => {
            tracing::warn!("containers are killed without grace: {error}");
            return;
        }
    };
    let containers = match cri.running().await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::warn!("containers are killed without grace: {error}");
            return;
        }
    };
    tracing::info!("ending {} containers", containers.len());
    let mut stops: FuturesUnordered<_> = containers
        .iter()
        .map(|container| {
            let cri = cri.clone();
            async move { cri.stop(&container.id, grace(container).min(most)).await }
        })
        .collect();
    while let Some(result) = stops.next().await {
        if let Err(error) = result {
            tracing::warn!("ending a container: {error}");
        }
    }
}

fn grace(container: &Container) -> Duration {
    container
        .annotations
        .get(GRACE)
        .and_then(|text| text.parse().ok())
        .map_or(DEFAULT_GRACE, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_grace_is_its_pods() {
        let mut container = Container::default();
        assert_eq!(grace(&container), DEFAULT_GRACE);
        for (text, seconds) in [("5", 5), ("0", 0), ("-1", 30), ("x", 30)] {
            container
                .annotations
                .insert(GRACE.to_owned(), text.to_owned());
            assert_eq!(grace(&container).as_secs(), seconds, "{text}");
        }
    }
}
