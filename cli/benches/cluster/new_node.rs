//! The first pod on an agent that has no node yet: its executor is fetched and started, unpacks
//! nothing (agents of one machine share the payload), starts containerd and kubelet, gets its
//! certificates, and only then the pod is bound.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;

use crate::cluster::Cluster;
use crate::pods::{self, DEADLINE};
use crate::table::Row;

/// Agents; the first gets its node at the start.
const AGENTS: u16 = 3;
/// A port that every agent offers, and that only one pod can have on a node.
const PORT: u16 = 31_999;

/// Starts a cluster whose agents get nodes only when pods want them.
pub async fn measure(cluster: &Cluster) -> Result<Row> {
    let agents = format!("--agents={AGENTS}");
    // `up` waits for a node on each agent; the pods below are what brings them.
    let mut up = cluster.begin_up(&[&agents, "--no-hello", "--framework-arg=--nodes-min=1"])?;
    let measured = starts(cluster).await;
    if measured.is_err() {
        up.kill()?;
    }
    let status = up.wait()?;
    let starts = measured?;
    ensure!(status.success(), "k8sm up: {status}");
    let longest = starts.iter().max().copied().unwrap_or_default();
    let each: Vec<String> = starts
        .iter()
        .map(|it| format!("{:.1}", it.as_secs_f64()))
        .collect();
    Ok(Row {
        what: "first pod on a new node, created to Ready".to_owned(),
        measured: format!("{:.1} s (of {})", longest.as_secs_f64(), each.join(", ")),
        reach: "10 s".to_owned(),
        reached: longest <= Duration::from_secs(10),
    })
}

async fn starts(cluster: &Cluster) -> Result<Vec<Duration>> {
    let client = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Ok(client) = cluster.client().await
                && client.apiserver_version().await.is_ok()
            {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .context("the API server does not answer")?;
    let pods: Api<Pod> = Api::default_namespaced(client);
    // It may wait for the control plane and for the first node, so it does not count.
    let first = pods::pod_with_port("first", PORT)?;
    let begun = Instant::now();
    while let Err(error) = pods::start(&pods, std::slice::from_ref(&first)).await {
        // Namespace and service account appear with the controller manager.
        let early = error.downcast_ref::<kube::Error>().is_some();
        ensure!(early && begun.elapsed() < DEADLINE, error);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut each = Vec::new();
    for number in 1..AGENTS {
        let next = pods::pod_with_port(&format!("new-node-{number}"), PORT)?;
        each.extend(pods::start(&pods, &[next]).await?.each);
    }
    pods::clear(&pods).await?;
    Ok(each)
}
