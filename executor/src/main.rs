//! `k8sm-executor`: started by a Mesos agent, configured by its environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use executor::agent_loop::{self, Options, startup};
use executor::layout::Paths;
use executor::{guard, slim, supervise};

/// Turns the tasks of one Mesos agent into pods of a Kubernetes node.
///
/// A Mesos agent starts it; by hand it is of little use. It subscribes to the agent, waits for
/// the node task, and brings up containerd, kubelet and kube-proxy from the payload that the
/// task names. SIGTERM ends the node in order; SIGHUP replaces the executor by the program that
/// is now at its path, under running pods.
#[derive(Parser)]
#[command(name = "k8sm-executor", version)]
struct Cli {
    /// Payloads, images, kubelet's volumes, certificates, logs; survives reboots
    #[arg(
        long,
        value_name = "DIR",
        env = "K8SM_DATA_DIR",
        default_value = "/var/lib/k8sm"
    )]
    data_dir: PathBuf,
    /// Sockets and containerd's state
    #[arg(
        long,
        value_name = "DIR",
        env = "K8SM_RUN_DIR",
        default_value = "/run/k8sm"
    )]
    run_dir: PathBuf,
    /// An open file with the state of the executor that this one replaces
    #[arg(long, hide = true, value_name = "FD")]
    resume_fd: Option<i32>,
}

fn main() -> ExitCode {
    slim::share_one_heap();
    // These are started often or live long: nothing more than needed is touched.
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [first, rest @ ..] = args.as_slice() {
        let outcome = match first.to_str() {
            Some(guard::SUBCOMMAND) => Some(guard::run(rest).map_err(|e| e.to_string())),
            Some(guard::DETACH) => Some(guard::detach(rest).map_err(|e| e.to_string())),
            Some(agent_loop::CHECK_HANDOVER) => Some(agent_loop::check_handover()),
            Some(supervise::LAUNCH) => Some(Err(supervise::launch(rest).to_string())),
            _ => None,
        };
        match outcome {
            Some(Ok(())) => return ExitCode::SUCCESS,
            Some(Err(error)) => return fail(&error),
            None => {}
        }
    }
    drop(args);
    let cli = Cli::parse();
    if let Err(error) = executor::image::leave() {
        return fail(&error.to_string());
    }
    match executor(cli) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(error: &str) -> ExitCode {
    use std::io::Write;
    // The reader may be gone; that is no reason for a panic.
    let _ = writeln!(std::io::stderr(), "k8sm-executor: {error}");
    ExitCode::FAILURE
}

fn executor(cli: Cli) -> anyhow::Result<bool> {
    use anyhow::Context;
    use std::io::IsTerminal;
    startup::reset_signals().context("resetting the signal mask")?;
    let resume = cli
        .resume_fd
        .map(agent_loop::resume_bytes)
        .transpose()
        .context("reading the predecessor's state")?;
    if resume.is_none() {
        startup::own_mount_namespace().context(
            "making a mount namespace (the executor needs root with CAP_SYS_ADMIN: the framework's user must be root)",
        )?;
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written, on a full disk, would be reported on the very same standard
        // error, which panics.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // The only provider that is compiled in; a second call would be an error of ours alone.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .context("starting the runtime")?;
    let failed = runtime.block_on(agent_loop::run(Options {
        paths: Paths::new(cli.data_dir, cli.run_dir),
        resume,
    }))?;
    // Whatever still blocks must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(failed)
}
