//! Which of the offered port numbers a node's own processes take.
//!
//! Any number would do for them, but not for everybody else: people name the numbers that their
//! pods use, and a number that is gone stays gone for the node's life. So the node takes what is
//! least likely to be wanted by name, and never what the operator keeps for others
//! (`--node-avoid-ports`).

use rand::Rng;
use seam::node::NodePorts;

use crate::resources::PortSet;

/// Fewer numbers in a row than this were offered by name: `ports:[8080-8080,31000-32000]`.
const NAMED: usize = 16;

/// Whether there are enough numbers for a node's own processes.
pub fn suffice(free: &PortSet, avoid: &PortSet) -> bool {
    usable(free, avoid).nth(NodePorts::COUNT - 1).is_some()
}

/// Chooses from `free`, never one of `avoid`; those that `is_wanted` only when nothing else is left,
/// and before these the ones that were offered by name. Of the rest those from somewhere in the upper quarter
/// downwards: what users pick for their pods lies mostly further down, and two lives in a row
/// shall not meet.
pub fn choose(
    free: &PortSet,
    avoid: &PortSet,
    is_wanted: impl Fn(u16) -> bool,
    rng: &mut impl Rng,
) -> Option<[u16; NodePorts::COUNT]> {
    let named = |port: u16| {
        let of = free.ranges().iter().find(|range| range.end >= port);
        of.is_some_and(|range| usize::from(range.end - range.begin) + 1 < NAMED)
    };
    let mut plain = Vec::new();
    let mut last_resort = Vec::new();
    for port in usable(free, avoid) {
        match (is_wanted(port), named(port)) {
            (false, false) => plain.push(port),
            (wanted, named) => last_resort.push((wanted, named, port)),
        }
    }
    last_resort.sort_unstable();
    if !plain.is_empty() {
        let above = rng.random_range(0..plain.len().div_ceil(4));
        plain.reverse();
        plain.rotate_left(above);
    }
    let last_resort = last_resort.into_iter().map(|(_, _, port)| port);
    let ports: Vec<u16> = plain
        .into_iter()
        .chain(last_resort)
        .take(NodePorts::COUNT)
        .collect();
    ports.try_into().ok()
}

fn usable<'a>(free: &'a PortSet, avoid: &'a PortSet) -> impl Iterator<Item = u16> + 'a {
    free.iter().filter(|port| !avoid.contains(*port))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn chosen(free: &PortSet, avoid: &PortSet, wanted: &[u16], seed: u64) -> Option<Vec<u16>> {
        let mut rng = StdRng::seed_from_u64(seed);
        choose(free, avoid, |port| wanted.contains(&port), &mut rng).map(|ports| ports.to_vec())
    }

    #[test]
    fn numbers_that_were_offered_by_name_or_are_kept_for_others_are_left_alone() {
        let free = PortSet::from_ranges([(8080, 8080), (31_000, 32_000), (54_321, 54_323)]);
        let avoid = PortSet::from_ranges([(31_900, 32_000)]);
        for seed in 0..500 {
            let ports = chosen(&free, &avoid, &[31_800], seed).unwrap();
            for port in ports {
                assert!((31_600..31_900).contains(&port) && port != 31_800, "{port}");
            }
        }
    }

    #[test]
    fn two_lives_in_a_row_seldom_meet() {
        let free = PortSet::from_ranges([(31_000, 32_000)]);
        let none = PortSet::default();
        let mut firsts: Vec<u16> = (0..100)
            .map(|seed| chosen(&free, &none, &[], seed).unwrap()[0])
            .collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert!(firsts.len() > 60, "{}", firsts.len());
    }

    #[test]
    fn where_little_is_offered_all_of_it_is_used_but_for_what_is_kept() {
        let count = u64::try_from(NodePorts::COUNT).unwrap();
        let free = PortSet::from_ranges([(8080, 8080 + count - 1)]);
        let none = PortSet::default();
        assert!(chosen(&free, &none, &[8081], 1).is_some());
        assert!(suffice(&free, &none));
        let kept = PortSet::from_ranges([(8080, 8080)]);
        assert_eq!(chosen(&free, &kept, &[], 1), None);
        assert!(!suffice(&free, &kept));
        assert_eq!(chosen(&none, &none, &[], 1), None);
    }

    #[test]
    fn what_pods_ask_for_goes_last() {
        let count = u64::try_from(NodePorts::COUNT).unwrap();
        // One too many of a handful that were all offered by name.
        let free = PortSet::from_ranges([(8080, 8080 + count)]);
        let ports = chosen(&free, &PortSet::default(), &[8081], 1).unwrap();
        assert!(!ports.contains(&8081), "{ports:?}");
    }
}
