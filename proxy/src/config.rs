//! Command line and environment, and what they may be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::backends::pool::{Backend, InvalidBackend};

/// The front door of a cluster's API servers: passes TLS through to those that are ready, and
/// offers plain HTTP to DC/OS' admin router and to this machine.
#[derive(Debug, Clone, Parser)]
// The last one of a flag counts: further arguments of an operator come after ours.
#[command(name = "k8sm-proxy", version, about, args_override_self = true)]
pub struct Args {
    /// Address for TLS, passed through to an API server as it is: 0.0.0.0:6443. Not given: none
    #[arg(long, env = "K8SM_PROXY_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// An API server, host:port; repeat it, or separate with commas
    #[arg(
        long = "backend",
        env = "K8SM_PROXY_BACKENDS",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    pub backends: Vec<String>,

    /// File with one API server per line; read again when it changes
    #[arg(long, env = "K8SM_PROXY_BACKENDS_FILE", value_name = "FILE")]
    pub backends_file: Option<PathBuf>,

    /// DNS name whose addresses are API servers, name:port; asked again every 5 s
    #[arg(long, env = "K8SM_PROXY_BACKENDS_DNS", value_name = "NAME:PORT")]
    pub backends_dns: Option<String>,

    /// PEM file of the authorities that sign API servers' certificates; read again when it changes
    #[arg(long, env = "K8SM_PROXY_CA_FILE", value_name = "FILE")]
    pub ca_file: PathBuf,

    /// Name that every API server's certificate carries
    #[arg(
        long,
        env = "K8SM_PROXY_SERVER_NAME",
        default_value = "kubernetes.default.svc",
        value_name = "NAME"
    )]
    pub server_name: String,

    /// How often each API server's /readyz is asked, in milliseconds
    #[arg(long, env = "K8SM_PROXY_PROBE_INTERVAL_MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub probe_interval_ms: u64,

    /// Connections at a time, each side counted by itself; more are refused
    #[arg(long, env = "K8SM_PROXY_MAX_CONNECTIONS", default_value_t = 8192,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Connections at a time from one address, each side counted by itself; 0: as many as there may be at all
    #[arg(
        long,
        env = "K8SM_PROXY_MAX_CONNECTIONS_PER_ADDRESS",
        default_value_t = 0
    )]
    pub max_connections_per_address: u32,

    /// Address for DC/OS' admin router: plain HTTP, bearer tokens only. Not given: none
    #[arg(long, env = "K8SM_PROXY_HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,

    /// Loopback address for this machine's users: plain HTTP with the limited identity, v1beta1 too. Not given: none
    #[arg(long, env = "K8SM_PROXY_LEGACY_LISTEN", value_name = "ADDRESS")]
    pub legacy_listen: Option<SocketAddr>,

    /// Client certificate of the limited identity, PEM; read again when it changes
    #[arg(long, env = "K8SM_PROXY_LEGACY_CERTIFICATE", value_name = "FILE")]
    pub legacy_certificate: Option<PathBuf>,

    /// Key of that certificate, PEM
    #[arg(long, env = "K8SM_PROXY_LEGACY_KEY", value_name = "FILE")]
    pub legacy_key: Option<PathBuf>,

    /// File with a bearer token of the limited identity, instead of a certificate; read again when it changes
    #[arg(long, env = "K8SM_PROXY_LEGACY_TOKEN_FILE", value_name = "FILE")]
    pub legacy_token_file: Option<PathBuf>,

    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "K8SM_PROXY_STATUS_LISTEN", value_name = "ADDRESS")]
    pub status_listen: Option<SocketAddr>,

    /// After SIGTERM: how long new connections are still taken while /readyz says no, in seconds
    #[arg(
        long,
        env = "K8SM_PROXY_SHUTDOWN_DELAY_SECONDS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=3600)
    )]
    pub shutdown_delay_seconds: u64,

    /// After that: how long connections may live on, in seconds
    #[arg(
        long,
        env = "K8SM_PROXY_DRAIN_SECONDS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(..=3600)
    )]
    pub drain_seconds: u64,
}

/// Arguments that contradict each other or name what cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Nothing to do.
    #[error("no side is wanted: give --listen, --http-listen or --legacy-listen")]
    NoSide,
    /// Nowhere to go.
    #[error(
        "no API server is known: give --backend host:port, --backends-file FILE or --backends-dns NAME:PORT"
    )]
    NoBackends,
    /// More than one list.
    #[error("give the API servers once: --backend, --backends-file or --backends-dns")]
    TwoSources,
    /// Not an address.
    #[error("{flag}: {source}")]
    Backend {
        /// Which flag.
        flag: &'static str,
        /// What is wrong.
        source: InvalidBackend,
    },
    /// The local side would be open to others.
    #[error(
        "--legacy-listen {address} is not a loopback address: everybody who reaches it has the limited identity; use 127.0.0.1 or [::1]"
    )]
    NotLoopback {
        /// Which was given.
        address: SocketAddr,
    },
    /// The local side without an identity.
    #[error(
        "--legacy-listen needs an identity: give --legacy-certificate and --legacy-key, or --legacy-token-file"
    )]
    NoIdentity,
    /// A certificate without its key, or both ways.
    #[error("{given} needs {missing}")]
    Half {
        /// The flag that was given.
        given: &'static str,
        /// The flag that was not.
        missing: &'static str,
    },
    /// Two identities.
    #[error("give the limited identity once: a certificate or a token")]
    TwoIdentities,
}

/// Where the list of API servers comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Arguments.
    Fixed(Vec<Backend>),
    /// A file, one per line.
    File(PathBuf),
    /// The addresses of a DNS name.
    Dns(Backend),
}

/// A client's identity towards the API servers, always in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A client certificate.
    Certificate {
        /// PEM file.
        certificate: PathBuf,
        /// PEM file.
        key: PathBuf,
    },
    /// A bearer token.
    Token(PathBuf),
}

/// Limits of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address.
    pub per_address: usize,
}

/// What was wanted, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// TLS side.
    pub listen: Option<SocketAddr>,
    /// HTTP side.
    pub http_listen: Option<SocketAddr>,
    /// This machine's side, and its identity.
    pub legacy: Option<(SocketAddr, Identity)>,
    /// Health and metrics.
    pub status_listen: Option<SocketAddr>,
    /// API servers.
    pub source: Source,
    /// Authorities of their certificates.
    pub ca_file: PathBuf,
    /// Name in their certificates.
    pub server_name: String,
    /// Time between two probes of one server.
    pub probe_interval: Duration,
    /// Limits of each side.
    pub limits: Limits,
    /// New connections are taken that long after SIGTERM.
    pub shutdown_delay: Duration,
    /// Connections live on that long after that.
    pub drain: Duration,
}

impl Args {
    /// Checks the arguments against each other.
    pub fn check(self) -> Result<Config, ConfigError> {
        if self.listen.is_none() && self.http_listen.is_none() && self.legacy_listen.is_none() {
            return Err(ConfigError::NoSide);
        }
        let source = self.source()?;
        let identity = self.identity()?;
        let legacy = match (self.legacy_listen, identity) {
            (None, _) => None,
            (Some(_), None) => return Err(ConfigError::NoIdentity),
            (Some(address), Some(_)) if !address.ip().is_loopback() => {
                return Err(ConfigError::NotLoopback { address });
            }
            (Some(address), Some(identity)) => Some((address, identity)),
        };
        let connections = usize::try_from(self.max_connections).unwrap_or(usize::MAX);
        let per_address = match self.max_connections_per_address {
            0 => connections,
            some => usize::try_from(some).unwrap_or(usize::MAX),
        };
        Ok(Config {
            listen: self.listen,
            http_listen: self.http_listen,
            legacy,
            status_listen: self.status_listen,
            source,
            ca_file: self.ca_file,
            server_name: self.server_name,
            probe_interval: Duration::from_millis(self.probe_interval_ms),
            limits: Limits {
                connections,
                per_address,
            },
            shutdown_delay: Duration::from_secs(self.shutdown_delay_seconds),
            drain: Duration::from_secs(self.drain_seconds),
        })
    }

    fn source(&self) -> Result<Source, ConfigError> {
        let parse = |flag, text: &str| {
            Backend::parse(text).map_err(|source| ConfigError::Backend { flag, source })
        };
        let fixed: Vec<Backend> = self
            .backends
            .iter()
            .map(|text| parse("--backend", text))
            .collect::<Result<_, _>>()?;
        match (fixed.is_empty(), &self.backends_file, &self.backends_dns) {
            (true, None, None) => Err(ConfigError::NoBackends),
            (false, None, None) => Ok(Source::Fixed(fixed)),
            (true, Some(file), None) => Ok(Source::File(file.clone())),
            (true, None, Some(name)) => Ok(Source::Dns(parse("--backends-dns", name)?)),
            _ => Err(ConfigError::TwoSources),
        }
    }

    fn identity(&self) -> Result<Option<Identity>, ConfigError> {
        let half = |given, missing| Err(ConfigError::Half { given, missing });
        match (
            &self.legacy_certificate,
            &self.legacy_key,
            &self.legacy_token_file,
        ) {
            (None, None, None) => Ok(None),
            (None, None, Some(token)) => Ok(Some(Identity::Token(token.clone()))),
            (Some(certificate), Some(key), None) => Ok(Some(Identity::Certificate {
                certificate: certificate.clone(),
                key: key.clone(),
            })),
            (Some(_), None, None) => half("--legacy-certificate", "--legacy-key"),
            (None, Some(_), None) => half("--legacy-key", "--legacy-certificate"),
            _ => Err(ConfigError::TwoIdentities),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
