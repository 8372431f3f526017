//! `k8sm dev mesos`: the devcluster's master and agents as processes of their own.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use devcluster::agent::{AgentConfig, Isolation, Launcher};
use devcluster::master::MasterConfig;
use devcluster::resources::Resources;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::machine;

/// Arguments of `k8sm dev mesos`.
#[derive(Debug, Args)]
pub struct MesosArgs {
    #[command(subcommand)]
    command: Part,
}

/// Its parts.
#[derive(Debug, Subcommand)]
enum Part {
    /// A Mesos master; ends at SIGTERM
    Master(Master),
    /// A Mesos agent; ends at SIGTERM and leaves executors that checkpoint running
    Agent(Box<Agent>),
    /// First process of a container; started by an agent
    #[command(hide = true)]
    Init,
    /// Executor of tasks that are a command; started by an agent
    #[command(hide = true)]
    CommandExecutor,
}

/// Arguments of the master.
#[derive(Debug, Args)]
struct Master {
    /// Where it listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5050")]
    listen: SocketAddr,
    /// Address that others are told, when it listens on all
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Where it remembers the agents
    #[arg(long, value_name = "DIR")]
    work_dir: PathBuf,
}

/// Arguments of an agent.
#[derive(Debug, Args)]
struct Agent {
    /// The master
    #[arg(long, value_name = "HOST:PORT")]
    master: String,
    /// Where it listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5051")]
    listen: SocketAddr,
    /// Its name in offers [default: its address]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Sandboxes and what it remembers
    #[arg(long, value_name = "DIR")]
    work_dir: PathBuf,
    /// What it offers [default: what the machine has]
    #[arg(long, value_name = "RESOURCES")]
    resources: Option<String>,
    /// Its attributes: rack:a;ssd:true
    #[arg(long, value_name = "ATTRIBUTES")]
    attributes: Option<String>,
    /// Its containers' cgroup, below every hierarchy
    #[arg(long, value_name = "NAME", default_value = "mesos")]
    cgroups_root: String,
    /// How resources are enforced: cgroups/cpu,cgroups/mem or posix/cpu,posix/mem
    #[arg(
        long,
        value_name = "ISOLATORS",
        default_value = "cgroups/cpu,cgroups/mem"
    )]
    isolation: String,
}

/// Runs a part until SIGTERM.
pub fn run(args: MesosArgs) -> Result<(), Error> {
    match args.command {
        // Before any thread is started.
        Part::Init => devcluster::agent::container::init::main(),
        Part::CommandExecutor => block_on(async {
            devcluster::agent::command_executor::main()
                .await
                .map_err(failed("run the command executor"))
        }),
        Part::Master(master) => {
            let mut config = MasterConfig::new(master.listen, master.work_dir);
            config.advertise = master.advertise;
            block_on(async {
                devcluster::master::run(config, until_asked())
                    .await
                    .map_err(failed("run the Mesos master"))
            })
        }
        Part::Agent(agent) => {
            let config = agent_config(&agent)?;
            block_on(async {
                devcluster::agent::run(config, until_asked())
                    .await
                    .map_err(failed("run the Mesos agent"))
            })
        }
    }
}

fn agent_config(agent: &Agent) -> Result<AgentConfig, Error> {
    let usage = |e: &dyn std::error::Error| Error::Usage(e.to_string());
    let program = std::env::current_exe().map_err(Error::io("find this program"))?;
    let program: Vec<OsString> = [program.into_os_string(), "dev".into(), "mesos".into()].into();
    let mut config = AgentConfig::new(
        agent.listen,
        agent.master.clone(),
        &agent.work_dir,
        &program,
    );
    let resources = agent
        .resources
        .clone()
        .unwrap_or_else(|| machine::resources(&agent.work_dir));
    config.resources = Resources::parse(&resources).map_err(|e| usage(&e))?;
    if let Some(attributes) = &agent.attributes {
        config.attributes =
            devcluster::resources::parse_attributes(attributes).map_err(|e| usage(&e))?;
    }
    if let Some(hostname) = &agent.hostname {
        config.hostname.clone_from(hostname);
    }
    config.cgroups_root.clone_from(&agent.cgroups_root);
    config.isolation = Isolation::parse(&agent.isolation).map_err(|e| usage(&e))?;
    config.launcher = Launcher::Linux;
    Ok(config)
}

fn failed<E: std::error::Error>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Io {
        action: action.to_owned(),
        source: std::io::Error::other(crate::error::chain(&e)),
    }
}

fn block_on(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// Cancelled at SIGTERM or SIGINT. Must be called within a runtime.
fn until_asked() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    token
}
