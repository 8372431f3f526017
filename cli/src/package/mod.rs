//! `k8sm package`: the DC/OS package built, bundled, checked, rendered and served. What is in a
//! package is decided in [`packaging::universe`] and [`packaging::cosmos`]; here are the files and
//! the server.

mod args;
mod build;
mod bundle;
mod serve;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use packaging::cosmos;
use packaging::options::Layers;
use packaging::universe::source::{SOURCES, config_text};
use packaging::universe::{Files, Release, lint, source};

pub use args::PackageArgs;
use args::{PackageCommand, Render, Which};

/// Why a command about the package failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package could not be made.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A package could not be rendered.
    #[error(transparent)]
    Cosmos(#[from] cosmos::Error),
    /// The artifacts.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::Error),
    /// The list of artifacts.
    #[error(transparent)]
    Manifest(#[from] packaging::install::artifacts::Error),
    /// The options.
    #[error("{path}: {problems}", path = .path.display())]
    Options {
        /// In which file.
        path: PathBuf,
        /// What is wrong.
        problems: packaging::options::Problems,
    },
    /// The package is not as it has to be.
    #[error("the package is not fit to be published:\n{0}")]
    Findings(String),
    /// The disk.
    #[error("{action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Listening.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The runtime.
    #[error("start the runtime: {0}")]
    Runtime(std::io::Error),
    /// Something about the command line.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Runs the command.
pub fn run(args: &PackageArgs) -> Result<(), Error> {
    match &args.command {
        PackageCommand::Build(args) => build::run(args),
        PackageCommand::Bundle(args) => bundle::run(args),
        PackageCommand::Lint(args) => {
            checked(&files(&args.which)?)?;
            print("nothing found\n")
        }
        PackageCommand::Render(args) => render(args),
        PackageCommand::Serve(args) => crate::runtime::runtime()
            .map_err(Error::Runtime)?
            .block_on(serve::run(args)),
        PackageCommand::Config => print(&config_text()),
    }
}

/// Refuses a package with findings.
fn checked(files: &Files) -> Result<(), Error> {
    let findings = lint::lint(files);
    if findings.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = findings.iter().map(|f| format!("  - {f}")).collect();
    Err(Error::Findings(lines.join("\n")))
}

/// The package that artifacts make.
fn built(from: &args::Origin, url: &str) -> Result<Files, Error> {
    let manifest = crate::artifacts::manifest(&from.artifacts)?;
    let url = url.trim_end_matches('/');
    let own = manifest.base_url.clone();
    let said = from.artifacts_url.clone().or(own);
    let release = Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        number: from.release,
        url: url.to_owned(),
        artifacts_url: said.unwrap_or_else(|| format!("{url}/artifacts")),
        images: from.images.clone(),
        upgrades_from: from.upgrades_from.clone(),
        downgrades_to: from.downgrades_to.clone(),
    };
    Ok(SOURCES.build(&manifest, &release)?)
}

fn files(which: &Which) -> Result<Files, Error> {
    let read = |dir: &Path, name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(Error::io("read", &path))
    };
    match (&which.dir, &which.artifacts) {
        (Some(dir), _) => Ok(Files {
            package: read(dir, "package.json")?,
            config: read(dir, "config.json")?,
            resource: read(dir, "resource.json")?,
            template: read(dir, "marathon.json.mustache")?,
        }),
        (None, Some(artifacts)) => {
            let from = args::Origin {
                artifacts: artifacts.clone(),
                artifacts_url: None,
                release: 0,
                images: None,
                upgrades_from: Vec::new(),
                downgrades_to: Vec::new(),
            };
            built(&from, &which.url)
        }
        (None, None) => Err(Error::Usage(
            "which package? Name its directory, or --artifacts".to_owned(),
        )),
    }
}

/// The number of a package's directory.
fn number(dir: Option<&Path>) -> u64 {
    let name = dir.and_then(Path::file_name).and_then(|n| n.to_str());
    name.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn render(args: &Render) -> Result<(), Error> {
    let package = files(&args.which)?.package(number(args.which.dir.as_deref()))?;
    let mut layers = Layers::new();
    for path in &args.options {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        layers.document(&text).map_err(|problems| Error::Options {
            path: path.clone(),
            problems,
        })?;
    }
    let options = (!args.options.is_empty()).then(|| layers.said());
    let default = format!("{}/repo", args.which.url.trim_end_matches('/'));
    let source = args.source.as_deref().unwrap_or(&default);
    let app = cosmos::render(&package, source, options, args.app_id.as_deref())?;
    let mut text = format!("{app:#}");
    text.push('\n');
    print(&text)
}

/// Writes a result to standard output; a closed pipe is the reader's choice and no error.
fn print(text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to", Path::new("standard output"))(e))
        }
        _ => Ok(()),
    }
}
