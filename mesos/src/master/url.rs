//! Names of masters: `host:port`, `http(s)://host:port/prefix`, lists of these, and
//! `zk://[user:password@]host1,host2/path`; and the address of one master.

use std::fmt;
use std::path::Path;

use url::Url;

use crate::http::{Scheme, Secret};

/// Port of a Mesos master when none is named.
const MASTER_PORT: u16 = 5050;
/// Port of a ZooKeeper server when none is named.
const ZOOKEEPER_PORT: u16 = 2181;

/// Where the masters are, as a person or a flag says it.
///
/// ```
/// use mesos::master::MasterUrl;
///
/// for text in [
///     "master.example:5050",
///     "m1:5050,m2:5050,m3:5050",
///     "https://dcos.example/mesos",
///     "zk://user:pa55word@zk1:2181,zk2/mesos",
/// ] {
///     let url = MasterUrl::parse(text)?;
///     assert!(!format!("{url} {url:?}").contains("pa55word"));
/// }
/// # Ok::<(), mesos::master::MasterUrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterUrl(pub(super) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Hosts(Vec<Candidate>),
    ZooKeeper(ZooKeeperUrl),
}

/// One master as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Always complete; the scheme is replaced when none was named.
    url: Url,
    scheme_named: bool,
}

/// A node of a ZooKeeper ensemble below which masters register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZooKeeperUrl {
    /// `host:port`, comma between them.
    pub(super) hosts: String,
    /// Absolute, without a slash at its end.
    pub(super) path: String,
    /// `user:password`, for the scheme `digest`.
    pub(super) digest: Option<Secret>,
}

impl ZooKeeperUrl {
    /// The ensemble: `host:port`, comma between them.
    pub fn hosts(&self) -> &str {
        &self.hosts
    }

    /// The node below which masters register: absolute, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `user:password`, for the scheme `digest`.
    pub fn digest(&self) -> Option<&Secret> {
        self.digest.as_ref()
    }
}

/// A text that names no masters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterUrlError {
    /// Nothing in it.
    #[error("no master named: expected host:port, http(s)://host:port, or zk://hosts/path")]
    Empty,
    /// A part of it is not an address.
    #[error("`{part}` is no address of a master: {reason}")]
    Address {
        /// The part, without credentials.
        part: String,
        /// What is wrong.
        reason: String,
    },
    /// A `zk://` URL is not complete.
    #[error("ZooKeeper URL: {reason}; expected zk://[user:password@]host[:port],.../path")]
    ZooKeeper {
        /// What is wrong.
        reason: String,
    },
    /// The file of a `file://` URL cannot be read.
    #[error("cannot read the master's URL from {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl MasterUrl {
    /// Understands what a person wrote. See [`Self::load`] for `file://`.
    pub fn parse(text: &str) -> Result<Self, MasterUrlError> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("zk://") {
            return ZooKeeperUrl::parse(rest).map(|url| Self(Kind::ZooKeeper(url)));
        }
        let candidates = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Candidate::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if candidates.is_empty() {
            return Err(MasterUrlError::Empty);
        }
        Ok(Self(Kind::Hosts(candidates)))
    }

    /// Like [`Self::parse`], and also takes `file:///path` of a file that holds the URL, as
    /// Mesos itself does, so that ZooKeeper's password is in no argument list.
    pub fn load(text: &str) -> Result<Self, MasterUrlError> {
        match text.trim().strip_prefix("file://") {
            None => Self::parse(text),
            Some(path) => {
                let content = std::fs::read_to_string(Path::new(path)).map_err(|source| {
                    MasterUrlError::File {
                        path: path.to_owned(),
                        source,
                    }
                })?;
                Self::parse(&content)
            }
        }
    }

    /// Whether the leader is looked up in ZooKeeper.
    pub fn is_zookeeper(&self) -> bool {
        self.zookeeper().is_some()
    }

    /// Where in ZooKeeper the masters register, if they do: for a master that registers itself.
    pub fn zookeeper(&self) -> Option<&ZooKeeperUrl> {
        match &self.0 {
            Kind::Hosts(_) => None,
            Kind::ZooKeeper(url) => Some(url),
        }
    }
}

impl fmt::Display for MasterUrl {
    /// Without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Hosts(candidates) => {
                for (index, candidate) in candidates.iter().enumerate() {
                    if index > 0 {
                        f.write_str(",")?;
                    }
                    f.write_str(crate::http::redacted(&candidate.url).trim_end_matches('/'))?;
                }
                Ok(())
            }
            Kind::ZooKeeper(url) => write!(f, "zk://{}{}", url.hosts, url.path),
        }
    }
}

impl std::str::FromStr for MasterUrl {
    type Err = MasterUrlError;
    fn from_str(text: &str) -> Result<Self, MasterUrlError> {
        Self::parse(text)
    }
}

impl Candidate {
    fn parse(part: &str) -> Result<Self, MasterUrlError> {
        let scheme_named = part.contains("://");
        let full = if scheme_named {
            part.to_owned()
        } else {
            format!("http://{part}")
        };
        let bad = |reason: &str| MasterUrlError::Address {
            part: part.rsplit('@').next().unwrap_or(part).to_owned(),
            reason: reason.to_owned(),
        };
        let mut url = Url::parse(&full).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("only http, https and zk are known"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(bad("no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "credentials do not belong here, they are part of the client's configuration",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("no query or fragment expected"));
        }
        // `Url` does not tell port 80 named from none named, so look at the text.
        if !scheme_named && !names_port(part) {
            // Cannot fail: the URL has a host.
            let _ = url.set_port(Some(MASTER_PORT));
        }
        Ok(Self { url, scheme_named })
    }

    /// The address; `scheme` counts when none was named.
    pub(super) fn address(&self, scheme: Scheme) -> MasterAddress {
        let mut url = self.url.clone();
        if !self.scheme_named {
            let port = url.port_or_known_default();
            // Neither fails: http and https are of the same kind, and there is a host.
            let _ = url.set_scheme(scheme.as_str());
            let _ = url.set_port(port);
        }
        MasterAddress::new(url)
    }
}

/// Whether `host:port/path` has the port.
fn names_port(part: &str) -> bool {
    let authority = part.split('/').next().unwrap_or(part);
    let after_host = authority.rsplit(']').next().unwrap_or(authority);
    after_host.contains(':')
}

impl ZooKeeperUrl {
    /// Understands what follows `zk://`.
    fn parse(rest: &str) -> Result<Self, MasterUrlError> {
        let bad = |reason: &str| MasterUrlError::ZooKeeper {
            reason: reason.to_owned(),
        };
        // A password may contain `@` and `/`; hosts cannot, a path may contain `@`.
        let (digest, rest) = match split_credentials(rest) {
            None => (None, rest),
            Some((credentials, rest)) => {
                if !credentials.contains(':') {
                    return Err(bad("user without password"));
                }
                (Some(Secret::new(credentials)), rest)
            }
        };
        let (hosts, path) = rest
            .find('/')
            .map(|slash| rest.split_at(slash))
            .ok_or_else(|| bad("no path"))?;
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(bad("masters do not register at the root: no path"));
        }
        if path.contains("//") || path.contains('\0') {
            return Err(bad("a part of the path is empty"));
        }
        let mut named = Vec::new();
        for host in hosts.split(',').map(str::trim).filter(|h| !h.is_empty()) {
            let with_port = if names_port(host) {
                host.to_owned()
            } else {
                format!("{host}:{ZOOKEEPER_PORT}")
            };
            let url = Url::parse(&format!("http://{with_port}"));
            if url.is_err() || host.contains('@') {
                return Err(bad(&format!("`{with_port}` is no host and port")));
            }
            named.push(with_port);
        }
        if named.is_empty() {
            return Err(bad("no host"));
        }
        Ok(Self {
            hosts: named.join(","),
            path: path.to_owned(),
            digest,
        })
    }
}

/// Splits `user:password@hosts/path`. The last `@` before which there is no host list counts:
/// that is, the last one that is followed by hosts and a path.
fn split_credentials(rest: &str) -> Option<(&str, &str)> {
    let first_slash = rest.find('/').unwrap_or(rest.len());
    let at = match rest[..first_slash].rfind('@') {
        Some(at) => at,
        // `user:pass/word@host/path`: a slash in the password. Only if what precedes the first
        // slash cannot be a host and port.
        None => {
            let looks_like_hosts = rest[..first_slash].split(',').all(|host| {
                !host.contains(':')
                    || host
                        .rsplit(':')
                        .next()
                        .is_some_and(|port| port.parse::<u16>().is_ok())
            });
            if looks_like_hosts {
                return None;
            }
            rest.rfind('@')?
        }
    };
    Some((&rest[..at], &rest[at + 1..]))
}

/// The base URL of one master (or of one agent): scheme, host, port, and the path below which
/// its API is, if it stands behind a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MasterAddress(Url);

impl MasterAddress {
    /// From a base URL.
    pub fn new(mut url: Url) -> Self {
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Self(url)
    }

    /// The URL of an endpoint: `/api/v1/scheduler`, for example.
    pub fn endpoint(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}", path.trim_start_matches('/')));
        url
    }

    /// Where a redirect of `endpoint(path)` to `location` leads: the base URL of the other
    /// master, or `None` if the location is no such endpoint.
    pub fn redirected(&self, path: &str, location: &str) -> Option<Self> {
        // Mesos writes `//host:port/path`: with the scheme of the request.
        let target = self.endpoint(path).join(location).ok()?;
        if !matches!(target.scheme(), "http" | "https") {
            return None;
        }
        let found = target.path().trim_end_matches('/');
        // `/master/api/v1/...` is the same endpoint; `/redirect` leads to the bare base.
        let base = found
            .strip_suffix(path)
            .map(|base| base.strip_suffix("/master").unwrap_or(base))
            .or(found.is_empty().then_some(""))?;
        let base = base.to_owned();
        let mut url = target;
        url.set_path(&base);
        Some(Self::new(url))
    }

    /// The URL itself.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::http::redacted(&self.0).trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests;
