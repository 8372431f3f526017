//! What DC/OS puts before Marathon and Mesos, for one machine and for tests: Cosmos, the package
//! manager that the `dcos` command speaks to, the admin router's paths, and the login of service
//! accounts.
//!
//! | path | what |
//! |---|---|
//! | `/package/*`, `/capabilities`, `/cosmos/service/*` | Cosmos ([`cosmos`]) |
//! | `/service/<name>/*` | the task of the app with that `DCOS_SERVICE_NAME` ([`router`]) |
//! | `/marathon/*`, `/mesos/*` | Marathon and the Mesos master |
//! | `/acs/api/v1/auth/login` | the login of service accounts ([`auth`]) |
//! | `/secrets/v1/secret/*` | the secret store ([`secrets`]) |
//! | `/dcos-metadata/dcos-version.json` | which DC/OS it pretends to be |
//!
//! With accounts, every path but the login wants a token. In strict mode the token is handed on to
//! Marathon and the master, who want it too ([`crate::jwt`]). Who is known may do everything: DC/OS'
//! permissions but those of secrets are not there.
//!
//! Like open DC/OS it changes the options of a service and refuses to change its version.
//! Package managers other than itself (`managerId`), and the resources that Cosmos hands on for
//! browsers (`/package/resource`), are not there.

pub mod auth;
pub mod cli;
pub mod cosmos;
mod error;
mod marathon;
mod media;
mod packages;
mod repositories;
mod router;
pub mod secrets;
mod uninstall;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use auth::Accounts;
use marathon::Marathon;
use repositories::Repositories;
use secrets::Secrets;

/// How long a call of another program may take.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// What it runs with.
#[derive(Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Marathon: `http://host:8080`.
    pub marathon: String,
    /// The Mesos master: `http://host:5050`.
    pub mesos: String,
    /// The release that it pretends to be: `2.1`.
    pub release: String,
    /// Where the list of repositories is remembered.
    pub work_dir: PathBuf,
    /// Service accounts. With any, callers of every path but the login need a token.
    pub accounts: Accounts,
    /// The secret store.
    pub secrets: Secrets,
    /// Between two looks at a service that removes itself; Cosmos takes ten seconds.
    pub poll: Duration,
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Dcos {
    pub marathon: Marathon,
    pub mesos: String,
    pub release: String,
    pub http: reqwest::Client,
    pub repositories: Repositories,
    pub accounts: Arc<Accounts>,
    pub secrets: Secrets,
    pub poll: Duration,
    /// Ends what goes on in the background.
    pub stop: CancellationToken,
}

/// It runs until it is told to stop.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped.
    pub async fn wait(self) -> anyhow::Result<()> {
        Ok(self.task.await??)
    }
}

/// Starts it.
pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Running> {
    use anyhow::Context as _;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let address = listener
        .local_addr()
        .context("the address that it listens on")?;
    let http = crate::client::builder()
        .connect_timeout(Duration::from_secs(5))
        .build()
        .context("set up the HTTP client")?;
    let base = |url: &str| url.trim_end_matches('/').to_owned();
    let accounts = Arc::new(config.accounts);
    let dcos = Arc::new(Dcos {
        marathon: Marathon::new(http.clone(), base(&config.marathon), Arc::clone(&accounts)),
        mesos: base(&config.mesos),
        repositories: Repositories::open(http.clone(), &config.work_dir, &config.release)?,
        release: config.release,
        http,
        accounts,
        secrets: config.secrets,
        poll: config.poll,
        stop: stop.clone(),
    });
    let app = routes(dcos);
    let task = tokio::spawn(async move {
        axum::serve(listener, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    });
    Ok(Running { address, task })
}

fn routes(dcos: Arc<Dcos>) -> Router {
    // The secret store looks at tokens itself: it wants to know whose they are.
    let open = Router::new().merge(auth::routes()).merge(secrets::routes());
    let guarded = Router::new()
        .merge(cosmos::routes())
        .merge(router::routes())
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&dcos),
            auth::guard,
        ));
    open.merge(guarded).with_state(dcos)
}
