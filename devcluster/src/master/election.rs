//! Which of several masters leads: each registers in ZooKeeper as an ephemeral sequence node
//! `json.info_<sequence>` with its MasterInfo as JSON, as Mesos' masters do, and the lowest leads.
//!
//! [`standing`] decides from the names of the nodes; [`contend`] keeps a master registered and
//! reports its standing.

use std::time::Duration;

use mesos::master::ZooKeeperUrl;
use mesos::pb;
use rand::Rng as _;
use tokio::sync::watch;
use zookeeper_client as zk;

/// What Mesos asks for by default (`--zk_session_timeout`): that long a dead leader leads.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// For one attempt with one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For each operation, so that a silent server is noticed.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
/// Back-off between sessions: first and longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Prefix of the nodes whose data is JSON.
const PREFIX: &str = "json.info_";

/// How a master stands among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Not registered at present.
    Unknown,
    /// It leads.
    Leads,
    /// Another one leads: its `host:port`, where its entry says that.
    Follows(Option<String>),
}

/// What the nodes' names say.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    /// The own node is not among them.
    Gone,
    First,
    /// After this node.
    After(&'a str),
}

/// The place of the node with the sequence number `own`. Nodes of other kinds do not count.
fn place(own: i64, nodes: &[String]) -> Place<'_> {
    let lowest = nodes
        .iter()
        .filter_map(|node| Some((node.strip_prefix(PREFIX)?.parse::<i64>().ok()?, node)))
        .min();
    let registered = nodes
        .iter()
        .any(|node| node.strip_prefix(PREFIX).and_then(|n| n.parse().ok()) == Some(own));
    match lowest {
        _ if !registered => Place::Gone,
        Some((sequence, node)) if sequence != own => Place::After(node),
        _ => Place::First,
    }
}

/// `host:port` of a leader's entry.
fn address(data: &[u8]) -> Option<String> {
    let info: pb::MasterInfo = mesos::codec::Encoding::Json.decode(data).ok()?;
    let address = info.address.unwrap_or_default();
    let host = address.ip.or(address.hostname).or(info.hostname)?;
    Some(format!("{host}:{}", info.port))
}

/// Why a session with ZooKeeper ended; another one is begun.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{action}: {source}")]
    ZooKeeper {
        action: &'static str,
        source: zk::Error,
    },
    #[error("{0}: no answer within {OPERATION_TIMEOUT:?}")]
    Timeout(&'static str),
    #[error("the session is {0:?}")]
    Session(zk::SessionState),
    #[error("the own node is gone")]
    Gone,
    #[error("nobody wants to know any more")]
    Dropped,
}

/// Keeps this master registered until nobody looks at `standing` any more.
pub async fn contend(url: ZooKeeperUrl, info: pb::MasterInfo, standing: watch::Sender<Standing>) {
    let data = mesos::codec::to_json(&info).to_string().into_bytes();
    let mut backoff = BACKOFF.0;
    loop {
        let error = match session(&url, &data, &standing, &mut backoff).await {
            Ok(never) => match never {},
            Err(Error::Dropped) => return,
            Err(error) => error,
        };
        tracing::warn!(%error, hosts = url.hosts(), path = url.path(), "election");
        if standing.send(Standing::Unknown).is_err() {
            return;
        }
        let pause = backoff.mul_f64(rand::rng().random_range(0.5..=1.0));
        backoff = (backoff * 2).min(BACKOFF.1);
        tokio::time::sleep(pause).await;
    }
}

enum Never {}

async fn session(
    url: &ZooKeeperUrl,
    data: &[u8],
    standing: &watch::Sender<Standing>,
    backoff: &mut Duration,
) -> Result<Never, Error> {
    let mut connector = zk::Client::connector()
        .with_session_timeout(SESSION_TIMEOUT)
        .with_connection_timeout(CONNECT_TIMEOUT);
    if let Some(digest) = url.digest() {
        connector = connector.with_auth("digest", digest.expose().as_bytes());
    }
    let client = in_time("connect", connector.connect(url.hosts())).await?;
    // As Mesos': everybody may read; with credentials only they may write.
    let guarded = [
        zk::Acl::new(zk::Permission::ALL, zk::AuthId::authed()),
        zk::Acl::new(zk::Permission::READ, zk::AuthId::anyone()),
    ];
    let acls = match url.digest() {
        Some(_) => zk::Acls::new(&guarded),
        None => zk::Acls::anyone_all(),
    };
    let parents = zk::CreateMode::Persistent.with_acls(acls);
    in_time("make the path", client.mkdir(url.path(), &parents)).await?;
    let node = zk::CreateMode::EphemeralSequential.with_acls(acls);
    let prefix = format!("{}/{PREFIX}", url.path());
    let (_, sequence) = in_time("register", client.create(&prefix, data, &node)).await?;
    let own = sequence.into_i64();
    loop {
        let list = client.list_and_watch_children(url.path());
        let (nodes, changed) = in_time("list the masters", list).await?;
        let now = match place(own, &nodes) {
            Place::Gone => return Err(Error::Gone),
            Place::First => Standing::Leads,
            Place::After(leader) => {
                let path = format!("{}/{leader}", url.path());
                // It may go meanwhile, and then the watch says so.
                let entry = in_time("read the leader's entry", client.get_data(&path)).await;
                Standing::Follows(entry.ok().and_then(|(data, _)| address(&data)))
            }
        };
        *backoff = BACKOFF.0;
        standing.send_if_modified(|before| {
            let news = *before != now;
            if news {
                tracing::info!(standing = ?now, "election");
                *before = now;
            }
            news
        });
        let event = tokio::select! {
            event = changed.changed() => event,
            () = standing.closed() => return Err(Error::Dropped),
        };
        if let zk::EventType::Session = event.event_type {
            return Err(Error::Session(event.session_state));
        }
    }
}

async fn in_time<T>(
    action: &'static str,
    operation: impl Future<Output = Result<T, zk::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(OPERATION_TIMEOUT, operation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::ZooKeeper { action, source }),
        Err(_) => Err(Error::Timeout(action)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_lowest_node_leads_and_other_nodes_do_not_count() {
        let nodes = names(&[
            "log_replicas",
            "info_0000000001",
            "json.info_x",
            "json.info_0000000007",
            "json.info_0000000004",
        ]);
        assert_eq!(place(4, &nodes), Place::First);
        assert_eq!(place(7, &nodes), Place::After("json.info_0000000004"));
        assert_eq!(place(1, &nodes), Place::Gone);
        assert_eq!(place(1, &[]), Place::Gone);
    }

    #[test]
    fn a_leader_is_found_by_what_it_wrote_and_nonsense_is_nobody() {
        let entry = br#"{"id":"i","ip":16777343,"port":5050,"hostname":"m.test",
            "address":{"hostname":"m.test","ip":"127.0.0.1","port":5050}}"#;
        assert_eq!(address(entry).as_deref(), Some("127.0.0.1:5050"));
        assert_eq!(address(b"{"), None);
        assert_eq!(address(b""), None);
    }
}
