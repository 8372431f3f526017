//! `k8sm dev mesos` on its own, for tests.

use std::io::IsTerminal;

use clap::Parser;

/// A Mesos master and agents for one machine
#[derive(Debug, Parser)]
#[command(name = "mesos-dev", version)]
struct Line {
    #[command(flatten)]
    args: devcluster::cli::Args,
}

fn main() -> anyhow::Result<()> {
    let line = Line::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        // A line that cannot be written, on a full disk, would be reported on the very same standard
        // error, which panics.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    devcluster::cli::run(line.args, &[])
}
