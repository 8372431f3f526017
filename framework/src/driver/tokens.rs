//! Which nodes may have certificates now: the approver's picture, kept from the core's nodes and
//! from the bootstrap tokens that exist.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::watch;

use crate::kube::bootstrap::{self, TokenId};
use crate::kube::csr::{KnownNode, KnownNodes};
use crate::kube::{ApiError, nodes};
use seam::names::BOOTSTRAP_TOKEN;

/// A Ready node's kube-proxy may still be asking for its certificate for so long.
const AFTER_READY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Inner {
    addresses: BTreeMap<String, IpAddr>,
    tokens: BTreeMap<TokenId, String>,
    ready_since: BTreeMap<String, Instant>,
}

/// Tokens and addresses by node.
#[derive(Debug)]
pub struct Tokens {
    inner: Mutex<Inner>,
    tell: watch::Sender<Arc<KnownNodes>>,
}

impl Tokens {
    /// Nothing known yet, and who hears of changes.
    pub fn new() -> (Arc<Self>, watch::Receiver<Arc<KnownNodes>>) {
        let (tell, listen) = watch::channel(Arc::default());
        let tokens = Self {
            inner: Mutex::default(),
            tell,
        };
        (Arc::new(tokens), listen)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one insertion or removal: also after a panic the maps are whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token was made for a node.
    pub fn add(&self, node: &str, token: TokenId, address: Option<IpAddr>) {
        let mut inner = self.lock();
        if let Some(address) = address {
            inner.addresses.insert(node.to_owned(), address);
        }
        inner.ready_since.remove(node);
        inner.tokens.insert(token, node.to_owned());
        self.publish(&inner);
    }

    /// All nodes of the core, with their addresses, and which of them are Ready.
    pub fn nodes<'a>(
        &self,
        nodes: impl Iterator<Item = (&'a str, Option<IpAddr>)>,
        ready: impl Iterator<Item = &'a str>,
    ) {
        let mut inner = self.lock();
        let addresses: BTreeMap<String, IpAddr> = nodes
            .filter_map(|(name, ip)| {
                let ip = ip.or_else(|| inner.addresses.get(name).copied())?;
                Some((name.to_owned(), ip))
            })
            .collect();
        let ready: HashSet<&str> = ready.collect();
        let now = Instant::now();
        inner
            .ready_since
            .retain(|name, _| ready.contains(name.as_str()));
        for name in ready {
            inner.ready_since.entry(name.to_owned()).or_insert(now);
        }
        if inner.addresses != addresses {
            inner.addresses = addresses;
            self.publish(&inner);
        }
    }

    fn publish(&self, inner: &Inner) {
        let mut known: KnownNodes = inner
            .addresses
            .iter()
            .map(|(name, ip)| {
                let node = KnownNode {
                    addresses: BTreeSet::from([*ip]),
                    tokens: BTreeSet::new(),
                };
                (name.clone(), node)
            })
            .collect();
        for (token, node) in &inner.tokens {
            if let Some(node) = known.get_mut(node) {
                node.tokens.insert(token.clone());
            }
        }
        self.tell.send_replace(Arc::new(known));
    }

    /// A Node object says which token was made for it: after a restart that is all there is.
    pub fn seen(&self, node: &str, token: Option<TokenId>) {
        let Some(token) = token else {
            return;
        };
        let mut inner = self.lock();
        if inner.tokens.get(&token).is_none_or(|of| of != node) {
            inner.tokens.insert(token, node.to_owned());
            self.publish(&inner);
        }
    }

    /// A node is gone, and with it the right to its certificates.
    pub fn gone(&self, node: &str) {
        let mut inner = self.lock();
        inner.tokens.retain(|_, of| of != node);
        self.publish(&inner);
    }

    /// Deletes tokens that have done their work. Those of starts that failed expire, and the
    /// controller manager's token cleaner removes them.
    pub async fn sweep(&self, client: &Client) {
        let done: Vec<(TokenId, String)> = {
            let inner = self.lock();
            let ready = |node: &String| {
                inner
                    .ready_since
                    .get(node)
                    .is_some_and(|since| since.elapsed() >= AFTER_READY)
            };
            inner
                .tokens
                .iter()
                .filter(|(_, node)| ready(node))
                .map(|(id, node)| (id.clone(), node.clone()))
                .collect()
        };
        for (id, node) in done {
            match self.end(client, &id, &node).await {
                Ok(()) => {
                    let mut inner = self.lock();
                    inner.tokens.remove(&id);
                    self.publish(&inner);
                }
                Err(error) => {
                    tracing::warn!(%error, "a bootstrap token was not deleted, later again");
                }
            }
        }
    }

    async fn end(&self, client: &Client, id: &TokenId, node: &str) -> Result<(), ApiError> {
        bootstrap::delete(client, id).await?;
        let remove = BTreeMap::from([(BOOTSTRAP_TOKEN.to_owned(), None)]);
        nodes::annotate(client, node, &remove).await.map(drop)
    }
}
