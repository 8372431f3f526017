//! Which API server the next connection goes to. A value: no sockets, no clocks.
//!
//! A server is *ready* from its first good probe on, so a new one gets connections at once; with
//! the fewest connections it even gets the next ones. It stops being chosen with the first answer
//! that says "not ready", which is what an API server says before it stops; connections that it
//! has live on. A server that does not answer is given one more chance before it is out, unless a
//! connection to it was refused.
//!
//! When no server is ready all others are tried, best first: what a client reads from a server
//! that is not ready tells more than a closed connection. Only a server whose certificate our
//! authority has not signed is never chosen: at that address lives somebody else.

use std::fmt;

/// More servers than this are not looked at; clusters have one to five.
pub const MAX_BACKENDS: usize = 64;
/// Probes without an answer, one after the other, that make a ready server a failing one.
const CHANCES: u32 = 2;

/// An API server, `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend(String);

/// Text that names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not host:port (an IPv6 address in brackets): {reason}")]
pub struct InvalidBackend {
    text: String,
    reason: &'static str,
}

impl Backend {
    /// Reads `host:port`, `192.0.2.1:6443`, `[2001:db8::1]:6443`.
    pub fn parse(text: &str) -> Result<Self, InvalidBackend> {
        let text = text.trim();
        let invalid = |reason| InvalidBackend {
            text: text.chars().take(100).collect(),
            reason,
        };
        let (host, port) = text.rsplit_once(':').ok_or(invalid("there is no port"))?;
        if !port.parse::<u16>().is_ok_and(|p| p > 0) || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid("the port is not between 1 and 65535"));
        }
        if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            if inner.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(invalid("between the brackets is no IPv6 address"));
            }
        } else {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            if host.is_empty() || host.len() > 253 || !host.bytes().all(allowed) {
                return Err(invalid("the host is no name and no address"));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<std::net::SocketAddr> for Backend {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `/readyz` answered 200.
    Ready,
    /// It answered something else.
    NotReady(String),
    /// It did not answer.
    Unreachable(String),
    /// It answered with a certificate that our authority has not signed.
    Untrusted(String),
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet.
    Unknown,
    /// Takes connections.
    Ready,
    /// Says that it is not ready.
    NotReady(String),
    /// Does not answer.
    Failing(String),
    /// Somebody else's.
    Untrusted(String),
}

impl Health {
    /// Order in which servers are tried; none: never.
    fn rank(&self) -> Option<u8> {
        match self {
            Self::Ready => Some(0),
            Self::Unknown => Some(1),
            Self::NotReady(_) => Some(2),
            Self::Failing(_) => Some(3),
            Self::Untrusted(_) => None,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not probed yet"),
            Self::Ready => f.write_str("ready"),
            Self::NotReady(why) => write!(f, "not ready: {why}"),
            Self::Failing(why) => write!(f, "does not answer: {why}"),
            Self::Untrusted(why) => write!(f, "not one of ours: {why}"),
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    backend: Backend,
    /// Still in the list; others only wait for their last connection to end.
    listed: bool,
    health: Health,
    /// Probes without an answer since the last one with.
    silent: u32,
    connections: usize,
}

/// A change of the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Not there before.
    pub added: Vec<Backend>,
    /// Not there any more.
    pub removed: Vec<Backend>,
}

impl Change {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// The API servers and how they are.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    entries: Vec<Entry>,
    /// Turns with each choice: of servers that are equal each gets its share.
    turn: usize,
}

impl Pool {
    /// A new list. Servers that stay keep their health; those that leave are not chosen any more.
    /// An empty list is taken at its word: whoever reads lists decides what an empty one means.
    pub fn update(&mut self, list: &[Backend]) -> Change {
        let mut change = Change::default();
        for entry in &mut self.entries {
            if entry.listed && !list.contains(&entry.backend) {
                entry.listed = false;
                change.removed.push(entry.backend.clone());
            }
        }
        for backend in list {
            let full = self.listed().count() >= MAX_BACKENDS;
            match self.entries.iter_mut().find(|e| e.backend == *backend) {
                Some(entry) if entry.listed => continue,
                Some(entry) => {
                    entry.listed = true;
                    entry.health = Health::Unknown;
                    entry.silent = 0;
                }
                None if full => continue,
                None => self.entries.push(Entry {
                    backend: backend.clone(),
                    listed: true,
                    health: Health::Unknown,
                    silent: 0,
                    connections: 0,
                }),
            }
            change.added.push(backend.clone());
        }
        self.forget();
        change
    }

    fn listed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.listed)
    }

    fn entry(&mut self, backend: &Backend) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.backend == *backend)
    }

    fn forget(&mut self) {
        self.entries.retain(|e| e.listed || e.connections > 0);
    }

    /// What a probe found. The new health, when it changed.
    pub fn probed(&mut self, backend: &Backend, probe: Probe) -> Option<Health> {
        let entry = self.entry(backend)?;
        let next = match probe {
            Probe::Ready => Health::Ready,
            Probe::NotReady(why) => Health::NotReady(why),
            Probe::Untrusted(why) => Health::Untrusted(why),
            Probe::Unreachable(why) => {
                entry.silent = entry.silent.saturating_add(1);
                if entry.health == Health::Ready && entry.silent < CHANCES {
                    return None;
                }
                Health::Failing(why)
            }
        };
        if !matches!(next, Health::Failing(_)) {
            entry.silent = 0;
        }
        let changed = std::mem::discriminant(&next) != std::mem::discriminant(&entry.health);
        entry.health = next.clone();
        changed.then_some(next)
    }

    /// A client's connection could not be made. The new health, when it changed.
    pub fn refused(&mut self, backend: &Backend, why: String) -> Option<Health> {
        let entry = self.entry(backend)?;
        entry.silent = entry.silent.saturating_add(1);
        if !matches!(entry.health, Health::Ready | Health::Unknown) {
            return None;
        }
        entry.health = Health::Failing(why);
        Some(entry.health.clone())
    }

    /// Whom to try for the next connection, best first.
    pub fn candidates(&mut self) -> Vec<Backend> {
        self.turn = self.turn.wrapping_add(1);
        let count = self.entries.len().max(1);
        let turn = self.turn % count;
        let mut order: Vec<_> = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, e)| e.listed)
            .filter_map(|(at, e)| Some((e.health.rank()?, e.connections, (at + turn) % count, e)))
            .collect();
        order.sort_by_key(|(rank, connections, turn, _)| (*rank, *connections, *turn));
        order.into_iter().map(|(.., e)| e.backend.clone()).collect()
    }

    /// A connection was made.
    pub fn opened(&mut self, backend: &Backend) {
        if let Some(entry) = self.entry(backend) {
            entry.connections += 1;
        }
    }

    /// A connection ended. Whether the server is forgotten with it.
    pub fn closed(&mut self, backend: &Backend) -> bool {
        if let Some(entry) = self.entry(backend) {
            entry.connections = entry.connections.saturating_sub(1);
        }
        self.forget();
        self.entry(backend).is_none()
    }

    /// Whether a server is listed and says that it is ready.
    pub fn is_ready(&self, backend: &Backend) -> bool {
        self.listed()
            .any(|e| e.backend == *backend && e.health == Health::Ready)
    }

    /// How many servers are ready.
    pub fn ready(&self) -> usize {
        self.listed().filter(|e| e.health == Health::Ready).count()
    }

    /// All listed servers with health and connections, as they are listed.
    pub fn report(&self) -> Vec<(Backend, Health, usize)> {
        self.listed()
            .map(|e| (e.backend.clone(), e.health.clone(), e.connections))
            .collect()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
