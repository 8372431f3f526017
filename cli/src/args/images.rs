//! Arguments of `k8sm images`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::Format;

/// Arguments of `k8sm images`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Images {
    /// What to do
    #[command(subcommand)]
    pub command: ImagesCommand,
}

/// The commands of `k8sm images`.
#[derive(Debug, Clone, Subcommand)]
pub enum ImagesCommand {
    /// Writes the images of a cluster's programs into a directory: archives that Docker, containerd,
    /// skopeo and Mesos agents read. Those that are there and unchanged are kept
    Build(ImagesBuild),
    /// Lists the images, or those of a directory with their digests
    List(ImagesList),
    /// Writes one image to a file, or to standard output
    Save(ImagesSave),
    /// Pushes the images of a directory to a registry
    Push(ImagesPush),
    /// Pulls an image from a registry into a directory, an OCI layout
    Pull(ImagesPull),
}

/// What images are made of, and how they are called.
#[derive(Debug, Clone, ClapArgs)]
pub struct ImagesFrom {
    /// Registry and path in their names: registry.example.org/k8sm [default: k8s.mesosphere.io for
    /// our own, their usual names for others]
    #[arg(long, value_name = "NAME", env = "K8SM_IMAGES_REPOSITORY")]
    pub repository: Option<String>,
    /// Tag of our own images [default: this version]
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Certificates (PEM) of public authorities for images whose programs speak with the outside
    /// world, for instance /etc/ssl/certs/ca-certificates.crt [default: none, only what is given by
    /// options is trusted]
    #[arg(long, value_name = "FILE")]
    pub certificates: Option<PathBuf>,
    /// Revision of the source, for a label
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Store layers as they are: quicker, and three times as large
    #[arg(long)]
    pub no_compress: bool,
    /// Folder of the upstream programs [default: built by `k8sm upstream build`]
    #[arg(long, value_name = "DIR", env = "K8SM_UPSTREAM_BIN")]
    pub upstream_dir: Option<PathBuf>,
    /// Folder of our programs [default: that of k8sm]
    #[arg(long, value_name = "DIR", env = "K8SM_PROGRAMS_DIR")]
    pub programs_dir: Option<PathBuf>,
}

/// Arguments of `k8sm images build`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ImagesBuild {
    /// The directory
    pub dir: PathBuf,
    /// Which images [default: all]
    pub names: Vec<String>,
    /// What they are made of
    #[command(flatten)]
    pub from: ImagesFrom,
}

/// Arguments of `k8sm images list`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ImagesList {
    /// A directory that `k8sm images build` wrote [default: what can be built]
    pub dir: Option<PathBuf>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Format,
}

/// Arguments of `k8sm images save`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ImagesSave {
    /// Which image
    pub name: String,
    /// The file, or - for standard output
    pub file: PathBuf,
    /// What it is made of
    #[command(flatten)]
    pub from: ImagesFrom,
}

/// How a registry is reached.
#[derive(Debug, Clone, ClapArgs)]
pub struct RegistryAccess {
    /// Certificates (PEM) of the authorities that sign the registry's certificate [default: those
    /// of the system]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// User on the registry
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,
    /// File with the password: the command line is seen by every user of the machine
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Docker's config.json with users and passwords
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    pub docker_config: Option<PathBuf>,
    /// HTTP without TLS; registries on loopback are reached so in any case, unless --ca is given
    #[arg(long, conflicts_with = "ca")]
    pub plain_http: bool,
}

/// In which words an image is described on a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ManifestFormat {
    /// Understood by everything, and the only one that Mesos pulls
    Docker,
    /// Keeps the digest that `k8sm images list` shows
    Oci,
}

/// Arguments of `k8sm images push`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ImagesPush {
    /// A directory that `k8sm images build` wrote
    pub dir: PathBuf,
    /// Which images [default: all]
    pub names: Vec<String>,
    /// Registry and path: registry.example.org/k8sm [default: as their names say]
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// In which words they are described there
    #[arg(long, value_enum, default_value = "docker")]
    pub format: ManifestFormat,
    /// How the registry is reached
    #[command(flatten)]
    pub access: RegistryAccess,
}

/// Arguments of `k8sm images pull`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ImagesPull {
    /// The image: registry.example.org/k8sm/k8sm-proxy:0.1.0
    pub name: String,
    /// The directory; one that is not finished is gone on with
    pub dir: PathBuf,
    /// How the registry is reached
    #[command(flatten)]
    pub access: RegistryAccess,
}
