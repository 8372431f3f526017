//! `k8sm dev mesos`: a master, an agent, or both on one machine. The `k8sm` program mounts
//! [`Args`] and calls [`run`]; the small program `mesos-dev` does nothing else.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use mesos::master::MasterUrl;
use oci::credentials::Credentials;
use tokio_util::sync::CancellationToken;

use crate::agent::images::ImagesConfig;
use crate::agent::{self, AgentConfig, Isolation, Launcher};
use crate::jwt;
use crate::master::auth::{Acls, Authentication};
use crate::master::{self, MasterConfig, Settings};
use crate::netns::Netns;
use crate::resources::{Resources, parse_attributes};

mod cluster;
mod detect;

/// Arguments of `k8sm dev mesos`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// One part on its own.
    #[command(subcommand)]
    pub part: Option<Part>,
    /// All of them.
    #[command(flatten)]
    pub cluster: cluster::ClusterArgs,
}

/// The parts.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// Runs a Mesos master
    Master(MasterArgs),
    /// Runs a Mesos agent
    Agent(Box<AgentArgs>),
    /// The first process of a container
    #[command(hide = true)]
    Init,
    /// The executor of a command task
    #[command(hide = true)]
    CommandExecutor {
        /// Note of the image that the task runs from
        #[arg(long, value_name = "FILE")]
        image: Option<PathBuf>,
    },
    /// The process that enters an image and becomes the command of a container
    #[command(hide = true)]
    Enter,
}

/// Arguments of a master.
#[derive(Debug, Clone, clap::Args)]
pub struct MasterArgs {
    /// Where the master listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5050")]
    pub listen: SocketAddr,
    /// Where the master keeps what it must not forget
    #[arg(long, value_name = "DIR")]
    pub work_dir: PathBuf,
    /// Address that others are told [default: the one it listens on]
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// File with principals and secrets: JSON, or lines of both
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// File with what signs DC/OS' tokens, a public RSA key or a secret: whoever sends `Authorization:
    /// token=` is the principal that the token names, as with DC/OS' authenticator
    #[arg(long, value_name = "FILE")]
    pub dcos_token_key: Option<PathBuf>,
    /// Let only frameworks in that know a principal's secret
    #[arg(long)]
    pub authenticate_http_frameworks: bool,
    /// Show documents only to those who know a principal's secret
    #[arg(long)]
    pub authenticate_http_readonly: bool,
    /// Take operators' calls only from those who know a principal's secret
    #[arg(long)]
    pub authenticate_http_readwrite: bool,
    /// Who may register in which roles and run tasks as which users, as Mesos writes it
    #[arg(long, value_name = "JSON")]
    pub acls: Option<String>,
    /// Name of the cluster, for people
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Where masters register, and the first one leads: zk://[user:password@]host[,host]/path, or
    /// file:///path of a file that holds that. Masters of one cluster share the work directory,
    /// which stands for Mesos' replicated log
    #[arg(long, value_name = "URL", env = "MESOS_ZK", hide_env_values = true)]
    pub zk: Option<String>,
}

/// Values of `--launcher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LauncherArg {
    /// Processes are kept track of by cgroups; needs root
    Linux,
    /// Processes are kept track of by session
    Posix,
}

/// Arguments of an agent.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// The master: host:port, a list of these, zk://[user:password@]host[,host]/path, or
    /// file:///path of a file that holds one of them
    #[arg(long, value_name = "URL", env = "MESOS_MASTER", hide_env_values = true)]
    pub master: String,
    /// Where the agent listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5051")]
    pub listen: SocketAddr,
    /// Address that others are told, when it listens on all
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// Directory of sandboxes, and of what the agent must not forget
    #[arg(long, value_name = "DIR")]
    pub work_dir: PathBuf,
    /// Its name in offers [default: its address]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// What it offers; what is left out is found out: cpus, mem and disk of the machine, and
    /// ports:[31000-32000]
    #[arg(long, value_name = "RESOURCES", default_value = "")]
    pub resources: String,
    /// Attributes, `name:value;name:value`
    #[arg(long, value_name = "ATTRIBUTES", default_value = "")]
    pub attributes: String,
    /// Name of the agent's own cgroup in each hierarchy
    #[arg(long, value_name = "NAME", default_value = "mesos")]
    pub cgroups_root: String,
    /// How processes are kept track of [default: linux for root, else posix]
    #[arg(long, value_enum)]
    pub launcher: Option<LauncherArg>,
    /// How resources are enforced: posix/cpu,posix/mem or cgroups/cpu,cgroups/mem, and
    /// filesystem/linux,docker/runtime,volume/host_path for images [default: cgroups for root, else
    /// posix; those for images with --image-providers]
    #[arg(long, value_name = "ISOLATORS")]
    pub isolation: Option<String>,
    /// Give containers no more CPU than they request, even without a limit
    #[arg(long)]
    pub cgroups_enable_cfs: bool,
    /// How long an executor may take to register after its launch
    #[arg(long, value_name = "DURATION", default_value = "1mins", value_parser = agent::duration::parse)]
    pub executor_registration_timeout: Duration,
    /// How long executors may take to come back after a restart of the agent
    #[arg(long, value_name = "DURATION", default_value = "2secs", value_parser = agent::duration::parse)]
    pub executor_reregistration_timeout: Duration,
    /// How long an executor may take to end after SHUTDOWN
    #[arg(long, value_name = "DURATION", default_value = "5secs", value_parser = agent::duration::parse)]
    pub executor_shutdown_grace_period: Duration,
    /// How long executors wait for the agent to come back
    #[arg(long, value_name = "DURATION", default_value = "15mins", value_parser = agent::duration::parse)]
    pub recovery_timeout: Duration,
    /// How long sandboxes are kept after the end of their executors
    #[arg(long, value_name = "DURATION", default_value = "1weeks", value_parser = agent::duration::parse)]
    pub gc_delay: Duration,
    /// How much of the disk shall be free, 0 to 1: the less there is, the earlier sandboxes of ended
    /// executors are removed
    #[arg(long, value_name = "PART", default_value_t = 0.1, value_parser = part)]
    pub gc_disk_headroom: f64,
    /// Directory of the secrets that tasks may refer to, one file each
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// Take executors' calls only with the token that the agent has given them
    #[arg(long, requires = "executor_secret_key")]
    pub authenticate_http_executors: bool,
    /// File with the secret by which executors' tokens are signed, 32 bytes or more
    #[arg(long, value_name = "FILE")]
    pub executor_secret_key: Option<PathBuf>,
    /// Where tasks from images get them
    #[command(flatten)]
    pub images: ImageArgs,
    /// Its own network and mount namespace
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// Tasks from container images, with Mesos' flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ImageArgs {
    /// Kinds of images that tasks may have: docker (OCI's are read too) [default: docker when
    /// --docker-registry is given, else none]
    #[arg(long, value_name = "KINDS")]
    pub image_providers: Option<String>,
    /// Where images come from: a directory with an archive NAME.tar for each image (`k8sm images
    /// save` writes them), or a registry, http:// or https://, for names without one
    #[arg(long, visible_alias = "image-store", value_name = "DIR|URL")]
    pub docker_registry: Option<String>,
    /// Where images are kept, unpacked [default: below the work directory]
    #[arg(long, value_name = "DIR")]
    pub docker_store_dir: Option<PathBuf>,
    /// How many bytes of images are kept beside those in use
    #[arg(long, value_name = "BYTES", default_value_t = 20 << 30)]
    pub docker_store_bytes: u64,
    /// Docker's config.json with the agent's users and passwords on registries
    #[arg(long, value_name = "FILE")]
    pub docker_config: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that sign registries' certificates [default: those of
    /// the system]
    #[arg(long, value_name = "FILE")]
    pub docker_ca: Option<PathBuf>,
    /// Which tasks run: mesos, or mesos,docker (tasks for Docker run from their image without a
    /// Docker daemon)
    #[arg(long, value_name = "NAMES", default_value = "mesos")]
    pub containerizers: String,
}

impl ImageArgs {
    /// How images are run; none: not at all.
    fn config(&self, work_dir: &std::path::Path) -> anyhow::Result<Option<ImagesConfig>> {
        let mut docker_containerizer = false;
        for name in self.containerizers.split(',').map(str::trim) {
            match name {
                "mesos" => {}
                "docker" => docker_containerizer = true,
                other => {
                    anyhow::bail!("--containerizers: there is no `{other}`; mesos and docker are")
                }
            }
        }
        let providers = match (&self.image_providers, &self.docker_registry) {
            (Some(providers), _) => providers.as_str(),
            (None, Some(_)) => "docker",
            (None, None) => "",
        };
        for kind in providers
            .split(',')
            .map(str::trim)
            .filter(|k| !k.is_empty())
        {
            anyhow::ensure!(
                kind == "docker",
                "--image-providers: images of the kind `{kind}` are not implemented; docker's are"
            );
        }
        if providers.trim().is_empty() {
            anyhow::ensure!(
                !docker_containerizer,
                "--containerizers={}: Docker's tasks need images; give --image-providers=docker",
                self.containerizers
            );
            return Ok(None);
        }
        let origin = self.docker_registry.as_deref();
        // Mesos' default.
        let origin = origin.unwrap_or("https://registry-1.docker.io");
        let credentials = match &self.docker_config {
            Some(path) => Credentials::load(path).context("--docker-config")?,
            None => Credentials::default(),
        };
        let authority = match &self.docker_ca {
            Some(path) => Some(
                std::fs::read(path).with_context(|| format!("--docker-ca={}", path.display()))?,
            ),
            None => None,
        };
        let store_dir = match &self.docker_store_dir {
            Some(dir) => std::path::absolute(dir).context("--docker-store-dir")?,
            None => work_dir.join("store/docker"),
        };
        Ok(Some(ImagesConfig {
            origin: origin.parse().context("--docker-registry")?,
            store_dir,
            store_bytes: self.docker_store_bytes,
            credentials,
            authority,
            docker_containerizer,
        }))
    }
}

/// A network and mount namespace of the agent's own. All three or none.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NetnsArgs {
    /// Prefix of the names of namespaces, links and rules, at most 8 characters; agents with
    /// the same prefix share a bridge
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "netns_number",
        requires = "netns_subnet"
    )]
    pub netns_prefix: Option<String>,
    /// Number of the agent among those with its prefix, from 0
    #[arg(long, value_name = "N", requires = "netns_prefix")]
    pub netns_number: Option<u16>,
    /// Subnet of the bridge; the machine has its first address, agent N the one N + 2
    #[arg(long, value_name = "CIDR", requires = "netns_prefix")]
    pub netns_subnet: Option<crate::netns::Subnet>,
}

impl NetnsArgs {
    fn netns(&self) -> anyhow::Result<Option<Netns>> {
        let (Some(prefix), Some(number), Some(subnet)) =
            (&self.netns_prefix, self.netns_number, self.netns_subnet)
        else {
            return Ok(None);
        };
        Ok(Some(Netns::new(prefix, number, subnet)?))
    }
}

/// Runs what the arguments say. `words` are those by which the present program comes to these
/// arguments (`dev`, `mesos`); it starts itself again with them. Must be called before any
/// thread is started.
pub fn run(args: Args, words: &[&str]) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this very program")?;
    let mut line: Vec<OsString> = vec![program.into()];
    line.extend(words.iter().map(OsString::from));
    match args.part {
        Some(Part::Init) => agent::container::init::main(),
        Some(Part::Enter) => agent::images::enter::main(),
        Some(Part::CommandExecutor { image }) => {
            let work = agent::command_executor::main(image.as_deref());
            block_on(work)?.map_err(anyhow::Error::from)
        }
        Some(Part::Master(args)) => block_on(run_master(args))?,
        Some(Part::Agent(args)) => {
            let config = agent_config(&args, &line)?;
            if let Some(netns) = args.netns.netns()? {
                netns.make()?;
                netns.enter(&args.work_dir)?;
            }
            block_on(async {
                agent::run(config, stop_at_signal()?).await?;
                Ok(())
            })?
        }
        None => cluster::run(&args.cluster, &line),
    }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let result = runtime.block_on(work);
    // Nothing that is still blocked matters any more.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(result)
}

/// A part of a whole, 0 to 1.
fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("a number from 0 to 1 is wanted".to_owned()),
    }
}

/// Whom the master listens to, and what they may.
fn access(args: &MasterArgs) -> anyhow::Result<(Authentication, Acls)> {
    let mut authentication = match &args.credentials {
        None => Authentication::default(),
        Some(path) => Authentication::load(path)?,
    };
    let key = args.dcos_token_key.as_deref();
    authentication.tokens = key
        .map(jwt::Key::load)
        .transpose()
        .context("--dcos-token-key")?;
    authentication.frameworks = args.authenticate_http_frameworks;
    authentication.readonly = args.authenticate_http_readonly;
    authentication.readwrite = args.authenticate_http_readwrite;
    let guarded = authentication.frameworks || authentication.readonly || authentication.readwrite;
    anyhow::ensure!(
        !guarded || args.credentials.is_some() || key.is_some(),
        "the --authenticate-http flags shut everybody out: say who is let in, by --credentials or \
         --dcos-token-key"
    );
    let acls = args.acls.as_deref().map(Acls::parse).transpose()?;
    Ok((authentication, acls.unwrap_or_default()))
}

async fn run_master(args: MasterArgs) -> anyhow::Result<()> {
    let (authentication, acls) = access(&args)?;
    let config = MasterConfig {
        authentication,
        settings: Settings {
            acls,
            ..Settings::default()
        },
        advertise: args.advertise,
        cluster: args.cluster.clone(),
        ..MasterConfig::new(args.listen, &args.work_dir)
    };
    let stop = stop_at_signal()?;
    let Some(zk) = &args.zk else {
        return Ok(master::run(config, stop).await?);
    };
    let url = MasterUrl::load(zk).context("--zk")?;
    let url = url.zookeeper().with_context(|| {
        format!("--zk={url} names no ZooKeeper: expected zk://host[,host]/path")
    })?;
    Ok(master::run_elected(config, url.clone(), stop).await?)
}

/// Cancelled at SIGTERM or SIGINT.
pub(crate) fn stop_at_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}

fn agent_config(args: &AgentArgs, line: &[OsString]) -> anyhow::Result<AgentConfig> {
    // Sandboxes are named in messages and environments: their paths must not depend on where
    // the agent was started.
    let work_dir = std::path::absolute(&args.work_dir)
        .with_context(|| format!("--work-dir={}", args.work_dir.display()))?;
    std::fs::create_dir_all(&work_dir)
        .with_context(|| format!("cannot make --work-dir={}", work_dir.display()))?;
    let root = nix::unistd::geteuid().is_root();
    let images = args.images.config(&work_dir)?;
    anyhow::ensure!(
        root || images.is_none(),
        "--image-providers: containers from images need root"
    );
    let isolation = match &args.isolation {
        Some(text) => Isolation::parse(text)?,
        None if root => Isolation {
            images: images.is_some(),
            ..Isolation::CGROUPS
        },
        None => Isolation::POSIX,
    };
    anyhow::ensure!(
        isolation.images || images.is_none(),
        "--isolation={}: Docker images need the isolators filesystem/linux and docker/runtime",
        isolation.name()
    );
    let launcher = match args.launcher {
        Some(LauncherArg::Linux) => Launcher::Linux,
        Some(LauncherArg::Posix) => Launcher::Posix,
        None if root => Launcher::Linux,
        None => Launcher::Posix,
    };
    let executor_key = args.executor_secret_key.as_deref().map(jwt::Key::load);
    let executor_key = executor_key
        .transpose()
        .context("--executor-secret-key")?
        .filter(|_| args.authenticate_http_executors);
    if let Some(key) = &executor_key {
        anyhow::ensure!(
            key.signs(),
            "--executor-secret-key: a public key signs nothing"
        );
    }
    let given = Resources::parse(&args.resources).context("--resources")?;
    let master = MasterUrl::load(&args.master).context("--master")?;
    let defaults = AgentConfig::new(args.listen, master, &work_dir, line);
    let hostname = args
        .hostname
        .clone()
        .unwrap_or_else(|| args.advertise.unwrap_or(args.listen.ip()).to_string());
    Ok(AgentConfig {
        advertise: args.advertise,
        hostname,
        resources: detect::complete(given, &work_dir)?,
        attributes: parse_attributes(&args.attributes).context("--attributes")?,
        launcher,
        isolation,
        cgroups_root: args.cgroups_root.clone(),
        cgroups_enable_cfs: args.cgroups_enable_cfs,
        executor_registration_timeout: args.executor_registration_timeout,
        executor_reregistration_timeout: args.executor_reregistration_timeout,
        executor_shutdown_grace_period: args.executor_shutdown_grace_period,
        recovery_timeout: args.recovery_timeout,
        gc_delay: args.gc_delay,
        gc_disk_headroom: args.gc_disk_headroom,
        secrets_dir: args.secrets_dir.clone(),
        executor_key,
        images,
        ..defaults
    })
}
