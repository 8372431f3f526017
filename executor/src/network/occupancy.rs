//! One node per network namespace: kube-proxy's rules, host ports and the routes to pods are per
//! namespace, so a second node of any cluster would take the first one's traffic.
//!
//! Two tests. A socket in Linux' abstract namespace, which belongs to one network namespace and
//! vanishes with its holder, keeps out a second executor of ours whatever else is left behind.
//! And rules of a kube-proxy that nobody of ours can have made tell of a cluster of another kind.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::spec::Names;

/// Name of the socket, without its leading zero byte.
const SOCKET: &[u8] = b"k8sm-node";
/// How long the holder of the namespace has to say who it is.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// How long to wait for an earlier life of the same node to end.
pub const PREDECESSOR_DEADLINE: Duration = Duration::from_secs(10);
/// An identity is shorter, in bytes.
const MAX_IDENTITY: u64 = 1024;

/// Who holds a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// The executor's process.
    pub pid: u32,
}

/// Why this machine (or network namespace) can have no node now.
#[derive(Debug, thiserror::Error)]
pub enum Occupied {
    /// Another executor of ours.
    #[error(
        "this machine is node {node} of the cluster {cluster} already (executor {pid}); one network \
         namespace holds one node, because kube-proxy's rules are the machine's"
    )]
    Node {
        /// Its cluster.
        cluster: String,
        /// Its name.
        node: String,
        /// Its process.
        pid: u32,
    },
    /// One that does not say who it is.
    #[error("another node's executor runs in this network namespace and does not answer")]
    Silent,
    /// A kube-proxy that is not ours.
    #[error(
        "a kube-proxy of another cluster has rules on this machine ({what}); one network namespace \
         holds one node. If it is gone for good, `kube-proxy --cleanup` removes its rules"
    )]
    KubeProxy {
        /// Where they were seen.
        what: String,
    },
    /// The socket could not be made.
    #[error("making the socket that claims this network namespace: {0}")]
    Socket(#[source] io::Error),
}

impl Occupied {
    /// Whether trying again later may help without anybody doing something.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Silent | Self::Socket(_))
    }
}

/// The claim on this network namespace. Dropping it gives the namespace up.
#[derive(Debug)]
pub struct Claim {
    // Closing the listener ends the thread that answers on it.
    listener: UnixListener,
}

impl Claim {
    /// Claims the namespace of the calling process, waiting for an earlier life of the same node.
    /// Blocks up to [`PREDECESSOR_DEADLINE`].
    pub fn acquire(me: &Holder) -> Result<Self, Occupied> {
        Self::acquire_named(SOCKET, me, PREDECESSOR_DEADLINE)
    }

    fn acquire_named(name: &[u8], me: &Holder, patience: Duration) -> Result<Self, Occupied> {
        let address = SocketAddr::from_abstract_name(name).map_err(Occupied::Socket)?;
        let deadline = Instant::now() + patience;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Self::answer(listener, me),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(Occupied::Socket(e)),
            }
            let error = match ask(&address) {
                Some(holder) if holder.node != me.node || holder.cluster != me.cluster => {
                    return Err(Occupied::Node {
                        cluster: holder.cluster,
                        node: holder.node,
                        pid: holder.pid,
                    });
                }
                Some(holder) => Occupied::Node {
                    cluster: holder.cluster,
                    node: holder.node,
                    pid: holder.pid,
                },
                None => Occupied::Silent,
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn answer(listener: UnixListener, me: &Holder) -> Result<Self, Occupied> {
        let shared = listener.try_clone().map_err(Occupied::Socket)?;
        let answer = serde_json::to_vec(me).unwrap_or_default();
        std::thread::Builder::new()
            .name("claim".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                for peer in shared.incoming() {
                    // `drop` shuts the socket down, which ends this.
                    let Ok(mut peer) = peer else { break };
                    let _ = peer.set_write_timeout(Some(ANSWER_DEADLINE));
                    let _ = peer.write_all(&answer);
                }
            })
            .map_err(Occupied::Socket)?;
        Ok(Self { listener })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The answering thread holds a clone; only a shutdown reaches it.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.listener),
            nix::sys::socket::Shutdown::Both,
        );
    }
}

fn ask(address: &SocketAddr) -> Option<Holder> {
    let stream = UnixStream::connect_addr(address).ok()?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE)).ok()?;
    let mut answer = Vec::new();
    stream.take(MAX_IDENTITY).read_to_end(&mut answer).ok()?;
    serde_json::from_slice(&answer).ok()
}

/// Looks for a kube-proxy that nobody of ours can have made. Call it only while holding the
/// [`Claim`]: then every table named like one of our nodes' is a dead node's, and so is the
/// kube-proxy that ran beside it.
///
/// `nat` is the text of iptables' nat table, as `nft` or `iptables -S` list it. Chains without a
/// jump to them do nothing and belong to nobody.
pub fn foreign_kube_proxy(
    nft_tables: &[(String, String)],
    links: &[String],
    nat: &str,
) -> Result<(), Occupied> {
    let a_dead_node_of_ours = nft_tables.iter().any(|(_, t)| Names::hash_of(t).is_some())
        || links.iter().any(|l| Names::hash_of(l).is_some());
    if a_dead_node_of_ours {
        return Ok(());
    }
    if let Some((family, _)) = nft_tables.iter().find(|(_, t)| t == "kube-proxy") {
        return Err(Occupied::KubeProxy {
            what: format!("nftables table {family} kube-proxy"),
        });
    }
    let jumps = ["jump KUBE-SERVICES", "-j KUBE-SERVICES"];
    if jumps.iter().any(|jump| nat.contains(jump)) {
        return Err(Occupied::KubeProxy {
            what: "iptables chain KUBE-SERVICES".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(cluster: &str, node: &str) -> Holder {
        Holder {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            pid: std::process::id(),
        }
    }

    #[test]
    fn a_second_node_is_told_who_is_there() {
        let name = format!("k8sm-test-{}-a", std::process::id());
        let first = holder("red", "n1");
        let claim = Claim::acquire_named(name.as_bytes(), &first, Duration::ZERO).unwrap();
        let second = holder("blue", "n1");
        let error = Claim::acquire_named(name.as_bytes(), &second, Duration::from_secs(60));
        let error = error.unwrap_err();
        assert!(!error.retryable());
        assert!(
            error
                .to_string()
                .starts_with("this machine is node n1 of the cluster red already"),
            "{error}"
        );
        drop(claim);
        Claim::acquire_named(name.as_bytes(), &second, PREDECESSOR_DEADLINE).unwrap();
    }

    #[test]
    fn a_later_life_of_the_same_node_waits_for_the_earlier_one() {
        let name = format!("k8sm-test-{}-b", std::process::id());
        let me = holder("red", "n1");
        let claim = Claim::acquire_named(name.as_bytes(), &me, Duration::ZERO).unwrap();
        let waiting = {
            let (name, me) = (name.clone(), me.clone());
            std::thread::spawn(move || {
                Claim::acquire_named(name.as_bytes(), &me, PREDECESSOR_DEADLINE)
            })
        };
        drop(claim);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn a_foreign_kube_proxy_is_told_from_an_earlier_life_of_ours() {
        let table = |f: &str, t: &str| (f.to_owned(), t.to_owned());
        let proxy = table("ip", "kube-proxy");
        assert!(foreign_kube_proxy(&[], &["eth0".to_owned()], "").is_ok());
        assert!(foreign_kube_proxy(std::slice::from_ref(&proxy), &[], "").is_err());
        let ours = [proxy.clone(), table("ip", "k8s0badcafe")];
        assert!(foreign_kube_proxy(&ours, &[], "").is_ok());
        assert!(foreign_kube_proxy(&[proxy], &["k8v0badcafe".to_owned()], "").is_ok());
        assert!(foreign_kube_proxy(&[], &[], "-N KUBE-SERVICES\n").is_ok());
        let nat = "-N KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n";
        let error = foreign_kube_proxy(&[], &[], nat).unwrap_err();
        assert!(error.to_string().contains("KUBE-SERVICES"));
    }
}
