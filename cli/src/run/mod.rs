//! `k8sm run COMPONENT`: the command of every Marathon app. It reads what to run from the
//! environment ([`packaging::run`]), takes its keys from where the operator brings them and puts
//! them into files that only it can read, checks the programs that were fetched, and runs them.
//!
//! | component | how it runs |
//! |---|---|
//! | `etcd` | decides whether the member may start ([`etcd`]), then becomes etcd |
//! | `apiserver` | kube-apiserver and konnectivity's server, which end together ([`group`]) |
//! | `controller-manager`, `framework` | the program, and a balancer to the API servers ([`balancer`]) |
//! | `proxy` | becomes `k8sm-proxy` |
//!
//! No child gets the variables that hold keys. What is written lies in the task's sandbox, which
//! Mesos removes with the task.

pub mod balancer;
pub mod children;
mod components;
pub mod etcd;
pub mod group;
mod keep;
mod keys;
mod probe;
mod sandbox;

use std::path::PathBuf;
use std::process::ExitCode;

use packaging::pki::Component;
use packaging::run::{MESOS_SECRET_ENV, RUN_ENV, Run, RunSpec};

/// Where Marathon says which port a task has.
const PORT_ENV: &str = "PORT0";

pub(crate) use components::{MesosSecret, framework};
pub use sandbox::Sandbox;

/// Why a component does not run. Marathon starts its task again in any case; what cannot be
/// mended by that is said so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variable is missing.
    #[error(
        "{RUN_ENV} is not set: `k8sm run` is the command of Marathon apps that `k8sm install` makes"
    )]
    NoSpec,
    /// The variable is of no use.
    #[error(transparent)]
    Spec(#[from] packaging::run::Error),
    /// There are no keys.
    #[error(
        "no keys were brought to this task: neither a file named by K8SM_PKI_FILE, nor k8sm-pki.json in the sandbox, nor the variable K8SM_PKI; see the option pki.source"
    )]
    NoKeys,
    /// The keys are of no use.
    #[error(transparent)]
    Keys(#[from] packaging::pki::BundleError),
    /// A file that was brought cannot be read.
    #[error("read {path}: {source}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program is missing.
    #[error(
        "{0} is neither in the sandbox nor beside k8sm nor in PATH: it was not fetched, or the image lacks it"
    )]
    NoProgram(String),
    /// A program is not the one that was meant.
    #[error("{path} has the SHA-256 {found}, where {wanted} is wanted: it was damaged or replaced on its way", path = .path.display())]
    Digest {
        /// Which.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// Nobody knows this agent's address.
    #[error("this agent's address is not known: {0}")]
    Address(String),
    /// A value in the specification.
    #[error(transparent)]
    Cidr(#[from] packaging::cidr::BadCidr),
    /// Writing into the sandbox.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
    /// Preparing files of a process.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// etcd's data.
    #[error(transparent)]
    Refused(#[from] etcd::Refusal),
    /// A client for etcd's members.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
    /// The balancer.
    #[error("listen on loopback for the API servers: {0}")]
    Balancer(std::io::Error),
    /// A program could not be started.
    #[error("start {program}: {source}", program = .program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program that prepares something failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The service account that the framework is.
    #[error(transparent)]
    Account(crate::service_account::Error),
    /// Signals.
    #[error("wait for signals: {0}")]
    Signals(std::io::Error),
    /// A task of a moment that was not told what to do.
    #[error("{0} is not set: this is the command of an app of `k8sm install`")]
    NoTask(&'static str),
    /// One that does not understand it.
    #[error("read {variable}: {source}; it is written by k8sm for the program of its own version")]
    Task {
        /// Where it is said.
        variable: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// One without a port.
    #[error("PORT0 is not set, or no port: Marathon gives one to each task")]
    NoPort,
    /// A port that cannot be had.
    #[error("listen on port {port}: {source}")]
    Listen {
        /// Which.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// The runtime.
    #[error("start the runtime: {0}")]
    Runtime(std::io::Error),
    /// Whoever started it is gone.
    #[error("the process that started this one is gone")]
    Orphan,
    /// The app of a DC/OS package.
    #[error(transparent)]
    Package(#[from] crate::siblings::Error),
    /// What the installation of the rest of the control plane left behind.
    #[error("take up the control plane that was brought up: {0}")]
    Siblings(String),
}

/// Runs the app of a DC/OS package, which is told its options by arguments.
pub fn run_package(args: &[String]) -> Result<ExitCode, Error> {
    runtime()?.block_on(crate::siblings::run(args))
}

/// Looks at this agent, and says over HTTP what there is.
pub fn run_probe() -> Result<ExitCode, Error> {
    runtime()?.block_on(probe::run())
}

/// Brings the artifacts to where this agent keeps them.
pub fn run_keep() -> Result<ExitCode, Error> {
    runtime()?.block_on(keep::run())
}

/// What a task of a moment is told by a variable, and the port at which it answers.
fn told<T: serde::de::DeserializeOwned>(variable: &'static str) -> Result<(T, u16), Error> {
    let text = std::env::var(variable).map_err(|_| Error::NoTask(variable))?;
    let told = serde_json::from_str(&text).map_err(|source| Error::Task { variable, source })?;
    let port = std::env::var(PORT_ENV).ok().and_then(|p| p.parse().ok());
    Ok((told, port.ok_or(Error::NoPort)?))
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    crate::runtime::runtime().map_err(Error::Runtime)
}

/// Runs a component; returns only when it has ended, or when it cannot start.
pub fn run(component: &str) -> Result<ExitCode, Error> {
    let text = std::env::var(RUN_ENV).map_err(|_| Error::NoSpec)?;
    let spec = RunSpec::parse(&text, component)?;
    let sandbox = Sandbox::here(&spec)?;
    let bundle = keys::bundle(&sandbox, who(&spec.run))?;
    bundle.write(&sandbox.pki_dir())?;
    drop(bundle);
    sandbox.check_programs(&spec)?;
    runtime()?.block_on(async {
        match &spec.run {
            Run::Etcd(run) => components::etcd(&sandbox, run).await,
            Run::Apiserver(run) => components::api_server(&sandbox, run).await,
            Run::ControllerManager(run) => {
                components::controller_manager(&sandbox, &spec.cluster, run).await
            }
            Run::Proxy(run) => components::proxy(&sandbox, &spec, run),
            Run::Framework(run) => {
                let secret = std::env::var(MESOS_SECRET_ENV).ok();
                let secret = secret.map(MesosSecret::Text);
                components::framework(&sandbox, &spec, run, secret).await
            }
        }
    })
}

/// Whose keys a component has.
fn who(run: &Run) -> Component {
    match run {
        Run::Etcd(etcd) => Component::Etcd(etcd.number),
        Run::Apiserver(_) => Component::ApiServer,
        Run::ControllerManager(_) => Component::ControllerManager,
        Run::Proxy(_) => Component::Proxy,
        Run::Framework(_) => Component::Framework,
    }
}
