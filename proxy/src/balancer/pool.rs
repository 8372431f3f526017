//! Which API server the next connection goes to. Pure: times are given.

use std::time::Duration;

use tokio::time::Instant;

/// How long a server that refused is tried after all others; doubles with each failure.
const MIN_OUT: Duration = Duration::from_secs(1);
/// The longest it is.
const MAX_OUT: Duration = Duration::from_secs(30);
/// More servers than this are not looked at; clusters have three or five.
pub const MAX_SERVERS: usize = 64;

#[derive(Debug, Clone)]
struct Server {
    address: String,
    /// In the current list, or only in the node's configuration.
    current: bool,
    failures: u32,
    out_until: Option<Instant>,
}

/// The API servers and how they did lately.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    servers: Vec<Server>,
    /// Turns with each connection, so that nodes and connections spread.
    turn: usize,
}

impl Pool {
    /// Servers of the node's configuration (`fallback`, never forgotten) and those that were known
    /// last (`current`). `turn` is where to begin; random, so that nodes do not all begin alike.
    pub fn new(fallback: &[String], current: &[String], turn: usize) -> Self {
        let mut pool = Self {
            servers: Vec::new(),
            turn,
        };
        for address in fallback {
            pool.add(address, false);
        }
        pool.update(if current.is_empty() {
            fallback
        } else {
            current
        });
        pool
    }

    fn add(&mut self, address: &str, current: bool) {
        if let Some(server) = self.servers.iter_mut().find(|s| s.address == address) {
            server.current |= current;
        } else if self.servers.len() < MAX_SERVERS {
            self.servers.push(Server {
                address: address.to_owned(),
                current,
                failures: 0,
                out_until: None,
            });
        }
    }

    /// A new list. An empty one tells nothing and is ignored. Servers that are not in it stay as a
    /// last resort if the configuration named them. Whether anything changed.
    pub fn update(&mut self, list: &[String]) -> bool {
        let mut wanted: Vec<&String> = list.iter().collect();
        wanted.sort();
        wanted.dedup();
        let mut now: Vec<&String> = self
            .servers
            .iter()
            .filter(|s| s.current)
            .map(|s| &s.address)
            .collect();
        now.sort();
        if list.is_empty() || wanted == now {
            return false;
        }
        for server in &mut self.servers {
            server.current = list.contains(&server.address);
        }
        for address in list {
            self.add(address, true);
        }
        true
    }

    /// The current list, in no order.
    pub fn current(&self) -> Vec<String> {
        self.servers
            .iter()
            .filter(|s| s.current)
            .map(|s| s.address.clone())
            .collect()
    }

    /// Whom to try for the next connection, best first: current ones that did not fail lately, then
    /// those of the configuration, then those that failed, the longest ago first.
    pub fn candidates(&mut self, now: Instant) -> Vec<String> {
        self.turn = self.turn.wrapping_add(1);
        let count = self.servers.len().max(1);
        let turn = self.turn % count;
        let mut order: Vec<(usize, &Server)> = self.servers.iter().enumerate().collect();
        order.sort_by_key(|(at, server)| {
            let out = server.out_until.filter(|until| *until > now);
            (out, !server.current, (at + count - turn) % count)
        });
        order.into_iter().map(|(_, s)| s.address.clone()).collect()
    }

    /// A connection was made.
    pub fn succeeded(&mut self, address: &str) {
        if let Some(server) = self.servers.iter_mut().find(|s| s.address == address) {
            server.failures = 0;
            server.out_until = None;
        }
    }

    /// A connection was not made.
    pub fn failed(&mut self, address: &str, now: Instant) {
        if let Some(server) = self.servers.iter_mut().find(|s| s.address == address) {
            let out = MIN_OUT
                .saturating_mul(1 << server.failures.min(10))
                .min(MAX_OUT);
            server.failures = server.failures.saturating_add(1);
            server.out_until = Some(now + out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn connections_spread_over_all_servers() {
        let mut pool = Pool::new(&list(&["a", "b", "c"]), &[], 0);
        let now = Instant::now();
        let first: Vec<String> = (0..6).map(|_| pool.candidates(now).remove(0)).collect();
        for server in ["a", "b", "c"] {
            assert_eq!(
                first.iter().filter(|s| *s == server).count(),
                2,
                "{first:?}"
            );
        }
    }

    #[test]
    fn a_server_that_refuses_is_tried_last_until_its_time_is_over() {
        let mut pool = Pool::new(&list(&["a", "b"]), &[], 0);
        let now = Instant::now();
        pool.failed("a", now);
        for _ in 0..4 {
            assert_eq!(pool.candidates(now), list(&["b", "a"]));
        }
        let later = now + MIN_OUT;
        let first: Vec<String> = (0..2).map(|_| pool.candidates(later).remove(0)).collect();
        assert!(first.contains(&"a".to_owned()), "{first:?}");
        pool.failed("a", later);
        assert_eq!(pool.candidates(later + MIN_OUT)[0], "b");
        pool.succeeded("a");
        assert!(pool.servers.iter().all(|s| s.out_until.is_none()));
    }

    #[test]
    fn when_all_refuse_the_one_that_refused_longest_ago_is_tried_first() {
        let mut pool = Pool::new(&list(&["a", "b"]), &[], 0);
        let now = Instant::now();
        pool.failed("b", now);
        pool.failed("a", now + Duration::from_millis(10));
        assert_eq!(
            pool.candidates(now + Duration::from_millis(20)),
            list(&["b", "a"])
        );
    }

    #[test]
    fn a_new_list_replaces_the_old_one_and_the_configuration_stays_a_last_resort() {
        let mut pool = Pool::new(&list(&["a"]), &list(&["b", "c"]), 0);
        let now = Instant::now();
        assert_eq!(pool.current(), list(&["b", "c"]));
        assert!(!pool.update(&[]));
        assert!(!pool.update(&list(&["c", "b", "b"])));
        assert!(pool.update(&list(&["d"])));
        assert_eq!(pool.current(), list(&["d"]));
        let order = pool.candidates(now);
        assert_eq!(order[0], "d");
        assert!(order.contains(&"a".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn every_known_server_is_a_candidate_exactly_once(
            lists in proptest::collection::vec(proptest::collection::vec("[a-f]", 0..5), 1..6),
            fail in proptest::collection::vec("[a-f]", 0..6),
        ) {
            let now = Instant::now();
            let mut pool = Pool::new(&list(&["a"]), &[], 3);
            for l in &lists {
                pool.update(l);
            }
            for f in &fail {
                pool.failed(f, now);
            }
            let mut candidates = pool.candidates(now);
            let count = candidates.len();
            candidates.sort();
            candidates.dedup();
            proptest::prop_assert_eq!(candidates.len(), count);
            proptest::prop_assert!(candidates.contains(&"a".to_owned()));
            for server in pool.current() {
                proptest::prop_assert!(candidates.contains(&server));
            }
        }
    }
}
