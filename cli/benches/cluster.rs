//! `make bench`: what the way through Mesos costs, against the same kubelet without it.
//!
//! Machines differ and these are noisy, so nothing is compared with a stored number: each figure is
//! a difference or a ratio of two things measured alternately in one run. The baseline is a pod whose
//! `spec.nodeName` is set: the same API server, kubelet and containerd, no scheduling.
//! Starts a cluster of its own in a folder of its own and removes it. Needs root.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

/// Pairs of the first comparison.
const PAIRS: usize = 50;
/// Pods of the second comparison.
const BURST: usize = 100;
/// Bound of every single wait.
const DEADLINE: Duration = Duration::from_secs(180);
const IMAGE: &str = "k8s.mesosphere.io/hello:v0.1.0";

/// A line of the table.
struct Row {
    what: &'static str,
    measured: String,
    reach: &'static str,
    reached: bool,
}

fn main() -> Result<()> {
    // `cargo test` runs benches too; it must not start clusters.
    if !std::env::args().any(|it| it == "--bench") {
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "root is needed: the benchmark starts a Mesos agent"
    );
    let _ = rustls::crypto::ring::default_provider().install_default();
    let state = tempfile::Builder::new()
        .prefix("k8sm-bench-")
        .tempdir_in("/var/tmp")?;
    let dir = state.path().join("state");
    let cluster = Cluster { dir: &dir };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(cluster.measure());
    let down = cluster.k8sm(&["down", "--quiet"]);
    let rows = rows?;
    down?;
    println!("\n{:<66} {:>24}  {:<18}", "WHAT", "MEASURED", "REACH");
    for row in &rows {
        println!(
            "{:<66} {:>24}  {:<18} {}",
            row.what,
            row.measured,
            row.reach,
            if row.reached { "" } else { "<- not reached" }
        );
    }
    Ok(())
}

struct Cluster<'a> {
    dir: &'a Path,
}

impl Cluster<'_> {
    fn k8sm(&self, args: &[&str]) -> Result<()> {
        let status = Command::new(env!("CARGO_BIN_EXE_k8sm"))
            .arg("--state-dir")
            .arg(self.dir)
            .args(args)
            .stdin(Stdio::null())
            .status()?;
        ensure!(status.success(), "k8sm {args:?}: {status}");
        Ok(())
    }

    async fn measure(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let start = Instant::now();
        self.k8sm(&["up", "--api-port=0", "--mesos-port=0", "--quiet"])?;
        let up = start.elapsed();
        rows.push(Row {
            what: "k8sm up, everything built, to hello answering",
            measured: format!("{:.1} s", up.as_secs_f64()),
            reach: "30 s",
            reached: up.as_secs() < 30,
        });
        let kubeconfig = Kubeconfig::read_from(self.dir.join("kubeconfig"))?;
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config)?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
        let nodes: Api<Node> = Api::all(client);
        let node = nodes
            .list(&ListParams::default())
            .await?
            .items
            .first()
            .and_then(|it| it.metadata.name.clone())
            .context("the cluster has a node")?;
        rows.extend(pairs(&pods, &node).await?);
        rows.push(burst(&pods, &node).await?);
        rows.extend(memory()?);
        Ok(rows)
    }
}

fn pod(name: &str, node: Option<&str>) -> Result<Pod> {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": IMAGE, "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}}}],
    });
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
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

/// Creates pods at once and returns how long each took from its creation to Ready, as seen by a
/// watch; then deletes them and waits until they are gone.
async fn run(pods: &Api<Pod>, wanted: &[Pod]) -> Result<(Duration, Vec<Duration>)> {
    let selector = ListParams::default().labels("bench=yes");
    let version = pods
        .list(&selector)
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    let mut events = pods
        .watch(&WatchParams::default().labels("bench=yes"), &version)
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
        .buffer_unordered(16);
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
                        ready.entry(it.metadata.name.unwrap_or_default()).or_insert_with(Instant::now);
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
    let total = start.elapsed();
    let each = ready
        .iter()
        .filter_map(|(name, at)| created.get(name).map(|from| *at - *from))
        .collect();
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
    Ok((total, each))
}

/// The value below which this share of the values lies.
fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort();
    let last = values.len().saturating_sub(1);
    // Both conversions are exact for some tens of values.
    values
        .get((last as f64 * share).ceil() as usize)
        .copied()
        .unwrap_or_default()
}

async fn pairs(pods: &Api<Pod>, node: &str) -> Result<Vec<Row>> {
    let (mut mesos, mut direct) = (Vec::new(), Vec::new());
    for number in 0..PAIRS {
        // Alternating, and which is first alternates too.
        for through_mesos in [number % 2 == 0, number % 2 == 1] {
            let name = format!(
                "pair-{number}-{}",
                if through_mesos { "mesos" } else { "direct" }
            );
            let one = pod(&name, (!through_mesos).then_some(node))?;
            let (_, times) = run(pods, &[one]).await?;
            if through_mesos {
                &mut mesos
            } else {
                &mut direct
            }
            .extend(times);
        }
    }
    let mut rows = Vec::new();
    for (what, share, reach, limit) in [
        (
            "pod start through Mesos, more than with nodeName, p50",
            0.5,
            "100 ms",
            100.0,
        ),
        (
            "pod start through Mesos, more than with nodeName, p99",
            0.99,
            "250 ms",
            250.0,
        ),
    ] {
        let (with, without) = (quantile(&mut mesos, share), quantile(&mut direct, share));
        let more = (with.as_secs_f64() - without.as_secs_f64()) * 1000.0;
        rows.push(Row {
            what,
            measured: format!(
                "{more:+.0} ms ({} / {})",
                with.as_millis(),
                without.as_millis()
            ),
            reach,
            reached: more <= limit,
        });
    }
    Ok(rows)
}

async fn burst(pods: &Api<Pod>, node: &str) -> Result<Row> {
    let mut times = Vec::new();
    for (round, through_mesos) in [(0, true), (1, false), (2, false), (3, true)] {
        let wanted: Vec<Pod> = (0..BURST)
            .map(|it| {
                pod(
                    &format!("burst-{round}-{it}"),
                    (!through_mesos).then_some(node),
                )
            })
            .collect::<Result<_>>()?;
        let (total, _) = run(pods, &wanted).await?;
        times.push((through_mesos, total.as_secs_f64()));
    }
    let sum = |kind: bool| -> f64 { times.iter().filter(|it| it.0 == kind).map(|it| it.1).sum() };
    let ratio = sum(true) / sum(false);
    Ok(Row {
        what: "100 pods at once, created to all Ready, against nodeName",
        measured: format!(
            "{ratio:.2} ({:.1} / {:.1} s)",
            sum(true) / 2.0,
            sum(false) / 2.0
        ),
        reach: "1.15",
        reached: ratio <= 1.15,
    })
}

/// Resident memory of the framework, the executor and its guard, from `/proc`.
fn memory() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, program, guard, reach, limit) in [
        (
            "executor, resident",
            "k8sm-executor",
            false,
            "15 MB",
            15_000,
        ),
        ("guard, resident", "k8sm-executor", true, "3 MB", 3_000),
        (
            "framework, resident",
            "k8sm-framework",
            false,
            "60 MB",
            60_000,
        ),
    ] {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let first = line.split(' ').next().unwrap_or_default();
            if !first.ends_with(program) || line.contains(" guard") != guard {
                continue;
            }
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let kib: u64 = status
                .lines()
                .find_map(|it| it.strip_prefix("VmRSS:"))
                .and_then(|it| it.split_whitespace().next()?.parse().ok())
                .unwrap_or_default();
            rows.push(Row {
                what,
                measured: format!("{:.1} MB", kib as f64 / 1000.0),
                reach,
                reached: kib <= limit,
            });
        }
    }
    Ok(rows)
}
