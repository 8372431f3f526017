//! Quotas: what a role is guaranteed, and what it may have at most.
//!
//! A round of the allocator has two stages, as in Mesos. First the roles whose guarantees are not
//! met get what is missing; then everybody gets what fairness gives them, up to their limits and
//! without what is still missing of others' guarantees. Resources that are reserved for a role are
//! always its own; what it has reserved counts as consumed, used or not. A quota of `eng` is one of
//! everything below it (`eng/web`), too. Scalars are cut to fit, other resources are given whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Allocator;
use super::sorter::{self, Quantities};
use crate::resources::{Resource, Resources, Scalar, Value, is_strict_subrole};

/// A role's quota.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// At least so much, as long as there is demand.
    pub guarantees: BTreeMap<Arc<str>, Scalar>,
    /// At most so much; without an entry there is no limit.
    pub limits: BTreeMap<Arc<str>, Scalar>,
}

impl Quota {
    /// Whether it says nothing at all, which is the same as none.
    pub fn is_default(&self) -> bool {
        self.guarantees.is_empty() && self.limits.is_empty()
    }
}

/// What a role may still get of each scalar resource in one stage of a round.
pub(super) struct Room {
    /// No entry: as much as there is.
    most: Quantities,
}

impl Room {
    fn lower(&mut self, name: &Arc<str>, most: Scalar) {
        let entry = self.most.entry(Arc::clone(name)).or_insert(most);
        *entry = (*entry).min(most);
    }

    /// The part of an agent's resources that fits. What is reserved or exclusive is never cut.
    pub(super) fn cut(&mut self, resources: &Resources) -> Resources {
        if self.most.is_empty() {
            return resources.clone();
        }
        let mut out = Resources::default();
        for resource in resources {
            let Value::Scalar(offered) = resource.value() else {
                out.add(resource);
                continue;
            };
            let left = match self.most.get_mut(resource.name()) {
                Some(left) if resource.reserved_for().is_none() => left,
                _ => {
                    out.add(resource);
                    continue;
                }
            };
            let part = (*left).min(*offered);
            if part == *offered || resource.is_divisible() {
                *left = left.minus(part);
                if !part.is_zero() {
                    out.add(&resource.with_scalar(part));
                }
            }
        }
        out
    }
}

/// The two stages of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// What guarantees lack.
    Guarantees,
    /// The rest.
    Rest,
}

impl Allocator {
    /// Sets or, with a default one, removes a role's quota.
    pub fn set_quota(&mut self, role: &str, quota: Quota) {
        if quota.is_default() {
            self.quotas.remove(role);
        } else {
            self.quotas.insert(role.to_owned(), quota);
        }
    }

    /// All quotas that say something.
    pub const fn quotas(&self) -> &BTreeMap<String, Quota> {
        &self.quotas
    }

    /// Scalars of all agents.
    pub const fn capacity(&self) -> &BTreeMap<Arc<str>, Scalar> {
        &self.total
    }

    /// What a role and those below it have been given, and what is reserved for them besides.
    pub fn consumed(&self, role: &str) -> BTreeMap<Arc<str>, Scalar> {
        let concerns = |of: &str| of == role || is_strict_subrole(of, role);
        let mut out = Quantities::new();
        for (_, account) in self.roles.iter().filter(|(of, _)| concerns(of)) {
            sorter::add(&mut out, &account.quantities);
        }
        for agent in self.agents.values() {
            let reserved = |r: &Resource| r.reserved_for().is_some_and(concerns);
            sorter::add(&mut out, &agent.available.filter(reserved).scalars());
        }
        out
    }

    /// What is missing of a role's guarantees.
    fn missing(&self, role: &str, quota: &Quota) -> Quantities {
        let mut missing = quota.guarantees.clone();
        sorter::subtract(&mut missing, &self.consumed(role));
        missing
    }

    /// Whether a first stage is needed at all.
    pub(super) fn has_guarantees(&self) -> bool {
        self.quotas
            .values()
            .any(|quota| !quota.guarantees.is_empty())
    }

    /// What a role may get in this stage; `None`: nothing.
    pub(super) fn room(&self, role: &str, stage: Stage) -> Option<Room> {
        let mut room = Room {
            most: Quantities::new(),
        };
        if self.quotas.is_empty() {
            return Some(room);
        }
        let above = |of: &str| of == role || is_strict_subrole(role, of);
        let own: Vec<(&String, &Quota)> = self.quotas.iter().filter(|(of, _)| above(of)).collect();
        for (of, quota) in &own {
            let consumed = self.consumed(of);
            for (name, limit) in &quota.limits {
                let used = consumed.get(name).copied().unwrap_or_default();
                room.lower(name, limit.minus(used));
            }
        }
        match stage {
            Stage::Guarantees => {
                let mut anything = false;
                for (of, quota) in &own {
                    let missing = self.missing(of, quota);
                    anything |= !missing.is_empty();
                    for name in quota.guarantees.keys() {
                        room.lower(name, missing.get(name).copied().unwrap_or_default());
                    }
                }
                anything.then_some(room)
            }
            Stage::Rest => {
                // What is free, less what others are still guaranteed.
                let mut promised = Quantities::new();
                for (of, quota) in &self.quotas {
                    sorter::add(&mut promised, &self.missing(of, quota));
                }
                if !promised.is_empty() {
                    let mut free = Quantities::new();
                    for agent in self.agents.values().filter(|a| a.active) {
                        sorter::add(&mut free, &agent.available.unreserved().scalars());
                    }
                    for (name, promised) in &promised {
                        let free = free.get(name).copied().unwrap_or_default();
                        room.lower(name, free.minus(*promised));
                    }
                }
                Some(room)
            }
        }
    }

    /// Weighs roles anew.
    pub fn set_weight(&mut self, role: &str, weight: f64) {
        self.config.weights.insert(role.to_owned(), weight);
    }
}
