//! A master and agents as children of one process.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::agent::cgroups;
use crate::agent::container::{self, ProcessRef, kill};
use crate::agent::disk;
use crate::agent::duration;
use crate::agent::paths::Layout;
use crate::netns::{self, Netns, Subnet};

/// How long a part may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a part may take to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of a whole cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterArgs {
    /// How many agents. One shares this machine's network; more have a network namespace, a
    /// mount namespace and an address each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub agents: u16,
    /// Directory of everything
    #[arg(long, value_name = "DIR", default_value = "mesos-dev")]
    pub work_dir: PathBuf,
    /// Port of the master; agents have the ports above it, or the same one, each in its namespace
    #[arg(long, value_name = "PORT", default_value_t = 5050)]
    pub port: u16,
    /// What each agent offers [default: what the machine has]
    #[arg(long, value_name = "RESOURCES")]
    pub resources: Option<String>,
    /// How long agents keep sandboxes after the end of their executors
    #[arg(long, value_name = "DURATION", default_value = "1weeks", value_parser = duration::parse)]
    pub gc_delay: Duration,
    /// Directory of the secrets that tasks may refer to, one file each; the same for all agents
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// Subnet of the agents' namespaces [default: a free one]
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<Subnet>,
    /// End it and remove everything but the working directory, also after kill -9
    #[arg(long)]
    pub down: bool,
}

impl ClusterArgs {
    /// What every agent is told alike.
    fn of_agents(&self) -> Vec<String> {
        let mut arguments = vec![format!("--gc-delay={}", duration::format(self.gc_delay))];
        let resources = self.resources.iter();
        arguments.extend(resources.map(|r| format!("--resources={r}")));
        let secrets = self.secrets_dir.iter();
        arguments.extend(secrets.map(|dir| format!("--secrets-dir={}", dir.display())));
        arguments
    }
}

/// What is remembered about a cluster that runs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Running {
    /// The process that started the others and ends them in order.
    parent: Option<ProcessRef>,
    processes: Vec<(String, ProcessRef)>,
}

struct Plan<'a> {
    args: &'a ClusterArgs,
    work_dir: PathBuf,
    /// Names of this cluster's namespaces and links.
    prefix: String,
    cgroups_root: String,
}

impl<'a> Plan<'a> {
    fn new(args: &'a ClusterArgs) -> anyhow::Result<Self> {
        let work_dir = std::path::absolute(&args.work_dir).context("--work-dir")?;
        let hash = format!(
            "{:x}",
            Sha256::digest(work_dir.as_os_str().as_encoded_bytes())
        );
        Ok(Self {
            args,
            prefix: format!("kd{}", &hash[..4]),
            cgroups_root: format!("mesos-{}", &hash[..8]),
            work_dir,
        })
    }

    fn record(&self) -> PathBuf {
        self.work_dir.join("running.json")
    }

    fn seed(&self) -> u32 {
        u32::from_str_radix(&self.prefix[2..], 16).unwrap_or(0)
    }
}

/// Starts everything and waits for SIGTERM, or ends everything.
pub(super) fn run(args: &ClusterArgs, line: &[OsString]) -> anyhow::Result<()> {
    let plan = Plan::new(args)?;
    if args.down {
        return super::block_on(down(&plan))?;
    }
    let running = disk::read_json::<Running>(&plan.record())?.unwrap_or_default();
    if let Some((name, process)) = running.processes.iter().find(|(_, p)| p.is_alive()) {
        bail!(
            "{name} of this cluster runs already (pid {}); end it with --down",
            process.pid
        );
    }
    let subnet = match (args.agents, args.subnet) {
        (1, None) => None,
        (_, Some(subnet)) => Some(subnet),
        (_, None) => Some(netns::free_subnet(plan.seed())?),
    };
    if let Some(subnet) = subnet {
        netns::make_bridge(&plan.prefix, subnet)?;
    }
    super::block_on(up(&plan, subnet, line))?
}

async fn up(plan: &Plan<'_>, subnet: Option<Subnet>, line: &[OsString]) -> anyhow::Result<()> {
    let stop = super::stop_at_signal()?;
    let mut parts = Parts {
        record: plan.record(),
        running: Running {
            parent: Some(ProcessRef::of(std::process::id()).context("cannot look at myself")?),
            processes: Vec::new(),
        },
        children: Vec::new(),
    };
    let work = start(plan, subnet, line, &mut parts);
    let started = tokio::select! {
        () = stop.cancelled() => Ok(()),
        started = work => started,
    };
    let result = match started {
        Ok(()) if stop.is_cancelled() => Ok(()),
        Ok(()) => tokio::select! {
            () = stop.cancelled() => Ok(()),
            (name, status) = parts.first_to_end() => {
                Err(anyhow::anyhow!("{name} ended by itself: {status}"))
            }
        },
        Err(error) => Err(error),
    };
    parts.stop().await;
    result
}

async fn start(
    plan: &Plan<'_>,
    subnet: Option<Subnet>,
    line: &[OsString],
    parts: &mut Parts,
) -> anyhow::Result<()> {
    let port = plan.args.port;
    let master_ip = match subnet {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(subnet) => IpAddr::V4(subnet.address(1).context("the subnet is too small")?),
    };
    let master = SocketAddr::new(master_ip, port);
    let dir = |name: &str| plan.work_dir.join(name).display().to_string();
    let arguments = [
        "master".to_owned(),
        format!("--listen={master}"),
        format!("--work-dir={}", dir("master")),
    ];
    parts.start("master", line, &arguments, master).await?;
    tracing::info!("the Mesos master is at http://{master}");
    for number in 0..plan.args.agents {
        let name = format!("agent-{number}");
        let mut arguments = vec!["agent".to_owned(), format!("--master={master}")];
        let address = match subnet {
            None => SocketAddr::new(master_ip, port + 1),
            Some(subnet) => {
                let netns = Netns::new(&plan.prefix, number, subnet)?;
                arguments.extend([
                    format!("--netns-prefix={}", plan.prefix),
                    format!("--netns-number={number}"),
                    format!("--netns-subnet={subnet}"),
                ]);
                SocketAddr::new(netns.address().into(), port + 1)
            }
        };
        arguments.extend([
            format!("--listen={address}"),
            format!("--work-dir={}", dir(&name)),
            format!("--cgroups-root={}", plan.cgroups_root_of(number)),
        ]);
        arguments.extend(plan.args.of_agents());
        parts.start(&name, line, &arguments, address).await?;
        tracing::info!("agent {number} is at http://{address}");
    }
    Ok(())
}

impl Plan<'_> {
    /// Agents must not take each other's containers for orphans of their own.
    fn cgroups_root_of(&self, number: u16) -> String {
        format!("{}/{number}", self.cgroups_root)
    }
}

/// The children.
struct Parts {
    record: PathBuf,
    running: Running,
    children: Vec<(String, Child)>,
}

impl Parts {
    async fn start(
        &mut self,
        name: &str,
        line: &[OsString],
        arguments: &[String],
        address: SocketAddr,
    ) -> anyhow::Result<()> {
        let (program, words) = line.split_first().context("no program")?;
        let mut child = Command::new(program)
            .args(words)
            .args(arguments)
            .stdin(Stdio::null())
            // A terminal's Ctrl-C is for this process, which ends its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", Path::new(program).display()))?;
        if let Some(pid) = child.id() {
            let process = ProcessRef::of(pid).context("cannot look at a child")?;
            self.running.processes.push((name.to_owned(), process));
            disk::write_json(&self.record, &self.running)?;
        }
        let healthy = tokio::select! {
            healthy = answers(address) => healthy,
            ended = child.wait() => {
                bail!("{name} ended at its start: {}", ended.context("cannot wait")?)
            }
        };
        self.children.push((name.to_owned(), child));
        if !healthy {
            bail!("{name} does not answer at {address} within {START_PATIENCE:?}");
        }
        Ok(())
    }

    async fn first_to_end(&mut self) -> (String, ExitStatus) {
        loop {
            for (name, child) in &mut self.children {
                if let Ok(Some(status)) = child.try_wait() {
                    return (name.clone(), status);
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Agents first, so that none of them sees its master go.
    async fn stop(&mut self) {
        while let Some((name, mut child)) = self.children.pop() {
            let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
                continue;
            };
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            if timeout(STOP_PATIENCE, child.wait()).await.is_err() {
                tracing::warn!("{name} does not end; killing it");
                let _ = child.kill().await;
            }
        }
        let _ = std::fs::remove_file(&self.record);
    }
}

/// Whether `/health` answers in time.
async fn answers(address: SocketAddr) -> bool {
    let Ok(client) = crate::client::builder().build() else {
        return false;
    };
    let deadline = Instant::now() + START_PATIENCE;
    let url = format!("http://{address}/health");
    while Instant::now() < deadline {
        let answer = timeout(Duration::from_secs(2), client.get(&url).send()).await;
        if matches!(answer, Ok(Ok(response)) if response.status().is_success()) {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

async fn down(plan: &Plan<'_>) -> anyhow::Result<()> {
    let running = disk::read_json::<Running>(&plan.record())?.unwrap_or_default();
    if let Some(parent) = running.parent.filter(|p| p.is_alive())
        && let Ok(pid) = i32::try_from(parent.pid)
    {
        tracing::info!("ending the cluster (pid {pid})");
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let patience = STOP_PATIENCE * u32::try_from(running.processes.len() + 1).unwrap_or(2);
        if timeout(patience, parent.ended()).await.is_err() {
            kill(parent.pid);
        }
    }
    // After a kill -9 of their parent they may live; in the order of their stop.
    for (name, process) in running.processes.iter().rev() {
        if process.is_alive() {
            tracing::info!("ending {name} (pid {})", process.pid);
            kill(process.pid);
            timeout(STOP_PATIENCE, process.ended())
                .await
                .with_context(|| format!("{name} does not end"))??;
        }
    }
    for number in 0..plan
        .args
        .agents
        .max(u16::try_from(running.processes.len()).unwrap_or(0))
    {
        let work_dir = plan.work_dir.join(format!("agent-{number}"));
        container::sweep(&Layout::below(&work_dir).runtime_dir, STOP_PATIENCE).await?;
    }
    if nix::unistd::geteuid().is_root() {
        cgroups::sweep(&plan.cgroups_root, STOP_PATIENCE).await?;
    }
    if nix::unistd::geteuid().is_root() {
        netns::sweep(&plan.prefix)?;
    }
    match std::fs::remove_file(plan.record()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove running.json")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::AgentArgs;

    #[derive(Parser)]
    struct Whole {
        #[command(flatten)]
        args: ClusterArgs,
    }

    #[derive(Parser)]
    struct Agent {
        #[command(flatten)]
        args: AgentArgs,
    }

    #[test]
    fn what_agents_are_told_alike_is_what_they_understand() {
        let words = "x --agents=3 --gc-delay=90secs --secrets-dir=/s --resources=cpus:1";
        let whole = Whole::parse_from(words.split(' ')).args;
        let mut words = vec!["x".to_owned(), "--master=m:1".to_owned()];
        words.push("--work-dir=/w".to_owned());
        words.extend(whole.of_agents());
        let agent = Agent::parse_from(words).args;
        assert_eq!(agent.gc_delay, Duration::from_secs(90));
        assert_eq!(agent.secrets_dir, Some(PathBuf::from("/s")));
        assert_eq!(agent.resources, "cpus:1");
    }
}
