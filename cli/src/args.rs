//! The command line.

mod images;
mod install;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::instance::{DEFAULT_API_PORT, DEFAULT_MESOS_PORT, DEFAULT_RUN_ROOT, DEFAULT_STATE_DIR};

pub use images::{
    Images, ImagesBuild, ImagesCommand, ImagesFrom, ImagesList, ImagesPull, ImagesPush, ImagesSave,
    ManifestFormat, RegistryAccess,
};
pub use install::{
    ArtifactsSource, Backup, Certs, CertsCommand, Completion, Doctor, Install, KubeconfigArgs, Man,
    Manner, OptionsArgs, Render, Restore, Said, Shape, Uninstall, Upgrade, Which,
};

const EXAMPLES: &str = "\
Examples:
  sudo k8sm up                     a cluster on this machine, with a page served by a Deployment
  sudo k8sm up --agents 3          three nodes, each in a network namespace of its own
  sudo k8sm up --mesos zk://a:2181,b:2181/mesos
                                   the same on a Mesos that exists
  k8sm kubectl get pods -A -o wide
  k8sm ps                          pods with their Mesos tasks, agents and containers
  k8sm logs framework -f
  sudo k8sm down                   leaves nothing behind
  k8sm install --marathon http://marathon:8080 --serve
                                   a cluster on a Mesos with Marathon

Exit codes:
  0    done                                  4    another command or instance is in the way
  1    failed                                5    not ready in time; repeat the command to go on
  2    wrong command line                    6    there is no cluster, or it does not run
  3    the machine lacks something           7    files of the instance are damaged
  130  interrupted";

/// Kubernetes on Apache Mesos
#[derive(Debug, Parser)]
#[command(name = "k8sm", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    /// Directory of the cluster: the state of one that `k8sm up` made; where it is given, the record of
    /// an installed one, too
    #[arg(long, visible_alias = "dir", help_heading = "Everywhere", global = true, env = "K8SM_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Where sockets and records of processes go; another one is for tests without root
    #[arg(long, hide = true, global = true, env = "K8SM_RUN_ROOT", value_name = "DIR", default_value = DEFAULT_RUN_ROOT)]
    pub run_root: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a cluster, or completes or changes one; safe to repeat
    Up(Box<Up>),
    /// Removes the cluster: every process, mount, cgroup, link and rule, and its state
    Down(Down),
    /// Stops the cluster and keeps its state; `start` goes on with it. An installed one gives all
    /// nodes back to Mesos
    Stop(Stop),
    /// Starts a stopped cluster with the settings it has
    Start(Start),
    /// Shows what runs, and whether it is ready
    Status(Status),
    /// Shows pods with their Mesos tasks, agents and containers
    Ps(Ps),
    /// Runs kubectl against the cluster
    #[command(disable_help_flag = true)]
    Kubectl(Passthrough),
    /// Shows the log of a process of the cluster; without a name, lists them
    Logs(Logs),
    /// Installs a cluster on a Mesos with Marathon; safe to repeat
    #[command(after_help = install::INSTALL_HELP)]
    Install(Box<Install>),
    /// Brings an installed cluster to new options or programs, one part after the other
    #[command(after_help = install::UPGRADE_HELP)]
    Upgrade(Box<Upgrade>),
    /// Removes an installed cluster without a trace
    #[command(after_help = install::UNINSTALL_HELP)]
    Uninstall(Uninstall),
    /// Looks for what is wrong with an installed cluster, and says what to do
    #[command(after_help = install::DOCTOR_HELP)]
    Doctor(Doctor),
    /// Prints what would be put to Marathon
    Render(Render),
    /// Lists the options of a cluster
    Options(OptionsArgs),
    /// Shows, renews and exports an installed cluster's certificates
    Certs(Certs),
    /// Writes the kubeconfig of an installed cluster, and prints where
    Kubeconfig(KubeconfigArgs),
    /// Saves an installed cluster: etcd and the keys
    #[command(after_help = install::BACKUP_HELP)]
    Backup(Backup),
    /// Makes a new cluster of a backup
    #[command(after_help = install::RESTORE_HELP)]
    Restore(Box<Restore>),
    /// Prints a script that completes commands in a shell
    Completion(Completion),
    /// Writes manual pages
    Man(Man),
    /// Writes or serves the files that agents and Marathon's apps fetch
    Artifacts(crate::args::Artifacts),
    /// Builds, lists, saves, pushes and pulls the images of a cluster's programs
    Images(Images),
    /// Builds, checks, renders and serves the DC/OS package
    Package(crate::package::PackageArgs),
    /// What `dcos kubernetes` calls
    #[command(hide = true)]
    Kubernetes(crate::dcos_plugin::PluginArgs),
    /// Runs a component of the control plane: the command of the Marathon apps
    Run(RunArgs),
    /// Builds, lists and finds the upstream programs
    Upstream(crate::upstream::UpstreamArgs),
    /// For development: parts of a cluster on their own
    Dev(Dev),
}

impl Command {
    /// What is logged when `RUST_LOG` does not say.
    pub fn default_log_filter(&self) -> &'static str {
        match self {
            Self::Dev(_) | Self::Run(_) => "info",
            _ => "warn",
        }
    }
}

/// Arguments of `k8sm up`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Up {
    /// How many Mesos agents: one shares this machine's network, more have a network namespace,
    /// a mount namespace and an address each [default: 1, or what the cluster has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50), conflicts_with = "mesos")]
    pub agents: Option<u32>,
    /// A Mesos that exists, instead of one of our own: zk://[user:password@]host[,host]/path,
    /// http[s]://host:port, or host:port. Where it holds a password, better in the environment
    /// than here, where every user of the machine sees it
    #[arg(long, value_name = "URL", env = "K8SM_MESOS", hide_env_values = true)]
    pub mesos: Option<String>,
    /// Bring up a Marathon, too, and install the control plane as its apps, the way it is done in
    /// production; without it this machine runs the control plane beside Mesos. What a cluster has
    /// it keeps
    #[arg(long, conflicts_with = "mesos")]
    pub marathon: bool,
    /// What each agent offers, as Mesos writes it: cpus:2;mem:4096;disk:10240;ports:[31000-32000]
    /// [default: what the machine has]
    #[arg(
        long,
        visible_alias = "agent-resources",
        value_name = "RESOURCES",
        conflicts_with = "mesos"
    )]
    pub resources: Option<String>,
    /// Name of the cluster and of the Mesos framework
    #[arg(long, value_name = "NAME", default_value = "kubernetes")]
    pub name: String,
    /// Address of this machine at which nodes reach the control plane [default: that of the
    /// default route]
    #[arg(long, help_heading = "Addresses and ports", value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Port of the API server; 0 for any that is free
    #[arg(long, help_heading = "Addresses and ports", value_name = "PORT", default_value_t = DEFAULT_API_PORT)]
    pub api_port: u16,
    /// Port of the Mesos master; 0 for any that is free
    #[arg(long, help_heading = "Addresses and ports", value_name = "PORT", default_value_t = DEFAULT_MESOS_PORT)]
    pub mesos_port: u16,
    /// Port on loopback of the API with a limited identity, v1beta1 included; 0 for none
    /// [default: 8080 if that is free and the Mesos is our own]
    #[arg(long, help_heading = "Addresses and ports", value_name = "PORT")]
    pub legacy_port: Option<u16>,
    /// Range of the pods' addresses
    #[arg(
        long,
        help_heading = "Addresses and ports",
        value_name = "CIDR",
        default_value = "10.244.0.0/16"
    )]
    pub pod_cidr: String,
    /// Range of the services' addresses
    #[arg(
        long,
        help_heading = "Addresses and ports",
        value_name = "CIDR",
        default_value = "10.96.0.0/16"
    )]
    pub service_cidr: String,
    /// An image archive (OCI layout or `docker save`) that every node gets; may be repeated
    #[arg(
        help_heading = "Nodes and framework",
        long = "image",
        value_name = "FILE"
    )]
    pub images: Vec<PathBuf>,
    /// Where nodes pull a registry's images from, `HOST=URL`; the host `_default` stands for all;
    /// may be repeated
    #[arg(
        help_heading = "Nodes and framework",
        long = "registry-mirror",
        value_name = "HOST=URL"
    )]
    pub registry_mirrors: Vec<String>,
    /// One more argument of k8sm-framework, for instance --framework-arg=--nodes-min=2; may be
    /// repeated. {address} stands for this machine's address as nodes reach it
    #[arg(
        help_heading = "Nodes and framework",
        long = "framework-arg",
        value_name = "ARGUMENT",
        allow_hyphen_values = true
    )]
    pub framework_args: Vec<String>,
    /// Do not deploy the example, examples/hello
    #[arg(long, help_heading = "How the command behaves")]
    pub no_hello: bool,
    /// How long to wait for the cluster, in seconds
    #[arg(
        long,
        help_heading = "How the command behaves",
        value_name = "SECONDS",
        default_value_t = 300
    )]
    pub timeout: u64,
    /// Folder of the upstream programs [default: built by `k8sm upstream build`]
    #[arg(
        long,
        help_heading = "Where the programs come from",
        value_name = "DIR",
        env = "K8SM_UPSTREAM_BIN"
    )]
    pub upstream_dir: Option<PathBuf>,
    /// Folder of k8sm-framework, k8sm-executor, k8sm-pause and k8sm-hello [default: that of k8sm]
    #[arg(
        long,
        help_heading = "Where the programs come from",
        value_name = "DIR",
        env = "K8SM_PROGRAMS_DIR"
    )]
    pub programs_dir: Option<PathBuf>,
    /// Show nothing but errors
    #[arg(long, help_heading = "How the command behaves", short)]
    pub quiet: bool,
}

/// Arguments of `k8sm stop`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Stop {
    /// Which cluster, when it is an installed one
    #[command(flatten)]
    pub which: Which,
    /// How an installed one is stopped
    #[command(flatten)]
    pub manner: Manner,
}

/// Arguments of `k8sm status`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Status {
    /// Which cluster, when it is an installed one
    #[command(flatten)]
    pub which: Which,
    /// How to print it; yaml for installed clusters only
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: StatusFormat,
}

/// How a status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

impl StatusFormat {
    /// As the commands for installed clusters call it.
    pub fn shape(self) -> Shape {
        match self {
            Self::Text => Shape::Table,
            Self::Json => Shape::Json,
            Self::Yaml => Shape::Yaml,
        }
    }
}

/// Arguments of `k8sm start`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Start {
    /// Which cluster, when it is an installed one
    #[command(flatten)]
    pub which: Which,
    /// How it is started
    #[command(flatten)]
    pub manner: Manner,
}

/// Arguments of `k8sm down`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Down {
    /// Do not end pods in order first: kill everything at once
    #[arg(long)]
    pub force: bool,
    /// Show nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Arguments of `k8sm ps`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Ps {
    /// Only pods of this namespace
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
}

/// Arguments that are handed on.
#[derive(Debug, Clone, ClapArgs)]
pub struct Passthrough {
    /// Arguments of kubectl
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    pub args: Vec<std::ffi::OsString>,
}

/// Arguments of `k8sm logs`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Logs {
    /// Which process, for instance kube-apiserver, framework, mesos-agent-0, kubelet
    pub component: Option<String>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    pub lines: usize,
}

/// Arguments of `k8sm artifacts`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Artifacts {
    /// What to do
    #[command(subcommand)]
    pub command: ArtifactsCommand,
}

/// The commands of `k8sm artifacts`.
#[derive(Debug, Clone, Subcommand)]
pub enum ArtifactsCommand {
    /// Writes a directory with every file that a cluster fetches, each below its SHA-256. Files
    /// that are there and unchanged are kept
    Build(ArtifactsBuild),
    /// Serves such a directory over HTTP until it is ended: for clusters without a web server of
    /// their own. The apps need it whenever they start on an agent that has not fetched before
    Serve(ArtifactsServe),
}

/// Arguments of `k8sm artifacts build`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ArtifactsBuild {
    /// Where the directory will be served, as agents reach it: http://files.example.org/k8sm
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The directory
    pub dir: PathBuf,
    /// An image archive (OCI layout or `docker save`) that every node gets; may be repeated
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// Folder of the upstream programs [default: built by `k8sm upstream build`]
    #[arg(long, value_name = "DIR", env = "K8SM_UPSTREAM_BIN")]
    pub upstream_dir: Option<PathBuf>,
    /// Folder of k8sm-framework, k8sm-executor, k8sm-proxy, k8sm-pause and k8sm-hello [default:
    /// that of k8sm]
    #[arg(long, value_name = "DIR", env = "K8SM_PROGRAMS_DIR")]
    pub programs_dir: Option<PathBuf>,
}

/// Arguments of `k8sm artifacts serve`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ArtifactsServe {
    /// The directory that `k8sm artifacts build` wrote
    pub dir: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8088")]
    pub listen: std::net::SocketAddr,
}

/// Arguments of `k8sm run`.
#[derive(Debug, Clone, ClapArgs)]
pub struct RunArgs {
    /// Which component
    #[command(subcommand)]
    pub component: RunComponent,
}

/// What `k8sm run` runs. Each is configured by the variable K8SM_RUN, which `k8sm render` and
/// `k8sm install` write.
#[derive(Debug, Clone, Subcommand)]
pub enum RunComponent {
    /// A member of etcd
    Etcd,
    /// An API server, with konnectivity's server
    Apiserver,
    /// A controller manager
    ControllerManager,
    /// The front door
    Proxy,
    /// The framework; with arguments, which only the DC/OS package's app has, the rest of the
    /// control plane before it
    Framework {
        /// Options and places of programs, as the package's template writes them.
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Says over HTTP what a task sees on its agent
    Probe,
    /// Brings the artifacts to where this agent keeps them
    Keep,
    /// Becomes a program that ends with its parent
    #[command(hide = true)]
    Exec {
        /// Pid of who asked.
        parent: u32,
        /// The program.
        program: std::ffi::OsString,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

/// Arguments of `k8sm dev`.
#[derive(Debug, ClapArgs)]
pub struct Dev {
    /// Which part
    #[command(subcommand)]
    pub command: DevCommand,
}

/// The commands of `k8sm dev`.
#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Runs a Mesos of the devcluster: all of it, or only a master or an agent
    Mesos(Box<devcluster::cli::Args>),
    /// Runs a Marathon: apps on a Mesos, of the devcluster or any other
    Marathon(Box<devcluster::marathon::cli::Args>),
    /// Puts what DC/OS has before a Marathon: Cosmos, the admin router's paths, service accounts
    Dcos(Box<devcluster::dcos::cli::Args>),
    /// Keeps the processes of an instance running; started by `up`
    #[command(hide = true)]
    Supervise,
}
