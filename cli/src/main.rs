//! The `k8sm` program.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = cli::args::Args::parse();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(args.command.default_log_filter()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written, on a full disk, would be reported on the very same standard
        // error, which panics.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // For the Kubernetes client. Fails only when a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::commands::run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("k8sm: {}", cli::error::chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}
