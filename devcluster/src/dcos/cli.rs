//! `k8sm dev dcos`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::auth::Accounts;
use super::secrets::Secrets;
use super::{Config, start};
use crate::cli::{block_on, stop_at_signal};
use crate::jwt;

/// Arguments of `k8sm dev dcos`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where it listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8088")]
    pub listen: SocketAddr,
    /// Marathon
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub marathon: String,
    /// The Mesos master
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5050")]
    pub mesos: String,
    /// Where the list of repositories is remembered
    #[arg(long, value_name = "DIR")]
    pub work_dir: PathBuf,
    /// The release of DC/OS that it pretends to be
    #[arg(long, value_name = "RELEASE", default_value = "2.1")]
    pub release: String,
    /// File with service accounts, {"<uid>": "<public key, PEM>"}; with it, callers need a token
    #[arg(long, value_name = "FILE")]
    pub service_accounts: Option<PathBuf>,
    /// Where the secret store keeps its secrets: the --secrets-dir of the agents; without it, or
    /// without service accounts, there is no secret store, as in open DC/OS
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// File with permissions about secrets, {"<uid>": ["dcos:secrets:default:/<path> full"]};
    /// accounts that are not in it may do everything
    #[arg(long, value_name = "FILE")]
    pub secret_permissions: Option<PathBuf>,
    /// Strict mode: tokens are signed by --token-key and handed on to Marathon and the master, which
    /// are to be started with --dcos-token-key
    #[arg(long, requires = "service_accounts", requires = "token_key")]
    pub strict: bool,
    /// File with what signs tokens: a private RSA key, or a secret of 32 bytes or more
    #[arg(long, value_name = "FILE", requires = "strict")]
    pub token_key: Option<PathBuf>,
    /// How long tokens are good at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 432_000)]
    pub token_life: u64,
    /// Between two looks at a service that removes itself, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub uninstall_poll: u64,
}

/// Runs until SIGTERM.
pub fn run(args: Args) -> anyhow::Result<()> {
    for (flag, url) in [("--marathon", &args.marathon), ("--mesos", &args.mesos)] {
        anyhow::ensure!(
            url.starts_with("http://") || url.starts_with("https://"),
            "{flag}={url}: an http address is wanted"
        );
    }
    let life = Duration::from_secs(args.token_life);
    let accounts = match &args.service_accounts {
        Some(file) => Accounts::read(file, life).context("--service-accounts")?,
        None => Accounts::default(),
    };
    let accounts = match args.token_key.as_deref().filter(|_| args.strict) {
        Some(file) => {
            let key = jwt::Key::load(file).context("--token-key")?;
            accounts.strict(key).context("--token-key")?
        }
        None => accounts,
    };
    let secrets = Secrets::read(args.secrets_dir, args.secret_permissions.as_deref())
        .context("--secret-permissions")?;
    let config = Config {
        listen: args.listen,
        marathon: args.marathon,
        mesos: args.mesos,
        release: args.release,
        work_dir: args.work_dir,
        accounts,
        secrets,
        poll: Duration::from_millis(args.uninstall_poll),
    };
    block_on(async {
        let stop = stop_at_signal()?;
        let running = start(config, stop).await?;
        tracing::info!("DC/OS' paths are at http://{}", running.address());
        running.wait().await
    })?
}
