//! `k8sm-proxy`: the front door of the API servers.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use proxy::config::Args;
use proxy::run::run;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Exit code of arguments that cannot be used, clap's own.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written, on a full disk, would be reported on the very same standard
        // error, which panics.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = match args.check() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "these arguments cannot be used");
            return ExitCode::from(USAGE);
        }
    };
    // Fails only when a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Two threads: it moves bytes, and the machine belongs to others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime could not be started");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let on_signal = stop.clone();
        match (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::spawn(async move {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    on_signal.cancel();
                });
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "signals end this program at once");
            }
        }
        run(config, stop).await
    });
    // Nothing that is still under way must hold the end up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ending");
            ExitCode::FAILURE
        }
    }
}
