//! What texts look like: one check, one description for people, and one pattern for JSON Schema
//! per format. A pattern is coarser than its check, never finer.

use std::net::Ipv4Addr;

use crate::cidr::Cidr;

/// What a text (or each text of a list) looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A name that Marathon, Mesos-DNS and Kubernetes all accept.
    Name,
    /// A DNS name.
    Domain,
    /// A Mesos role.
    Role,
    /// An IPv4 range.
    Cidr,
    /// An IPv4 address.
    Address,
    /// An IPv4 address, with a port where it is not 53.
    AddressPort,
    /// A host and a port.
    HostPort,
    /// `first-last`, ports.
    PortRange,
    /// A path that begins with `/`.
    Path,
    /// The same, of letters, digits, `.`, `_` and `-`: it goes into URIs as it is.
    PlainPath,
    /// `http://` or `https://`.
    HttpUrl,
    /// `https://`.
    HttpsUrl,
    /// A URL of a scheme that Mesos' fetcher knows, or an absolute path.
    FetchUri,
    /// `http(s)://host:port`, `host:port[,..]` or `zk://hosts/path`.
    MesosMaster,
    /// `--flag` or `--flag=value`.
    Flag,
    /// `registry=URL`.
    Mirror,
    /// A PEM certificate, or several.
    Certificates,
    /// `key=value`.
    Pair,
    /// A path in a secret store.
    SecretPath,
}

/// All formats.
#[cfg(test)]
pub(super) const ALL: [Format; 19] = [
    Format::Name,
    Format::Domain,
    Format::Role,
    Format::Cidr,
    Format::Address,
    Format::AddressPort,
    Format::HostPort,
    Format::PortRange,
    Format::Path,
    Format::PlainPath,
    Format::HttpUrl,
    Format::HttpsUrl,
    Format::FetchUri,
    Format::MesosMaster,
    Format::Flag,
    Format::Mirror,
    Format::Certificates,
    Format::Pair,
    Format::SecretPath,
];

impl Format {
    /// Whether a text is of this format.
    pub fn matches(self, text: &str) -> bool {
        let one_line = !text.chars().any(char::is_control);
        match self {
            Self::Name => label(text),
            Self::Domain => domain(text),
            Self::Role => role(text),
            Self::Cidr => text.parse::<Cidr>().is_ok(),
            Self::Address => text.parse::<Ipv4Addr>().is_ok(),
            Self::AddressPort => {
                let (address, port) = text.split_once(':').unwrap_or((text, "53"));
                address.parse::<Ipv4Addr>().is_ok() && self::port(port)
            }
            Self::HostPort => host_port(text),
            Self::PortRange => port_range(text).is_some(),
            Self::Path => one_line && text.starts_with('/') && !text.split('/').any(|s| s == ".."),
            Self::PlainPath => {
                Self::Path.matches(text)
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
            }
            Self::HttpUrl => one_line && url(text, &["http", "https"]),
            Self::HttpsUrl => one_line && url(text, &["https"]),
            Self::FetchUri => {
                one_line
                    && (url(text, &["http", "https", "ftp", "hdfs"])
                        || text
                            .strip_prefix("file://")
                            .unwrap_or(text)
                            .starts_with('/'))
            }
            Self::MesosMaster => one_line && mesos_master(text),
            Self::Flag => {
                let name = text.strip_prefix("--").unwrap_or_default();
                let name = name.split('=').next().unwrap_or_default();
                !text.contains('\0')
                    && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            }
            Self::Mirror => {
                one_line
                    && text.split_once('=').is_some_and(|(registry, mirror)| {
                        (registry == "_default" || host(registry))
                            && url(mirror, &["http", "https"])
                    })
            }
            Self::Certificates => certificates(text),
            Self::Pair => {
                one_line
                    && text
                        .split_once('=')
                        .is_some_and(|(key, value)| !key.trim().is_empty() && !value.is_empty())
            }
            Self::SecretPath => {
                !text.starts_with('/')
                    && text.split('/').all(|s| {
                        !s.is_empty()
                            && s != ".."
                            && s.bytes()
                                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                    })
            }
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Name => "a name of lower-case letters, digits and inner -",
            Self::Domain => "a DNS name of lower-case letters, digits, - and .",
            Self::Role => "a Mesos role such as `*`, `kubernetes` or `team/kubernetes`",
            Self::Cidr => "an IPv4 range such as 10.96.0.0/16",
            Self::Address => "an IPv4 address",
            Self::AddressPort => "an IPv4 address, or one with a port such as 192.0.2.53:5353",
            Self::HostPort => "host:port",
            Self::PortRange => "a range of ports such as 30000-30999",
            Self::Path => "an absolute path",
            Self::PlainPath => "an absolute path of letters, digits and ._-",
            Self::HttpUrl => {
                "a URL that begins with http:// or https://, without user and password"
            }
            Self::HttpsUrl => "a URL that begins with https://, without user and password",
            Self::FetchUri => "an http, https, ftp, hdfs or file URL or an absolute path",
            Self::MesosMaster => {
                "host:port, several of them with commas, http(s)://host:port or zk://host1:port,host2:port/path; with a password: a file that holds it"
            }
            Self::Flag => "a flag such as --v=2",
            Self::Mirror => "registry=URL, for instance docker.io=https://mirror.example.org",
            Self::Certificates => "PEM certificates (-----BEGIN CERTIFICATE-----)",
            Self::Pair => "key=value",
            Self::SecretPath => "a path such as kubernetes/credential, without / at its start",
        }
    }

    /// For JSON Schema, coarser than [`Self::matches`]; ECMA 262, anchored.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Name => "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
            Self::Domain => "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
            Self::Role => "^[^ -.\\t\\n\\r][^ \\t\\n\\r]*$|^\\*$",
            Self::Cidr => "^[0-9]+(\\.[0-9]+){3}/[0-9]+$",
            Self::Address => "^[0-9]+(\\.[0-9]+){3}$",
            Self::AddressPort => "^[0-9]+(\\.[0-9]+){3}(:[0-9]+)?$",
            Self::HostPort => "^[^ /:]+:[0-9]+$",
            Self::PortRange => "^[0-9]+-[0-9]+$",
            Self::Path => "^/",
            Self::PlainPath => "^/[a-zA-Z0-9/._-]*$",
            Self::HttpUrl => "^https?://[^/ ]",
            Self::HttpsUrl => "^https://[^/ ]",
            Self::FetchUri => "^((https?|ftp|hdfs)://[^/ ]|(file://)?/)",
            Self::MesosMaster => "^(/.+|zk://[^/@ ]+/.+|https?://[^/@ ]+/?|[^/@ ]+:[0-9]+)$",
            Self::Flag => "^--[a-zA-Z]",
            Self::Mirror => "^[^=]+=https?://",
            Self::Certificates => "-----BEGIN CERTIFICATE-----",
            Self::Pair => "^[^=]+=",
            Self::SecretPath => "^[a-zA-Z0-9._-]+(/[a-zA-Z0-9._-]+)*$",
        }
    }
}

/// The two ports of `first-last`, in order and not 0.
pub fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let number = |t: &str| {
        t.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| t.parse::<u16>().ok())
    };
    let (first, last) = (number(first)??, number(last)??);
    (first > 0 && first <= last).then_some((first, last))
}

fn label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 63
        && text.bytes().all(|b| inner(b) || b == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

fn domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(label)
}

/// Mesos' own rule (`common/validation.cpp`): no component is empty, `.`, `..` or begins with -;
/// only `*` alone may be `*`; no white space, backspace or `/` at the ends.
fn role(text: &str) -> bool {
    text == "*"
        || text.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part != "*"
                && !part.starts_with('-')
                && part.chars().all(|c| c.is_ascii_graphic())
        })
}

fn port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|p| p > 0)
}

/// A host, with or without a port.
fn host(text: &str) -> bool {
    let (name, number) = text.split_once(':').unwrap_or((text, "1"));
    port(number)
        && !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn host_port(text: &str) -> bool {
    text.contains(':') && host(text)
}

/// `scheme://[user@]host[:port][/...]`. Users in URLs are refused: a password would be in Marathon.
fn url(text: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| {
        text.strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            .is_some_and(|rest| {
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                host(authority) && !rest.contains(' ')
            })
    })
}

fn mesos_master(text: &str) -> bool {
    // A file that holds the address, for one with a password.
    if Format::Path.matches(text) {
        return true;
    }
    if let Some(rest) = text.strip_prefix("zk://") {
        let Some((hosts, path)) = rest.split_once('/') else {
            return false;
        };
        return !path.is_empty() && hosts.split(',').all(host) && !text.contains(' ');
    }
    url(text.trim_end_matches('/'), &["http", "https"]) || text.split(',').all(host_port)
}

fn certificates(text: &str) -> bool {
    pem::parse_many(text)
        .is_ok_and(|found| !found.is_empty() && found.iter().all(|p| p.tag() == "CERTIFICATE"))
}
