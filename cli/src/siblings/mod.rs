//! `k8sm run framework` as the one app of a DC/OS package: it brings the rest of the control plane
//! to the state of its options, by the installer's own code, and then becomes the framework's
//! parent. With `SDK_UNINSTALL` set it removes everything instead, as DC/OS asks its services to.
//!
//! | module | what |
//! |---|---|
//! | [`reconcile`] | one attempt to bring the other apps to the options |
//! | [`snapshot`] | a snapshot of etcd before a change |
//! | [`removal`] | one attempt to remove everything |
//! | [`way`] | whether keys travel by DC/OS' secret store or in the apps' environment |
//! | [`store`] | DC/OS' secret store |
//! | [`state`] | what has to outlive this task: the record and the keys, kept there or in Marathon |
//! | [`content`] | how it is written down |
//! | [`board`] | what DC/OS reads meanwhile: `/v1/plans/deploy`, `/v1/state/frameworkId` |
//!
//! An attempt that fails is repeated, later and later; each looks at what is there first.

mod board;
mod content;
mod reconcile;
mod removal;
mod snapshot;
mod state;
mod store;
mod way;

pub(crate) use state::{Kubeconfig, app_id as state_app, kubeconfig_of};

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use packaging::options::Options;
use packaging::pki::Component;
use packaging::run::{RUN_VERSION, Run, RunSpec};
use packaging::universe::command::Command;
use rand::Rng as _;
use tokio::sync::OnceCell;

use crate::install::{self, Home, Site};
use crate::marathon::Credentials;
use crate::run::{self, Sandbox};
use crate::service_account::{self, Account};
use board::Board;
use reconcile::Done;
use store::Store;

/// Variable by which DC/OS asks a service to remove itself.
pub const UNINSTALL_ENV: &str = "SDK_UNINSTALL";
/// Variable in which Marathon names a task's app.
const APP_ID_ENV: &str = "MARATHON_APP_ID";
/// The service account's token, below the installation's directory.
const TOKEN_FILE: &str = "account-token";
/// Between two attempts, the first time and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Why this app does not begin. Marathon starts it again in any case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments.
    #[error(transparent)]
    Command(#[from] packaging::universe::command::Error),
    /// The options.
    #[error("the options of the package are not usable:\n{0}")]
    Options(#[from] packaging::options::Problems),
    /// The app has another id than the service's name.
    #[error(
        "this app is {found}, the option service.name says {wanted}: DC/OS finds a service's tasks, pages and removal by one name; set service.name and leave --app-id away"
    )]
    Name {
        /// The app's id.
        found: String,
        /// What it has to be.
        wanted: String,
    },
    /// An option that does not go with a package.
    #[error("{option} = {value} does not go with the DC/OS package: {why}")]
    NotHere {
        /// Which.
        option: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        why: &'static str,
    },
    /// Listening for DC/OS.
    #[error("listen on port {port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
}

/// One attempt's failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Attempt {
    /// The installer's.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The service account.
    #[error(transparent)]
    Account(#[from] service_account::Error),
    /// The state in Marathon.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The secret store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The snapshot before a change.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The way of the keys.
    #[error(transparent)]
    Way(#[from] way::Error),
}

/// What an attempt works on.
pub(crate) struct Service {
    pub options: Options,
    pub command: Command,
    /// Where the record and the keys lie while this task lives.
    pub dir: PathBuf,
    /// The secret of the Mesos principal, or the service account.
    pub secret: Option<String>,
    /// The file with the service account's token, from the first login on.
    pub token: OnceCell<PathBuf>,
    pub board: Arc<Board>,
}

impl Service {
    pub fn name(&self) -> &str {
        &self.options.service.name
    }

    pub fn home(&self) -> Result<Home, install::Error> {
        Home::new(Some(&self.dir), self.name())
    }

    /// Marathon and Mesos, and DC/OS' secret store where this app is a service account. That
    /// account's token is kept good from the first time on: an attempt may take longer than it lives.
    pub async fn access(&self) -> Result<(Site, Option<Store>), Attempt> {
        let ca = &self.options.marathon.ca_file;
        let ca = (!ca.is_empty()).then(|| PathBuf::from(ca));
        let account = self.secret.as_deref().and_then(Account::parse);
        let (credentials, store) = match account {
            Some(account) => {
                let account = account?.trusting(ca.clone());
                let (dcos, uid) = (account.dcos().to_owned(), account.uid().to_owned());
                let file = self.token(account).await?;
                let store = Store::new(dcos, uid, file.clone(), ca.as_deref(), self.name())?;
                (Credentials::TokenFile(file), Some(store))
            }
            None => (Credentials::from_env(), None),
        };
        let master = &self.options.mesos.master;
        let master = (!master.is_empty()).then_some(master.as_str());
        let url = &self.options.marathon.url;
        let site = Site::connect_as(url, ca, master, credentials).await?;
        Ok((site, store))
    }

    /// The file with the service account's token.
    async fn token(&self, account: Account) -> Result<PathBuf, Attempt> {
        let file = self.token.get_or_try_init(|| async {
            let file = self.dir.join(TOKEN_FILE);
            packaging::files::make_dir(&self.dir, 0o700).map_err(state::Error::from)?;
            service_account::begin(account, file.clone()).await?;
            Ok::<_, Attempt>(file)
        });
        Ok(file.await?.clone())
    }
}

/// Runs the package's app.
pub async fn run(args: &[String]) -> Result<ExitCode, run::Error> {
    let service = service(args)?;
    let board = Arc::clone(&service.board);
    let port = service.options.framework.port;
    let server = board::serve(port, Arc::clone(&board))
        .await
        .map_err(|source| Error::Listen { port, source })?;
    if std::env::var(UNINSTALL_ENV).is_ok_and(|v| v == "true") {
        until_done(&board, PAUSES, || removal::attempt(&service)).await;
        board.complete();
        tracing::info!("everything is removed; DC/OS deletes this app now");
        // Until then it has to answer.
        server.wait().await;
        return Ok(ExitCode::SUCCESS);
    }
    let done = until_done(&board, PAUSES, || reconcile::attempt(&service)).await;
    // The framework answers on this port from now on.
    drop(server);
    framework(&service, done).await
}

fn service(args: &[String]) -> Result<Service, Error> {
    let command = Command::parse(args)?;
    let options = Options::from_value(&command.options)?;
    let wanted = format!("/{}", options.service.name);
    if let Ok(found) = std::env::var(APP_ID_ENV)
        && found != wanted
    {
        return Err(Error::Name { found, wanted });
    }
    fits(&options)?;
    let dir = std::env::var_os("MESOS_SANDBOX").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| PathBuf::from("."));
    Ok(Service {
        options,
        command,
        dir: dir.join("installation"),
        secret: std::env::var(packaging::run::MESOS_SECRET_ENV).ok(),
        token: OnceCell::new(),
        board: Arc::default(),
    })
}

/// What only a machine of the operator's can do.
fn fits(options: &Options) -> Result<(), Error> {
    let source = &options.pki.source;
    if !matches!(source.as_str(), "auto" | "secrets" | "env") {
        return Err(Error::NotHere {
            option: "pki.source",
            value: source.clone(),
            why: "this app makes the keys when it runs, so nobody could have brought them; leave it at auto, or install with `k8sm install`",
        });
    }
    let (path, folder) = (
        &options.pki.secret_path,
        store::folder(&options.service.name),
    );
    if !path.is_empty() && *path != folder {
        return Err(Error::NotHere {
            option: "pki.secret_path",
            value: path.clone(),
            why: "DC/OS lets apps use secrets only in folders that their ids begin with; leave it empty",
        });
    }
    if !options.pki.ca.is_empty() {
        return Err(Error::NotHere {
            option: "pki.ca",
            value: options.pki.ca.clone(),
            why: "it names a directory of the operator's machine; install with `k8sm install`",
        });
    }
    if !options.marathon.require_ports {
        return Err(Error::NotHere {
            option: "marathon.require_ports",
            value: "false".to_owned(),
            why: "DC/OS' admin router finds the framework by its port",
        });
    }
    Ok(())
}

/// Attempts until one succeeds.
async fn until_done<T, F, A>(board: &Board, pauses: (Duration, Duration), mut attempt: A) -> T
where
    A: FnMut() -> F,
    F: Future<Output = Result<T, Attempt>>,
{
    let (mut pause, longest) = pauses;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => {
                let text = crate::error::chain(&error);
                tracing::warn!("not yet: {text}");
                board.fails(&text);
                let jitter = rand::rng().random_range(0.5..1.5);
                tokio::time::sleep(pause.mul_f64(jitter)).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

/// Runs the framework with its keys of the installation.
async fn framework(service: &Service, done: Done) -> Result<ExitCode, run::Error> {
    let artifacts = &service.command.artifacts;
    let program = "k8sm-framework";
    let spec = RunSpec {
        version: RUN_VERSION,
        cluster: service.name().to_owned(),
        install: done.install_id,
        log_level: service.options.service.log_level.clone(),
        programs: artifacts
            .get(program)
            .map(|a| (program.to_owned(), a.sha256.clone()))
            .into_iter()
            .collect(),
        run: Run::Framework(done.run.clone()),
    };
    let sandbox = Sandbox::here(&spec)?;
    let home = service.home().map_err(|e| Error::from_install(&e))?;
    let bundle =
        install::keys::bundle(&home, Component::Framework).map_err(|e| Error::from_install(&e))?;
    bundle.write(&sandbox.pki_dir())?;
    sandbox.check_programs(&spec)?;
    let secret = match service.token.get() {
        Some(file) => Some(run::MesosSecret::Token(file.clone())),
        None => service.secret.clone().map(run::MesosSecret::Text),
    };
    run::framework(&sandbox, &spec, &done.run, secret).await
}

impl Error {
    fn from_install(error: &install::Error) -> run::Error {
        run::Error::Siblings(crate::error::chain(error))
    }
}

#[cfg(test)]
mod keeping;

#[cfg(test)]
mod tests {
    use packaging::options::Layers;

    use super::*;

    fn options(document: &str) -> Options {
        let mut layers = Layers::new();
        layers.document(document).unwrap();
        layers.finish().unwrap()
    }

    #[test]
    fn options_that_only_an_operators_machine_can_follow_are_refused_by_name() {
        assert!(fits(&Options::default()).is_ok());
        assert!(fits(&options("{pki: {source: env}}")).is_ok());
        assert!(
            fits(&options(
                "{pki: {source: secrets, secret_path: kubernetes-cp}}"
            ))
            .is_ok()
        );
        for (document, option) in [
            ("{pki: {source: file, file: /etc/k8sm}}", "pki.source"),
            ("{pki: {secret_path: elsewhere}}", "pki.secret_path"),
            ("{pki: {ca: /etc/ca}}", "pki.ca"),
            (
                "{marathon: {require_ports: false}}",
                "marathon.require_ports",
            ),
        ] {
            let error = fits(&options(document)).unwrap_err().to_string();
            assert!(error.starts_with(option), "{document}: {error}");
        }
    }

    #[tokio::test]
    async fn an_attempt_that_fails_is_repeated_and_says_why_on_the_board() {
        let board = Board::default();
        let mut attempts = 0;
        let pauses = (Duration::from_millis(1), Duration::from_millis(2));
        let done = until_done(&board, pauses, || {
            attempts += 1;
            let attempt = attempts;
            async move {
                match attempt {
                    3 => Ok(attempt),
                    _ => Err(install::Error::State(format!("attempt {attempt}")).into()),
                }
            }
        });
        assert_eq!(done.await, 3);
        assert_eq!(board.error().as_deref(), Some("attempt 2"));
    }
}
