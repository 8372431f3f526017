//! Weighted dominant resource fairness: who is next.
//!
//! A client's share is the greatest fraction that it has of any scalar resource, divided by
//! its weight. Roles form a tree (`eng/web` is below `eng`); at each level the one with the
//! smallest share goes first, then the one that was served less often, then by name.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::Scalar;

/// Sums of scalars by name.
pub(super) type Quantities = BTreeMap<Arc<str>, Scalar>;

/// What a role, or a framework in a role, has been given.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    pub quantities: Quantities,
    /// How often it was given something: breaks ties.
    pub served: u64,
}

impl Account {
    pub fn charge(&mut self, quantities: &Quantities) {
        add(&mut self.quantities, quantities);
        self.served = self.served.saturating_add(1);
    }

    pub fn refund(&mut self, quantities: &Quantities) {
        subtract(&mut self.quantities, quantities);
    }
}

pub(super) fn add(to: &mut Quantities, more: &Quantities) {
    for (name, scalar) in more {
        let sum = to.entry(Arc::clone(name)).or_default();
        *sum = sum.plus(*scalar);
    }
}

pub(super) fn subtract(from: &mut Quantities, less: &Quantities) {
    for (name, scalar) in less {
        if let Some(sum) = from.get_mut(name) {
            *sum = sum.minus(*scalar);
            if sum.is_zero() {
                from.remove(name);
            }
        }
    }
}

/// The dominant share, weighted.
pub(super) fn share(allocated: &Quantities, total: &Quantities, weight: f64) -> f64 {
    let mut share = 0.0_f64;
    for (name, scalar) in allocated {
        match total.get(name) {
            Some(all) if !all.is_zero() => {
                share = share.max(scalar.millis() as f64 / all.millis() as f64);
            }
            _ => {}
        }
    }
    share / weight
}

/// The order of two clients with these shares, services and names.
pub(super) fn compare(a: (f64, u64, &str), b: (f64, u64, &str)) -> Ordering {
    a.0.total_cmp(&b.0)
        .then(a.1.cmp(&b.1))
        .then_with(|| a.2.cmp(b.2))
}

/// Orders roles by fair share, level by level. `roles` holds everything that was given to
/// each; `weight` is asked for whole paths (`eng`, then `eng/web`).
pub(super) fn order_roles<'a>(
    roles: &BTreeMap<&'a str, &Account>,
    total: &Quantities,
    weight: &dyn Fn(&str) -> f64,
) -> Vec<&'a str> {
    let all: Vec<_> = roles
        .iter()
        .map(|(role, account)| (*role, *account))
        .collect();
    let mut out = Vec::with_capacity(all.len());
    order_level(0, &all, total, weight, &mut out);
    out
}

/// Orders roles that share their first `depth` components.
fn order_level<'a>(
    depth: usize,
    roles: &[(&'a str, &Account)],
    total: &Quantities,
    weight: &dyn Fn(&str) -> f64,
    out: &mut Vec<&'a str>,
) {
    // The path of each child at this level; a role that ends here is a child of its own.
    let mut children: BTreeMap<(&'a str, bool), Vec<(&'a str, &Account)>> = BTreeMap::new();
    for (role, account) in roles {
        let key = match role.match_indices('/').nth(depth) {
            Some((at, _)) => (&role[..at], false),
            None => {
                let ends_above = depth > 0 && role.matches('/').count() < depth;
                (*role, ends_above)
            }
        };
        children.entry(key).or_default().push((role, account));
    }
    let mut level: Vec<_> = children
        .into_iter()
        .map(|((path, ends_above), members)| {
            let mut sum = Quantities::new();
            let mut served = 0_u64;
            for (_, account) in &members {
                add(&mut sum, &account.quantities);
                served = served.saturating_add(account.served);
            }
            let weight = if ends_above { 1.0 } else { weight(path) };
            (share(&sum, total, weight), served, path, members)
        })
        .collect();
    level.sort_by(|a, b| compare((a.0, a.1, a.2), (b.0, b.1, b.2)));
    for (_, _, _, members) in level {
        match members[..] {
            [(role, _)] => out.push(role),
            _ => order_level(depth + 1, &members, total, weight, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantities(list: &[(&str, i64)]) -> Quantities {
        list.iter()
            .map(|(name, n)| (Arc::from(*name), Scalar::from_millis(n * 1000)))
            .collect()
    }

    fn account(list: &[(&str, i64)]) -> Account {
        Account {
            quantities: quantities(list),
            served: 0,
        }
    }

    fn order(roles: &[(&'static str, Account)], weight: &dyn Fn(&str) -> f64) -> Vec<&'static str> {
        let total = quantities(&[("cpus", 100), ("mem", 1000)]);
        let map = roles.iter().map(|(role, a)| (*role, a)).collect();
        order_roles(&map, &total, weight)
    }

    #[test]
    fn the_smallest_dominant_share_goes_first() {
        let roles = [
            ("a", account(&[("cpus", 10), ("mem", 500)])),
            ("b", account(&[("cpus", 40), ("mem", 10)])),
            ("c", account(&[])),
        ];
        assert_eq!(order(&roles, &|_| 1.0), ["c", "b", "a"]);
    }

    #[test]
    fn a_weight_divides_the_share() {
        let roles = [
            ("a", account(&[("cpus", 30)])),
            ("b", account(&[("cpus", 20)])),
        ];
        let weight = |role: &str| if role == "a" { 2.0 } else { 1.0 };
        assert_eq!(order(&roles, &weight), ["a", "b"]);
    }

    #[test]
    fn subroles_share_what_their_parent_has() {
        let roles = [
            ("eng", account(&[("cpus", 5)])),
            ("eng/db", account(&[("cpus", 30)])),
            ("eng/web", account(&[("cpus", 1)])),
            ("ops", account(&[("cpus", 35)])),
        ];
        assert_eq!(order(&roles, &|_| 1.0), ["ops", "eng/web", "eng", "eng/db"]);
    }

    #[test]
    fn deep_and_lonely_roles_are_ordered_too() {
        let roles = [
            ("a/b/c/d", account(&[("cpus", 3)])),
            ("a/b", account(&[("cpus", 2)])),
            ("a/b/c", account(&[("cpus", 1)])),
            ("z", account(&[])),
        ];
        let mut got = order(&roles, &|_| 1.0);
        assert_eq!(got[0], "z");
        got.sort_unstable();
        assert_eq!(got, ["a/b", "a/b/c", "a/b/c/d", "z"]);
    }
}
