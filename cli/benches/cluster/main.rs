//! `make bench`: what the way through Mesos costs, against the same kubelet without it.
//!
//! Machines differ and these are noisy, so nothing is compared with a stored number: each figure is
//! a difference or a ratio of two things measured alternately in one run. The baseline is a pod whose
//! `spec.nodeName` is set: the same API server, kubelet and containerd, no scheduling.
//! Starts clusters of its own in folders of its own and removes them. Needs root. `K8SM_BIN` names
//! another `k8sm` than the one that cargo built, `K8SM_UPSTREAM_BIN` the upstream programs.
//!
//! | file | measures |
//! |---|---|
//! | [`pods`] | start of one pod, and of many at once |
//! | [`new_node`] | the first pod on an agent without a node |
//! | [`memory`] | executor and guard |
//! | [`install`] | an installation by Marathon, and its processes killed |
//!
//! The framework alone, with a thousand agents, is `framework/benches/scale`.

mod cluster;
mod install;
mod memory;
mod new_node;
mod pods;
mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;

use cluster::Cluster;
use table::Row;

/// Measures pod starts and memory in clusters of its own.
#[derive(Debug, Parser)]
struct Options {
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Pairs of pods, one through Mesos and one with nodeName
    #[arg(long, default_value_t = 50)]
    pairs: usize,
    /// Pods that are created at once, and that run while memory is looked at
    #[arg(long, default_value_t = 100)]
    burst: usize,
    /// Minutes that those run before memory is looked at
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Only these parts: up, pairs, burst, memory, new-node, install
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Fail when a goal is missed
    #[arg(long)]
    strict: bool,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == part)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    // `cargo test` runs benches too; it must not start clusters.
    if !options.bench {
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "root is needed: the benchmark starts a Mesos agent"
    );
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut rows = Vec::new();
    let result = runtime.block_on(measure(&options, &mut rows));
    // What was measured before something failed is shown all the same.
    let reached = table::print(&rows);
    result?;
    ensure!(reached || !options.strict, "goals were missed");
    Ok(())
}

async fn measure(options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    if ["up", "pairs", "burst", "memory"]
        .iter()
        .any(|part| options.wants(part))
    {
        let cluster = Cluster::new()?;
        let measured = one_agent(&cluster, options, rows).await;
        cluster.down()?;
        measured?;
    }
    if options.wants("new-node") {
        let cluster = Cluster::new()?;
        let row = new_node::measure(&cluster).await;
        cluster.down()?;
        rows.push(row?);
    }
    if options.wants("install") {
        rows.extend(install::measure().await?);
    }
    Ok(())
}

async fn one_agent(cluster: &Cluster, options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    let took = cluster.up(&["--marathon"])?;
    rows.push(Row {
        what: "make up, everything built, to hello answering".to_owned(),
        measured: format!("{:.1} s", took.as_secs_f64()),
        reach: "30 s".to_owned(),
        reached: took <= Duration::from_secs(30),
    });
    let (pods, node) = cluster.pods_and_node().await?;
    if options.wants("pairs") {
        rows.extend(pods::pairs(&pods, &node, options.pairs).await?);
    }
    if options.wants("burst") {
        rows.push(pods::burst(&pods, &node, options.burst).await?);
    }
    if options.wants("memory") {
        let wanted = (0..options.burst)
            .map(|it| pods::pod(&format!("memory-{it}"), None))
            .collect::<Result<Vec<_>>>()?;
        pods::start(&pods, &wanted).await?;
        tokio::time::sleep(Duration::from_secs_f64(options.minutes * 60.0)).await;
        let condition = format!(
            "with {} pods after {} minutes",
            options.burst, options.minutes
        );
        rows.extend(memory::rows(cluster.dir(), &condition)?);
        pods::clear(&pods).await?;
    }
    Ok(())
}
