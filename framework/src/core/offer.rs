//! The offers that the framework holds, merged per agent and role.
//!
//! Mesos hands out what becomes free in additional small offers; one ACCEPT may name several
//! offers of one agent and role, so they count as one pool here. What is planned for pods whose
//! node is still being prepared is taken out of the pool at once and remembered where it was
//! planned; when an offer of the pool is rescinded, those plans are void and the pool starts
//! again from what is left.

use std::collections::{BTreeMap, HashMap};

use super::ids::{AgentId, OfferId, Role, Time};
use super::pool::Pool;

/// An offer, as far as decisions need it.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Its id.
    pub id: OfferId,
    /// The agent whose resources these are.
    pub agent: AgentId,
    /// The role that they are allocated to.
    pub role: Role,
    /// The usable resources.
    pub pool: Pool,
}

/// The offers of one agent and role.
#[derive(Debug, Default)]
pub struct Held {
    offers: Vec<(OfferId, Pool)>,
    /// What is neither accepted nor planned for.
    pub free: Pool,
    /// When the newest of the offers came.
    pub since: Time,
}

impl Held {
    /// Ids of all the offers.
    pub fn ids(&self) -> Vec<OfferId> {
        self.offers.iter().map(|(id, _)| id.clone()).collect()
    }

    /// All resources, planned ones included.
    pub fn whole(&self) -> Pool {
        let mut sum = Pool::default();
        for (_, pool) in &self.offers {
            sum.add(pool);
        }
        sum
    }
}

/// All offers that the framework holds. Bounded by Mesos: an agent's resources are offered once.
#[derive(Debug, Default)]
pub struct OfferStore {
    held: BTreeMap<AgentId, BTreeMap<Role, Held>>,
    place: HashMap<OfferId, (AgentId, Role)>,
}

impl OfferStore {
    /// Adds an offer. False if it is known already.
    pub fn add(&mut self, offer: Offer, now: Time) -> bool {
        let place = (offer.agent.clone(), offer.role.clone());
        if self.place.contains_key(&offer.id) {
            return false;
        }
        self.place.insert(offer.id.clone(), place);
        let held = self
            .held
            .entry(offer.agent)
            .or_default()
            .entry(offer.role)
            .or_default();
        held.free.add(&offer.pool);
        held.offers.push((offer.id, offer.pool));
        held.since = now;
        true
    }

    /// Forgets a rescinded offer and says whose it was. The pool is whole again: plans on it
    /// are the caller's to forget.
    pub fn rescind(&mut self, id: &OfferId) -> Option<(AgentId, Role)> {
        let (agent, role) = self.place.remove(id)?;
        let roles = self.held.get_mut(&agent)?;
        let held = roles.get_mut(&role)?;
        held.offers.retain(|(other, _)| other != id);
        if held.offers.is_empty() {
            roles.remove(&role);
            if roles.is_empty() {
                self.held.remove(&agent);
            }
        } else {
            held.free = held.whole();
        }
        Some((agent, role))
    }

    /// Takes everything of an agent and role out of the store, to accept or to decline it.
    pub fn remove(&mut self, agent: &AgentId, role: &Role) -> Option<Held> {
        let roles = self.held.get_mut(agent)?;
        let held = roles.remove(role)?;
        if roles.is_empty() {
            self.held.remove(agent);
        }
        for (id, _) in &held.offers {
            self.place.remove(id);
        }
        Some(held)
    }

    /// Forgets everything: after a disconnection all offers are void.
    pub fn clear(&mut self) {
        self.held.clear();
        self.place.clear();
    }

    /// What is held of one agent.
    pub fn of(&self, agent: &AgentId) -> impl Iterator<Item = (&Role, &Held)> {
        self.held.get(agent).into_iter().flatten()
    }

    /// One pool.
    pub fn get(&self, agent: &AgentId, role: &Role) -> Option<&Held> {
        self.held.get(agent)?.get(role)
    }

    /// One pool, to take from or to give back to.
    pub fn get_mut(&mut self, agent: &AgentId, role: &Role) -> Option<&mut Held> {
        self.held.get_mut(agent)?.get_mut(role)
    }

    /// Every pool.
    pub fn iter(&self) -> impl Iterator<Item = (&AgentId, &Role, &Held)> {
        self.held
            .iter()
            .flat_map(|(agent, roles)| roles.iter().map(move |(role, held)| (agent, role, held)))
    }

    /// Agents of which something is held.
    pub fn agents(&self) -> impl Iterator<Item = &AgentId> {
        self.held.keys()
    }

    /// Whether anything is held of the agent.
    pub fn has(&self, agent: &AgentId) -> bool {
        self.held.contains_key(agent)
    }

    /// How many offers are held.
    pub fn len(&self) -> usize {
        self.place.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.place.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::pool::Amounts;
    use crate::resources::PortSet;

    fn offer(id: &str, cpus: u64) -> Offer {
        Offer {
            id: id.into(),
            agent: "a1".into(),
            role: "*".into(),
            pool: Pool::unreserved(
                Amounts {
                    cpus,
                    ..Amounts::default()
                },
                PortSet::default(),
            ),
        }
    }

    #[test]
    fn offers_of_one_agent_and_role_are_one_pool() {
        let mut store = OfferStore::default();
        assert!(store.add(offer("o1", 1000), Time(1)));
        assert!(store.add(offer("o2", 500), Time(2)));
        assert!(!store.add(offer("o2", 500), Time(3)), "a repeated offer");
        let held = store.get(&"a1".into(), &"*".into()).expect("held");
        assert_eq!(held.free.amounts().cpus, 1500);
        assert_eq!(held.ids().len(), 2);
    }

    #[test]
    fn a_rescinded_offer_voids_what_was_planned_on_its_pool() {
        let mut store = OfferStore::default();
        store.add(offer("o1", 1000), Time(1));
        store.add(offer("o2", 500), Time(2));
        let want = Amounts {
            cpus: 1200,
            ..Amounts::default()
        };
        let held = store.get_mut(&"a1".into(), &"*".into()).expect("held");
        assert!(held.free.take(&want, &[]).is_some());
        assert!(store.rescind(&"o2".into()).is_some());
        let held = store.get(&"a1".into(), &"*".into()).expect("held");
        assert_eq!(held.free.amounts().cpus, 1000);
        assert!(store.rescind(&"o1".into()).is_some());
        assert!(store.is_empty());
        assert_eq!(store.rescind(&"o1".into()), None);
    }
}
