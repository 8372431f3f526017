//! Leader detection in ZooKeeper: masters register as ephemeral sequence nodes
//! `json.info_<sequence>` below one path; the lowest leads, its data is its MasterInfo.

use std::time::Duration;

use rand::Rng as _;
use tokio::sync::watch;
use zookeeper_client as zk;

use super::DetectError;
use super::detector::Detection;
use super::url::{MasterAddress, ZooKeeperUrl};
use crate::codec::Encoding;
use crate::http::Scheme;
use crate::pb;

/// What Mesos asks for by default (`--zk_session_timeout`).
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// For one attempt with one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the connection and for each operation, so that a silent server is noticed.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
/// Back-off between attempts: first and longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Prefix of the nodes whose data is JSON (Mesos 0.24 and later).
const PREFIX: &str = "json.info_";

/// Follows the leader for ever.
pub(super) async fn follow(url: ZooKeeperUrl, scheme: Scheme, state: watch::Sender<Detection>) {
    let mut backoff = BACKOFF.0;
    loop {
        let error = match follow_session(&url, scheme, &state, &mut backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::warn!(%error, retry_in = ?backoff, "leader detection");
        // The last known leader stays: that ZooKeeper is away does not mean that it is.
        state.send_modify(|detection| detection.error = Some(error));
        let wait = backoff.mul_f64(rand::rng().random_range(0.5..=1.0));
        backoff = (backoff * 2).min(BACKOFF.1);
        tokio::time::sleep(wait).await;
    }
}

enum Never {}

async fn follow_session(
    url: &ZooKeeperUrl,
    scheme: Scheme,
    state: &watch::Sender<Detection>,
    backoff: &mut Duration,
) -> Result<Never, DetectError> {
    let mut connector = zk::Client::connector()
        .with_session_timeout(SESSION_TIMEOUT)
        .with_connection_timeout(CONNECT_TIMEOUT);
    if let Some(digest) = &url.digest {
        connector = connector.with_auth("digest", digest.expose().as_bytes());
    }
    let client = in_time(url, connector.connect(&url.hosts)).await?;
    loop {
        let (leader, changed) = lowest(url, &client).await?;
        *backoff = BACKOFF.0;
        match leader {
            None => publish(
                state,
                Vec::new(),
                Some(DetectError::NoMaster {
                    hosts: url.hosts.clone(),
                    path: url.path.clone(),
                }),
            ),
            Some(node) => {
                let path = format!("{}/{node}", url.path);
                match in_time(url, client.get_data(&path)).await {
                    Ok((data, _)) => match addresses(&data, scheme) {
                        Ok(candidates) => publish(state, candidates, None),
                        Err(reason) => {
                            publish(state, Vec::new(), Some(DetectError::Entry { node, reason }));
                        }
                    },
                    // Gone in between: the watch has fired or is about to.
                    Err(error) if is_gone(&client, &path).await => {
                        tracing::debug!(%error, "the leader's node vanished while it was read");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let event = changed.changed().await;
        if let zk::EventType::Session = event.event_type {
            return Err(DetectError::ZooKeeper {
                hosts: url.hosts.clone(),
                reason: format!("session is {:?}", event.session_state),
            });
        }
    }
}

/// The lowest sequence node, and a watch on what may change it.
async fn lowest(
    url: &ZooKeeperUrl,
    client: &zk::Client,
) -> Result<(Option<String>, zk::OneshotWatcher), DetectError> {
    loop {
        // Whether the path exists decides what can be watched.
        let (stat, created) = in_time(url, client.check_and_watch_stat(&url.path)).await?;
        if stat.is_none() {
            return Ok((None, created));
        }
        let listed =
            tokio::time::timeout(OPERATION_TIMEOUT, client.list_and_watch_children(&url.path))
                .await;
        match listed {
            Ok(Ok((children, watcher))) => return Ok((choose(&children), watcher)),
            // Removed in between.
            Ok(Err(zk::Error::NoNode)) => continue,
            Ok(Err(error)) => return Err(failed(url, &error)),
            Err(_) => return Err(failed(url, &zk::Error::Timeout)),
        }
    }
}

async fn is_gone(client: &zk::Client, path: &str) -> bool {
    matches!(
        tokio::time::timeout(OPERATION_TIMEOUT, client.check_stat(path)).await,
        Ok(Ok(None))
    )
}

fn publish(
    state: &watch::Sender<Detection>,
    candidates: Vec<MasterAddress>,
    error: Option<DetectError>,
) {
    let next = Detection { candidates, error };
    state.send_if_modified(|detection| {
        if *detection == next {
            return false;
        }
        match (next.candidates.first(), &next.error) {
            (Some(leader), _) => tracing::info!(%leader, "leading master"),
            (None, Some(error)) => tracing::warn!(%error, "leader detection"),
            (None, None) => {}
        }
        *detection = next;
        true
    });
}

/// The node of the leader: lowest sequence number. Nodes of other kinds do not count.
fn choose(children: &[String]) -> Option<String> {
    children
        .iter()
        .filter_map(|child| {
            let sequence = child.strip_prefix(PREFIX)?.parse::<u64>().ok()?;
            Some((sequence, child))
        })
        .min()
        .map(|(_, child)| child.clone())
}

/// Addresses of a master, the best first: by TLS its host name, for which its certificate is;
/// otherwise the IP address that it listens on, which needs no name service.
fn addresses(data: &[u8], scheme: Scheme) -> Result<Vec<MasterAddress>, String> {
    let info: pb::MasterInfo = Encoding::Json
        .decode(data)
        .map_err(|error| error.to_string())?;
    let address = info.address.unwrap_or_default();
    let port = match u16::try_from(address.port) {
        Ok(port) if port > 0 => port,
        _ => u16::try_from(info.port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or("it has no port")?,
    };
    let name = address.hostname.or(info.hostname);
    let ip = address.ip.or_else(|| {
        // The old field: the four bytes in network order, read as a number of the master's.
        (info.ip != 0).then(|| std::net::Ipv4Addr::from(info.ip.to_le_bytes()).to_string())
    });
    let mut hosts: Vec<String> = match scheme {
        Scheme::Http => [ip, name],
        Scheme::Https => [name, ip],
    }
    .into_iter()
    .flatten()
    .filter(|host| !host.is_empty())
    .collect();
    hosts.dedup();
    let found: Vec<_> = hosts
        .iter()
        .filter_map(|host| {
            let host = match host.parse::<std::net::Ipv6Addr>() {
                Ok(ip) => format!("[{ip}]"),
                Err(_) => host.clone(),
            };
            url::Url::parse(&format!("{}://{host}:{port}", scheme.as_str())).ok()
        })
        .map(MasterAddress::new)
        .collect();
    if found.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(found)
}

async fn in_time<T>(
    url: &ZooKeeperUrl,
    operation: impl Future<Output = Result<T, zk::Error>>,
) -> Result<T, DetectError> {
    match tokio::time::timeout(OPERATION_TIMEOUT, operation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(url, &error)),
        Err(_) => Err(failed(url, &zk::Error::Timeout)),
    }
}

fn failed(url: &ZooKeeperUrl, error: &zk::Error) -> DetectError {
    let hosts = url.hosts.clone();
    match error {
        zk::Error::NoAuth | zk::Error::AuthFailed => DetectError::Unauthorized {
            hosts,
            path: url.path.clone(),
        },
        other => DetectError::ZooKeeper {
            hosts,
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
