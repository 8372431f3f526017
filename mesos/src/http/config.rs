//! What a client is told about its peers: whom to trust, who we are, how long to wait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use http::HeaderValue;

/// The configuration of a [`super::Client`].
///
/// ```
/// use mesos::http::{ClientConfig, Credentials, PemSource, SecretSource};
///
/// let config = ClientConfig {
///     ca: Some(PemSource::File("/etc/ssl/mesos-ca.pem".into())),
///     credentials: Credentials::Basic {
///         principal: "kubernetes".to_owned(),
///         secret: SecretSource::File("/etc/mesos/secret".into()),
///     },
///     ..ClientConfig::default()
/// };
/// assert!(!format!("{config:?}").contains("password"));
/// ```
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The authority that signs the certificates of masters and agents, and the only one that
    /// is trusted. Without it: those of the operating system.
    pub ca: Option<PemSource>,
    /// A certificate of our own, for peers that ask for one.
    pub identity: Option<Identity>,
    /// Who we are.
    pub credentials: Credentials,
    /// How long a connection may take to be established. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long a call may take until its answer is complete, or, for SUBSCRIBE, until the head
    /// of the answer is there. Default: 15 s (Mesos answers at once, but a loaded master takes
    /// seconds for `GET_STATE`).
    pub call_timeout: Duration,
    /// Longest answer that is accepted, in bytes. Default: 512 MiB (the whole state of a
    /// master with tens of thousands of tasks comes as one answer).
    pub max_answer_bytes: usize,
    /// Connect to this Unix socket, whatever the URL says: an agent with
    /// `--http_executor_domain_sockets`.
    pub unix_socket: Option<PathBuf>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            ca: None,
            identity: None,
            credentials: Credentials::None,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(15),
            max_answer_bytes: 512 << 20,
            unix_socket: None,
        }
    }
}

impl ClientConfig {
    /// How a peer is reached that was named without a scheme (`host:port`, or a leader found in
    /// ZooKeeper): by TLS if an authority or a certificate of our own is configured.
    pub fn scheme(&self) -> Scheme {
        if self.ca.is_some() || self.identity.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }
}

/// With or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without.
    Http,
    /// With.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Certificates or a key in PEM form.
#[derive(Clone)]
pub enum PemSource {
    /// In a file, read when the client is made.
    File(PathBuf),
    /// Given.
    Pem(Vec<u8>),
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            // It may be a private key.
            Self::Pem(pem) => write!(f, "Pem(<{} bytes>)", pem.len()),
        }
    }
}

impl PemSource {
    pub(super) fn read(&self) -> Result<Vec<u8>, ConfigError> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|source| ConfigError::Read {
                path: path.clone(),
                source,
            }),
            Self::Pem(pem) => Ok(pem.clone()),
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Pem(_) => "the given PEM".to_owned(),
        }
    }
}

/// A certificate of our own.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, then those that lead to the authority.
    pub certificates: PemSource,
    /// Its private key.
    pub key: PemSource,
}

/// Who we are, for the peer.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// No authentication.
    #[default]
    None,
    /// HTTP basic authentication, as `--authenticate_http_frameworks` wants it.
    Basic {
        /// The Mesos principal.
        principal: String,
        /// Its secret.
        secret: SecretSource,
    },
    /// `Authorization: token=`, as the access control of DC/OS (strict mode) wants it.
    Token {
        /// The token.
        token: SecretSource,
    },
    /// `Authorization: Bearer`, as agents give it to executors, and JWT authenticators want it.
    Bearer {
        /// The token.
        token: SecretSource,
    },
}

/// Where a secret comes from.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// Given.
    Value(Secret),
    /// In a file, read for every call, so that it can be replaced. White space at the end does
    /// not count.
    File(PathBuf),
}

/// A secret. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Credentials {
    /// The value of the `Authorization` header.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, ConfigError> {
        let value = match self {
            Self::None => return Ok(None),
            Self::Basic { principal, secret } => {
                if principal.contains(':') {
                    return Err(ConfigError::Principal {
                        principal: principal.clone(),
                    });
                }
                let pair = format!("{principal}:{}", secret.read().await?.expose());
                let pair = base64::engine::general_purpose::STANDARD.encode(pair);
                format!("Basic {pair}")
            }
            Self::Bearer { token } => format!("Bearer {}", token.read().await?.expose()),
            Self::Token { token } => format!("token={}", token.read().await?.expose()),
        };
        let mut header =
            HeaderValue::from_str(&value).map_err(|_| ConfigError::SecretCharacters)?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

impl SecretSource {
    async fn read(&self) -> Result<Secret, ConfigError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => read_secret(path).await,
        }
    }
}

async fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
    let secret = text.trim_end();
    if secret.is_empty() {
        return Err(ConfigError::EmptySecret {
            path: path.to_owned(),
        });
    }
    Ok(Secret::new(secret))
}

/// Why a configuration cannot be used. Not worth a retry before somebody has changed it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that should hold a secret is empty.
    #[error("{} holds no secret: it is empty", path.display())]
    EmptySecret {
        /// The file.
        path: PathBuf,
    },
    /// Basic authentication cannot express a principal with a colon.
    #[error("principal `{principal}` contains a colon, which basic authentication cannot express")]
    Principal {
        /// The principal.
        principal: String,
    },
    /// A secret has characters that no HTTP header can carry.
    #[error("the secret contains characters that cannot be sent in an HTTP header")]
    SecretCharacters,
    /// Certificates or keys are not what they should be.
    #[error("{origin}: {reason}")]
    Pem {
        /// The file, or that it was given.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client: {reason}")]
    Build {
        /// The chain of causes.
        reason: String,
    },
    /// The environment of an executor is not what an agent gives.
    #[error("environment variable {name}: {reason}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
