//! Arguments of the commands for clusters on a Mesos with Marathon.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// Which installed cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Name of the installed cluster; its record is in ~/.config/k8sm/NAME, or where --state-dir says
    #[arg(long, value_name = "NAME", env = "K8SM_NAME")]
    pub name: Option<String>,
}

/// The options of a cluster.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What the cluster is")]
pub struct Said {
    /// A file with options, YAML or JSON; may be repeated, later ones override
    #[arg(long = "options", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One option, for instance --set etcd.count=1; may be repeated, overrides files. `k8sm options`
    /// lists all
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Where the artifacts are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where the programs come from")]
pub struct ArtifactsSource {
    /// The directory that `k8sm artifacts build` wrote [default: built from the programs of this
    /// machine]
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Where that directory is served, as agents reach it [default: artifacts.base_url, or what
    /// the directory says]
    #[arg(long, value_name = "URL")]
    pub artifacts_url: Option<String>,
    /// Serve the directory from this machine while the command runs; agents keep what they need of
    /// it in artifacts.agent_dir, so that nobody has to serve it later
    #[arg(long)]
    pub serve: bool,
    /// Where --serve listens
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8088")]
    pub serve_listen: SocketAddr,
    /// HOST or HOST:PORT at which agents reach what --serve serves [default: this machine's
    /// address and the port of --serve-listen]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub serve_address: Option<String>,
    /// Folder of the upstream programs [default: built by `k8sm upstream build`]
    #[arg(long, value_name = "DIR", env = "K8SM_UPSTREAM_BIN")]
    pub upstream_dir: Option<PathBuf>,
    /// Folder of our programs [default: that of k8sm]
    #[arg(long, value_name = "DIR", env = "K8SM_PROGRAMS_DIR")]
    pub programs_dir: Option<PathBuf>,
}

/// How a command that changes something behaves.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How the command behaves")]
pub struct Manner {
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// How long one step may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
    /// How the plan of --dry-run is printed, and with json or yaml the result, too
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Shape,
    /// Show nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
}

pub(super) const INSTALL_HELP: &str = "\
Examples:
  k8sm install --marathon http://marathon:8080 --serve
  k8sm install --marathon http://marathon:8080 --options cluster.yaml --set etcd.count=3
  k8sm install --marathon http://marathon:8080 --dry-run

It may be interrupted at any time and repeated: what is there already is kept. Credentials come
from the environment: MARATHON_TOKEN (or DCOS_ACS_TOKEN), or MARATHON_USER and MARATHON_PASSWORD;
for Mesos K8SM_MESOS_PRINCIPAL and K8SM_MESOS_SECRET.";

pub(super) const UPGRADE_HELP: &str = "\
Examples:
  k8sm upgrade --dry-run --set apiserver.mem=2048     which apps would change, and how
  k8sm upgrade --set apiserver.mem=2048
  k8sm upgrade --artifacts-url http://files.example.org/k8sm-0.2
  k8sm upgrade --pause                                from another terminal, while one runs
  k8sm upgrade --resume

A snapshot of etcd is taken first. Members of etcd, API servers, controller managers, the framework
and the front door follow one after the other, then the nodes, under their running pods. When a step
fails, or a node does not come back, everything goes back to what it was. Interrupted, it goes on
with the same command, or with --resume.";

pub(super) const UNINSTALL_HELP: &str = "\
Examples:
  k8sm uninstall --dry-run
  k8sm uninstall                  pods, nodes, apps, framework, volumes and data
  k8sm uninstall --keep-data      all but etcd's data and keys; `k8sm install` goes on with them";

pub(super) const DOCTOR_HELP: &str = "\
Each finding says what is wrong and what to do. The exit code is 1 when something is, 0 otherwise,
warnings aside. The archive of --bundle holds options, apps, findings and what programs said; look
into it before you send it.";

pub(super) const BACKUP_HELP: &str = "\
Examples:
  k8sm backup cluster.tar.gz
  k8sm restore cluster.tar.gz --marathon http://marathon:8080 --name second --serve";

pub(super) const RESTORE_HELP: &str = "\
Examples:
  k8sm restore cluster.tar.gz --marathon http://marathon:8080 --serve
  k8sm restore cluster.tar.gz --marathon http://marathon:8080 --name second --serve

It makes a new cluster with the objects and the keys of the archive; the one that was saved must be
gone, or the new one have another --name. Like `k8sm install` it may be interrupted and repeated.";

/// Arguments of `k8sm install`.
#[derive(Debug, Clone, Args)]
pub struct Install {
    /// Marathon's address; several of one cluster with commas
    #[arg(
        long,
        value_name = "URL",
        env = "MARATHON_URL",
        help_heading = "Where the cluster lives"
    )]
    pub marathon: Option<String>,
    /// PEM file with the authority of Marathon's certificate [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Where the cluster lives")]
    pub marathon_ca: Option<PathBuf>,
    /// The Mesos masters as this machine reaches them [default: as Marathon says]
    #[arg(
        long,
        value_name = "URL",
        env = "K8SM_MESOS",
        hide_env_values = true,
        help_heading = "Where the cluster lives"
    )]
    pub mesos: Option<String>,
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Options
    #[command(flatten)]
    pub said: Said,
    /// Artifacts
    #[command(flatten)]
    pub artifacts: ArtifactsSource,
    /// Do not look at the agents with a short task on each
    #[arg(long, help_heading = "How the command behaves")]
    pub no_probe: bool,
    /// Wait until this many nodes are ready [default: nodes.min]
    #[arg(long, help_heading = "How the command behaves", value_name = "N")]
    pub wait_nodes: Option<u32>,
    /// Manner
    #[command(flatten)]
    pub manner: Manner,
}

/// Arguments of `k8sm upgrade`.
#[derive(Debug, Clone, Args)]
pub struct Upgrade {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Options that change; the others stay
    #[command(flatten)]
    pub said: Said,
    /// Artifacts
    #[command(flatten)]
    pub artifacts: ArtifactsSource,
    /// Let the upgrade that is under way stop after the step that it is at, and the framework after the
    /// node that it is at
    #[arg(long, help_heading = "How the upgrade goes", conflicts_with_all = ["files", "sets", "resume", "dry_run"])]
    pub pause: bool,
    /// Go on with an upgrade, and with its nodes, after a pause, an interruption or a failure
    #[arg(long, help_heading = "How the upgrade goes")]
    pub resume: bool,
    /// Replace this member of etcd, whose agent or data is lost: etcd-N begins anew, on its agent
    /// if that is still there, else on another
    #[arg(long, help_heading = "How the upgrade goes", value_name = "N")]
    pub replace_member: Option<u8>,
    /// When a step fails, leave everything as it is, instead of going back to what was before
    #[arg(long, help_heading = "How the upgrade goes")]
    pub no_rollback: bool,
    /// Manner
    #[command(flatten)]
    pub manner: Manner,
}

/// Arguments of `k8sm uninstall`.
#[derive(Debug, Clone, Args)]
pub struct Uninstall {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Keep etcd's data and this machine's record with its keys: a later `k8sm install` takes them up
    #[arg(long)]
    pub keep_data: bool,
    /// Manner
    #[command(flatten)]
    pub manner: Manner,
}

/// Arguments of `k8sm doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Write an archive for a bug report, without keys and passwords
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Shape,
}

/// Arguments of `k8sm render`.
#[derive(Debug, Clone, Args)]
pub struct Render {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// The Marathon apps: a JSON list that can be put to Marathon as it is
    #[arg(long, help_heading = "What is printed")]
    pub marathon: bool,
    /// Options over those of the installation
    #[command(flatten)]
    pub said: Said,
    /// A JSON file with what an installation finds and chooses (docs/install-mesos.md), instead of
    /// the record of one
    #[arg(long, help_heading = "What is printed", value_name = "FILE")]
    pub facts: Option<PathBuf>,
    /// Show keys that travel in the environment; without it they are left out
    #[arg(long, help_heading = "What is printed")]
    pub with_keys: bool,
}

/// Arguments of `k8sm options`.
#[derive(Debug, Clone, Args)]
pub struct OptionsArgs {
    /// Only options whose path begins with this
    pub prefix: Option<String>,
    /// Options that ordinary installations leave alone, too
    #[arg(long)]
    pub advanced: bool,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Shape,
}

/// Arguments of `k8sm certs`.
#[derive(Debug, Clone, Args)]
pub struct Certs {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// What to do
    #[command(subcommand)]
    pub command: CertsCommand,
}

/// The commands of `k8sm certs`.
#[derive(Debug, Clone, Subcommand)]
pub enum CertsCommand {
    /// Shows each certificate and when it expires
    Status {
        /// How to print it
        #[arg(long, short, value_enum, default_value = "table")]
        output: Shape,
    },
    /// Makes new certificates for those that are due (or all), and brings them to one component
    /// after the other
    Renew {
        /// All, also those that are not due
        #[arg(long)]
        all: bool,
        /// Manner
        #[command(flatten)]
        manner: Manner,
    },
    /// Writes each component's keys into a directory, for a secret store, for agents or for a
    /// server (pki.source = secrets, file, uri)
    Export {
        /// The directory; only its owner may enter it
        dir: PathBuf,
    },
}

/// Arguments of `k8sm kubeconfig`.
#[derive(Debug, Clone, Args)]
pub struct KubeconfigArgs {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Print the file's content instead of its path; it holds a key
    #[arg(long)]
    pub print: bool,
}

/// Arguments of `k8sm backup`.
#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// The archive: etcd's content, and the keys without which it cannot be read. Keep it safe
    pub file: PathBuf,
    /// Folder of etcdctl [default: that of `k8sm upstream build`]
    #[arg(long, value_name = "DIR", env = "K8SM_UPSTREAM_BIN")]
    pub upstream_dir: Option<PathBuf>,
}

/// Arguments of `k8sm restore`.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// The archive that `k8sm backup` wrote
    pub file: PathBuf,
    /// How the new cluster is installed; options override those of the archive
    #[command(flatten)]
    pub install: Install,
}

/// Arguments of `k8sm completion`.
#[derive(Debug, Clone, Args)]
pub struct Completion {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// Arguments of `k8sm man`.
#[derive(Debug, Clone, Args)]
pub struct Man {
    /// The directory for the pages, one per command
    pub dir: PathBuf,
}
