//! Pods that are created, timed and deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::table::{Row, quantile};

/// Bound of every single wait.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// The example's image: every node has it.
const IMAGE: &str = "k8s.mesosphere.io/hello:v0.1.0";
/// Label of what this benchmark creates.
const SELECTOR: &str = "bench=yes";
/// Clients that create pods at the same time.
const CREATORS: usize = 16;

/// A small pod; with `node`, one that names its node itself, which no scheduler sees.
pub fn pod(name: &str, node: Option<&str>) -> Result<Pod> {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": IMAGE, "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}}}],
    });
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    named(name, spec)
}

/// A pod that holds a port of its node: no two of them fit one node.
pub fn pod_with_port(name: &str, port: u16) -> Result<Pod> {
    let mut pod = pod(name, None)?;
    if let Some(spec) = &mut pod.spec {
        for container in &mut spec.containers {
            container.ports = serde_json::from_value(json!([
                {"containerPort": 8080, "hostPort": port}
            ]))?;
        }
    }
    Ok(pod)
}

fn named(name: &str, spec: serde_json::Value) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": "yes"}}, "spec": spec,
    }))?)
}

fn is_ready(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|it| it.conditions.as_ref())
        .is_some_and(|it| {
            it.iter()
                .any(|it| it.type_ == "Ready" && it.status == "True")
        })
}

/// How long pods took.
pub struct Times {
    /// From before the first was created until the last was Ready.
    pub total: Duration,
    /// From its creation to Ready, of each.
    pub each: Vec<Duration>,
}

/// Creates pods at once and returns how long they took to become Ready, as seen by a watch.
pub async fn start(pods: &Api<Pod>, wanted: &[Pod]) -> Result<Times> {
    let selector = ListParams::default().labels(SELECTOR);
    let version = pods.list(&selector).await?.metadata.resource_version;
    let mut events = pods
        .watch(
            &WatchParams::default().labels(SELECTOR),
            &version.unwrap_or_default(),
        )
        .await?
        .boxed();
    let start = Instant::now();
    let mut created = BTreeMap::new();
    let mut creations = futures::stream::iter(wanted.iter().cloned())
        .map(|it| async move {
            let name = it.metadata.name.clone().unwrap_or_default();
            let at = Instant::now();
            pods.create(&PostParams::default(), &it)
                .await
                .map(|_| (name, at))
        })
        .buffer_unordered(CREATORS);
    let mut ready = BTreeMap::new();
    let all = async {
        let mut done = false;
        while !done || ready.len() < wanted.len() {
            tokio::select! {
                created_one = creations.next(), if !done => match created_one {
                    Some(it) => { let (name, at) = it?; created.insert(name, at); }
                    None => done = true,
                },
                event = events.try_next() => match event?.context("the watch ended")? {
                    WatchEvent::Added(it) | WatchEvent::Modified(it) if is_ready(&it) => {
                        let name = it.metadata.name.unwrap_or_default();
                        ready.entry(name).or_insert_with(Instant::now);
                    }
                    WatchEvent::Error(error) => bail!("watch: {error:?}"),
                    _ => {}
                },
            }
        }
        Ok(())
    };
    tokio::time::timeout(DEADLINE, all)
        .await
        .context("pods are not Ready in time")??;
    Ok(Times {
        total: start.elapsed(),
        each: ready
            .iter()
            .filter_map(|(name, at)| created.get(name).map(|from| *at - *from))
            .collect(),
    })
}

/// Deletes every pod of the benchmark and waits until they are gone.
pub async fn clear(pods: &Api<Pod>) -> Result<()> {
    let selector = ListParams::default().labels(SELECTOR);
    pods.delete_collection(&DeleteParams::default().grace_period(0), &selector)
        .await?;
    tokio::time::timeout(DEADLINE, async {
        while !pods.list(&selector).await?.items.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, kube::Error>(())
    })
    .await
    .context("pods are not gone in time")??;
    Ok(())
}

/// Start of one pod, alternately through Mesos and with `nodeName`.
pub async fn pairs(pods: &Api<Pod>, node: &str, pairs: usize) -> Result<Vec<Row>> {
    let (mut mesos, mut direct) = (Vec::new(), Vec::new());
    for number in 0..pairs {
        // Alternating, and which is first alternates too.
        for through_mesos in [number % 2 == 0, number % 2 == 1] {
            let kind = if through_mesos { "mesos" } else { "direct" };
            let name = format!("pair-{number}-{kind}");
            let one = pod(&name, (!through_mesos).then_some(node))?;
            let times = start(pods, &[one]).await?;
            clear(pods).await?;
            if through_mesos {
                &mut mesos
            } else {
                &mut direct
            }
            .extend(times.each);
        }
    }
    Ok([(50, 0.5, 100.0), (99, 0.99, 250.0)]
        .into_iter()
        .map(|(percent, share, limit)| {
            let (with, without) = (quantile(&mut mesos, share), quantile(&mut direct, share));
            let more = (with.as_secs_f64() - without.as_secs_f64()) * 1000.0;
            Row {
                what: format!(
                    "pod start on a running node, more than with nodeName, p{percent} of {pairs} pairs"
                ),
                measured: format!(
                    "{more:+.0} ms ({} / {})",
                    with.as_millis(),
                    without.as_millis()
                ),
                reach: format!("{limit} ms"),
                reached: more <= limit,
            }
        })
        .collect())
}

/// Many pods at once, twice each way, in an order that favours none.
pub async fn burst(pods: &Api<Pod>, node: &str, count: usize) -> Result<Row> {
    let mut times = Vec::new();
    for (round, through_mesos) in [(0, true), (1, false), (2, false), (3, true)] {
        let wanted: Vec<Pod> = (0..count)
            .map(|it| {
                pod(
                    &format!("burst-{round}-{it}"),
                    (!through_mesos).then_some(node),
                )
            })
            .collect::<Result<_>>()?;
        let total = start(pods, &wanted).await?.total;
        clear(pods).await?;
        times.push((through_mesos, total.as_secs_f64()));
    }
    let sum = |kind: bool| -> f64 { times.iter().filter(|it| it.0 == kind).map(|it| it.1).sum() };
    let ratio = sum(true) / sum(false);
    Ok(Row {
        what: format!("{count} pods at once, created to all Ready, against nodeName"),
        measured: format!(
            "{ratio:.2} ({:.1} / {:.1} s)",
            sum(true) / 2.0,
            sum(false) / 2.0
        ),
        reach: "1.15".to_owned(),
        reached: ratio <= 1.15,
    })
}
