//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;
use crate::metrics::Refusal;

/// Counts connections; clones are the same one.
#[derive(Clone)]
pub struct Gate {
    limits: Limits,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    all: usize,
    /// Only addresses with a connection: as bounded as connections are.
    by_address: HashMap<IpAddr, usize>,
}

impl Gate {
    /// With these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Arc::default(),
        }
    }

    /// A place for one connection, or why there is none.
    pub fn enter(&self, address: IpAddr) -> Result<Slot, Refusal> {
        let mut open = lock(&self.open);
        if open.all >= self.limits.connections {
            return Err(Refusal::Limit);
        }
        if open.by_address.get(&address).copied().unwrap_or_default() >= self.limits.per_address {
            return Err(Refusal::AddressLimit);
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Ok(Slot {
            open: Arc::clone(&self.open),
            address,
        })
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    // Nothing panics while holding it.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection's place, free again when dropped.
pub struct Slot {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let gate = Gate::new(Limits {
            connections: 3,
            per_address: 2,
        });
        let [a, b]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap());
        let first = gate.enter(a).unwrap();
        let _second = gate.enter(a).unwrap();
        assert_eq!(gate.enter(a).err(), Some(Refusal::AddressLimit));
        let _third = gate.enter(b).unwrap();
        assert_eq!(gate.enter(b).err(), Some(Refusal::Limit));
        drop(first);
        assert!(gate.enter(a).is_ok());
    }
}
