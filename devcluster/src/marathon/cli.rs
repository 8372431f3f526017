//! `k8sm dev marathon`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use mesos::http::{ClientConfig, Credentials, PemSource, SecretSource};
use mesos::master::MasterUrl;

use super::core::Settings;
use super::run::{MarathonConfig, start};
use super::server::Access;
use crate::cli::{block_on, stop_at_signal};
use crate::jwt;

/// Arguments of `k8sm dev marathon`. Where Marathon has a flag for it, it has the flag's name.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The Mesos master: http://host:port, host:port, or zk://[user:password@]host[,host]/path,
    /// in the environment rather than here if it holds a password
    #[arg(
        long,
        visible_alias = "master",
        value_name = "URL",
        env = "MARATHON_MASTER",
        hide_env_values = true
    )]
    pub mesos: String,
    /// Where the API listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where others reach the API [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where apps, tasks and the framework's id are remembered
    #[arg(long, value_name = "DIR")]
    pub work_dir: PathBuf,
    /// The framework's name
    #[arg(long, value_name = "NAME", default_value = "marathon")]
    pub framework_name: String,
    /// The Mesos role; persistent volumes need one other than *
    #[arg(long, value_name = "ROLE", default_value = "*")]
    pub mesos_role: String,
    /// The Mesos principal; reservations are made in its name
    #[arg(
        long,
        visible_alias = "mesos-authentication-principal",
        value_name = "PRINCIPAL"
    )]
    pub mesos_principal: Option<String>,
    /// File with the principal's secret, where the master authenticates frameworks
    #[arg(
        long,
        visible_alias = "mesos-authentication-secret-file",
        value_name = "FILE",
        requires = "mesos_principal"
    )]
    pub mesos_secret_file: Option<PathBuf>,
    /// File with the certificate of the authority that the master's certificate is signed by
    #[arg(long, value_name = "FILE")]
    pub mesos_ca: Option<PathBuf>,
    /// The user that tasks run as when they do not say
    #[arg(long, value_name = "USER", default_value = "root")]
    pub mesos_user: String,
    /// How long tasks outlive a Marathon that is away, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800)]
    pub failover_timeout: u64,
    /// Features: secrets, gpu_resources, vips, task_killing, maintenance_mode
    #[arg(long, value_name = "FEATURE,..", value_delimiter = ',')]
    pub enable_features: Vec<String>,
    /// The network that container networks without a name mean
    #[arg(long, value_name = "NAME")]
    pub default_network_name: Option<String>,
    /// File with user:password that clients of the API must know
    #[arg(long, value_name = "FILE")]
    pub http_credentials_file: Option<PathBuf>,
    /// File with what signs DC/OS' tokens, a public RSA key or a secret: clients of the API must have
    /// such a token
    #[arg(long, value_name = "FILE", conflicts_with = "http_credentials_file")]
    pub dcos_token_key: Option<PathBuf>,
    /// File with a service account of DC/OS, as `dcos security secrets create-sa-secret` writes it:
    /// Marathon subscribes with tokens of it
    #[arg(
        long,
        value_name = "FILE",
        requires = "mesos_principal",
        conflicts_with = "mesos_secret_file"
    )]
    pub dcos_service_account: Option<PathBuf>,
    /// The first service port
    #[arg(long, value_name = "PORT", default_value_t = 10_000)]
    pub local_port_min: u16,
    /// The last service port, which is not given out itself
    #[arg(long, value_name = "PORT", default_value_t = 20_000)]
    pub local_port_max: u16,
    /// How long a task may take to start, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300_000)]
    pub task_launch_timeout: u64,
    /// How long a reservation may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20_000)]
    pub task_reservation_timeout: u64,
    /// How often the master is asked about all tasks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 600_000)]
    pub reconciliation_interval: u64,
    /// How often offers are asked for at most, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 250)]
    pub min_revive_offers_interval: u64,
    /// How many deployments are at work at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_running_deployments: usize,
}

/// What `--enable-features` knows.
const FEATURES: [&str; 6] = [
    "secrets",
    "gpu_resources",
    "vips",
    "task_killing",
    "maintenance_mode",
    "external_volumes",
];

/// Logs in with the service account of the first file, and keeps the second one filled with a token
/// that is good, until the runtime ends.
pub type KeepToken = fn(PathBuf, PathBuf) -> Pin<Box<dyn Future<Output = Kept> + Send>>;
type Kept = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Runs Marathon until SIGTERM, which leaves its tasks running.
pub fn run(args: Args, keep_token: KeepToken) -> anyhow::Result<()> {
    let account = args.dcos_service_account.clone();
    let config = config(args)?;
    block_on(async {
        let stop = stop_at_signal()?;
        if let Some(account) = account {
            std::fs::create_dir_all(&config.work_dir)
                .with_context(|| format!("make {}", config.work_dir.display()))?;
            let login = keep_token(account, token_file(&config.work_dir));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                kept = login => kept
                    .map_err(anyhow::Error::from_boxed)
                    .context("--dcos-service-account")?,
            }
        }
        start(config, stop).await?.wait().await?;
        Ok(())
    })?
}

/// Where the token lies that Marathon subscribes with.
fn token_file(work_dir: &Path) -> PathBuf {
    work_dir.join("mesos-token")
}

fn config(args: Args) -> anyhow::Result<MarathonConfig> {
    let master = MasterUrl::parse(&args.mesos).context("--mesos")?;
    for feature in &args.enable_features {
        anyhow::ensure!(
            FEATURES.contains(&feature.as_str()),
            "--enable-features={feature}: not known; there are {}",
            FEATURES.join(", ")
        );
    }
    anyhow::ensure!(
        args.local_port_min < args.local_port_max,
        "--local-port-min={} must be less than --local-port-max={}",
        args.local_port_min,
        args.local_port_max
    );
    crate::resources::role::validate(&args.mesos_role)
        .with_context(|| format!("--mesos-role={}", args.mesos_role))?;
    let work_dir = std::path::absolute(&args.work_dir)
        .with_context(|| format!("--work-dir={}", args.work_dir.display()))?;
    let credentials = match (&args.mesos_principal, args.mesos_secret_file) {
        _ if args.dcos_service_account.is_some() => Credentials::Token {
            token: SecretSource::File(token_file(&work_dir)),
        },
        (Some(principal), Some(file)) => Credentials::Basic {
            principal: principal.clone(),
            secret: SecretSource::File(file),
        },
        _ => Credentials::None,
    };
    let access = match (args.dcos_token_key, args.http_credentials_file) {
        (Some(file), _) => {
            let key = jwt::Key::load(&file).context("--dcos-token-key")?;
            Some(Access::Tokens(key))
        }
        (None, Some(file)) => Some(password(&file)?),
        (None, None) => None,
    };
    let millis = Duration::from_millis;
    Ok(MarathonConfig {
        listen: args.listen,
        advertise: args.advertise,
        work_dir,
        client: ClientConfig {
            ca: args.mesos_ca.map(PemSource::File),
            credentials,
            ..ClientConfig::default()
        },
        access,
        settings: Settings {
            framework_name: args.framework_name,
            role: args.mesos_role,
            principal: args.mesos_principal,
            user: args.mesos_user,
            failover_timeout: Duration::from_secs(args.failover_timeout),
            features: args.enable_features.into_iter().collect(),
            network_name: args.default_network_name,
            master: master.to_string(),
            service_ports: (args.local_port_min, args.local_port_max),
            launch_timeout: millis(args.task_launch_timeout),
            reservation_timeout: millis(args.task_reservation_timeout),
            reconcile: millis(args.reconciliation_interval),
            revive_interval: millis(args.min_revive_offers_interval),
            max_deployments: args.max_running_deployments,
            ..Settings::default()
        },
        master,
    })
}

fn password(file: &Path) -> anyhow::Result<Access> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("--http-credentials-file={}", file.display()))?;
    let pair = text.trim();
    anyhow::ensure!(
        pair.split_once(':')
            .is_some_and(|(user, _)| !user.is_empty()),
        "--http-credentials-file={}: expected one line, user:password",
        file.display()
    );
    Ok(Access::password(pair))
}
