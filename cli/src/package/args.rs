//! The command line of `k8sm package`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  k8sm package build --artifacts ARTIFACTS --url https://files.example.org/k8sm OUT
                                   the package and its repository, to be served at that address
  k8sm package serve --artifacts ARTIFACTS --listen 10.0.0.5:8080
                                   the same without a web server: `dcos package repo add --index=0
                                   k8sm http://10.0.0.5:8080/repo`
  k8sm package bundle --artifacts ARTIFACTS kubernetes.tar
                                   everything for clusters without Internet, in one file
  k8sm package lint OUT/repo/packages/K/kubernetes/0
  k8sm package render --artifacts ARTIFACTS --url URL --options options.json
                                   the app that Cosmos would post to Marathon";

/// Arguments of `k8sm package`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PackageArgs {
    /// What to do
    #[command(subcommand)]
    pub command: PackageCommand,
}

/// The commands of `k8sm package`.
#[derive(Debug, Clone, Subcommand)]
pub enum PackageCommand {
    /// Writes the package, its repository in the formats v3 to v5, and its icons to a directory
    Build(Build),
    /// Writes one archive with everything that a cluster without Internet needs, DC/OS or not
    Bundle(Bundle),
    /// Looks for what the Universe, Cosmos or Marathon would refuse or silently get wrong
    Lint(Lint),
    /// Prints the app that Cosmos would post to Marathon
    Render(Render),
    /// Serves the repository and the artifacts over HTTP until it is ended
    Serve(Serve),
    /// Prints the package's config.json
    Config,
}

/// From what a package is built.
#[derive(Debug, Clone, Args)]
pub struct Origin {
    /// The directory that `k8sm artifacts build` wrote
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Where the agents get the artifacts [default: what the directory says, else URL/artifacts]
    #[arg(long, value_name = "URL")]
    pub artifacts_url: Option<String>,
    /// Place of this version in the order of all: the newest has the largest number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub release: u64,
    /// Registry, and path in it, of the images, to be mentioned in resource.json
    #[arg(long, value_name = "REPOSITORY")]
    pub images: Option<String>,
    /// A version of the package that may be upgraded to this one; may be repeated
    #[arg(long, value_name = "VERSION")]
    pub upgrades_from: Vec<String>,
    /// A version of the package that this one may be downgraded to; may be repeated
    #[arg(long, value_name = "VERSION")]
    pub downgrades_to: Vec<String>,
}

/// Arguments of `k8sm package build`.
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// From what it is built
    #[command(flatten)]
    pub from: Origin,
    /// Where the directory will be served, as DC/OS and the agents reach it
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// The directory
    pub dir: PathBuf,
}

/// Arguments of `k8sm package bundle`.
#[derive(Debug, Clone, Args)]
pub struct Bundle {
    /// The directory that `k8sm artifacts build` wrote
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// The archive
    pub file: PathBuf,
}

/// Which package a command is about.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// A directory with package.json, config.json, resource.json and marathon.json.mustache
    #[arg(value_name = "DIR", conflicts_with_all = ["artifacts", "url"], required_unless_present = "artifacts")]
    pub dir: Option<PathBuf>,
    /// Instead of a directory: the package that would be built from these artifacts
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Where that package would be served
    #[arg(
        long,
        value_name = "URL",
        requires = "artifacts",
        default_value = "http://localhost:8080"
    )]
    pub url: String,
}

/// Arguments of `k8sm package lint`.
#[derive(Debug, Clone, Args)]
pub struct Lint {
    /// Which package
    #[command(flatten)]
    pub which: Which,
}

/// Arguments of `k8sm package render`.
#[derive(Debug, Clone, Args)]
pub struct Render {
    /// Which package
    #[command(flatten)]
    pub which: Which,
    /// The options, as for `dcos package install --options`: JSON or YAML; may be repeated, later
    /// ones go over earlier ones
    #[arg(long, value_name = "FILE")]
    pub options: Vec<PathBuf>,
    /// The app's id, as for `dcos package install --app-id`
    #[arg(long, value_name = "ID")]
    pub app_id: Option<String>,
    /// Address of the repository, which a label says [default: URL/repo]
    #[arg(long, value_name = "URL")]
    pub source: Option<String>,
}

/// Arguments of `k8sm package serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// From what the package is built
    #[command(flatten)]
    pub from: Origin,
    /// Where to listen
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address of this server as DC/OS and the agents reach it [default: http:// and what --listen
    /// says]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}
