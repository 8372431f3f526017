//! What the framework costs with a thousand agents and ten thousand pods: resident memory, and CPU
//! per placed pod.
//!
//! The framework is the real program in a process of its own, connected as in production: HTTPS to
//! an API server, Mesos' v1 scheduler and operator API in protobuf. Everything around it is played
//! in this process, so that its memory and time do not count: [`mesos`] is devcluster's master with
//! simulated agents in real time, [`api`] an API server that keeps objects and streams watches,
//! with what controllers and kubelets would write to them ([`objects`]: as large as real ones).
//! CPU and memory come from `/proc`. `K8SM_FRAMEWORK_BIN` names another framework than the one
//! that cargo built.

mod api;
mod mesos;
mod objects;
mod process;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use process::Framework;

/// Measures the framework's memory and CPU.
#[derive(Debug, Parser)]
struct Options {
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Simulated agents, each with a node
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// Pods, all created at once
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Seconds that nodes and pods each may take
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Fail when a goal is missed
    #[arg(long)]
    strict: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    // `cargo test` runs benches too.
    if !options.bench {
        return Ok(());
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let reached = runtime.block_on(measure(&options))?;
    ensure!(reached || !options.strict, "goals were missed");
    Ok(())
}

async fn measure(options: &Options) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let mesos = mesos::start(options.agents).await?;
    let api = api::start(folder.path()).await?;
    let mut framework = Framework::start(folder.path(), &mesos.address, options.agents)?;

    let limit = Duration::from_secs(options.timeout);
    wait(&mut framework, limit, "nodes", options.agents, || {
        mesos.running().0
    })
    .await?;
    let (empty, nodes) = (framework.usage()?, Instant::now());
    api.create_pods(options.pods);
    let placed = wait(&mut framework, limit, "pods", options.pods, || {
        api.running_pods()
    });
    placed
        .await
        .with_context(|| format!("waiting: {:?}", api.waiting()))?;
    let took = nodes.elapsed();
    wait(&mut framework, limit, "pods' tasks", options.pods, || {
        mesos.running().1
    })
    .await?;
    let full = framework.usage()?;
    framework.stop()?;

    let cpu = full.cpu.saturating_sub(empty.cpu);
    let per_pod = cpu.as_secs_f64() * 1000.0 / options.pods as f64;
    let memory = full.resident as f64 / 1e6;
    println!("\n| what | measured | reach | |\n|---|---|---|---|");
    let rows = [
        (
            format!(
                "framework, {} agents and {} pods: resident memory",
                options.agents, options.pods
            ),
            format!("{memory:.1} MB (peak {:.1})", full.peak as f64 / 1e6),
            "60 MB",
            memory <= 60.0,
        ),
        (
            "the same: CPU per placed pod".to_owned(),
            format!("{per_pod:.2} ms (all in {:.1} s)", took.as_secs_f64()),
            "0.5 ms",
            per_pod <= 0.5,
        ),
    ];
    for (what, measured, reach, reached) in &rows {
        let reached = if *reached { "reached" } else { "MISSED" };
        println!("| {what} | {measured} | {reach} | {reached} |");
    }
    println!(
        "\nBefore the pods came: {:.1} MB, {:.1} s of CPU for {} nodes.",
        empty.resident as f64 / 1e6,
        empty.cpu.as_secs_f64(),
        options.agents
    );
    Ok(rows.iter().all(|(.., reached)| *reached))
}

/// Waits until so many are there; fails when the framework ends, or when it takes too long.
async fn wait(
    framework: &mut Framework,
    limit: Duration,
    what: &str,
    wanted: usize,
    count: impl Fn() -> usize,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let have = count();
        if have >= wanted {
            return Ok(());
        }
        framework.check().with_context(|| {
            format!("the framework ended while {have} of {wanted} {what} were there")
        })?;
        ensure!(
            begun.elapsed() < limit,
            "only {have} of {wanted} {what} after {limit:?}; the framework says:\n{}\n{}",
            framework.log_end(),
            framework.health()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
