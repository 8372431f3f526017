//! Resources of one agent and one role, as offered, and what tasks take out of them.
//!
//! Mesos counts scalars with three decimal digits; here they are integers in thousandths, so
//! that adding and subtracting is exact. A pool keeps apart what is reserved differently,
//! because a task must name the very reservations that its resources have.

use std::sync::Arc;

use mesos::pb;

use crate::resources::PortSet;

/// Amounts of the scalar resources, in thousandths of Mesos' units (CPUs, MiB, MiB, devices).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpus: u64,
    /// Thousandths of a MiB of memory.
    pub mem: u64,
    /// Thousandths of a MiB of disk.
    pub disk: u64,
    /// Thousandths of a GPU.
    pub gpus: u64,
}

/// Thousandths in one unit.
pub const UNIT: u64 = 1000;

impl Amounts {
    /// Whether `other` is contained.
    pub fn covers(&self, other: &Amounts) -> bool {
        self.cpus >= other.cpus
            && self.mem >= other.mem
            && self.disk >= other.disk
            && self.gpus >= other.gpus
    }

    /// The sum.
    pub fn plus(&self, other: &Amounts) -> Amounts {
        Amounts {
            cpus: self.cpus.saturating_add(other.cpus),
            mem: self.mem.saturating_add(other.mem),
            disk: self.disk.saturating_add(other.disk),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    /// The difference, at least zero in each resource.
    pub fn minus(&self, other: &Amounts) -> Amounts {
        Amounts {
            cpus: self.cpus.saturating_sub(other.cpus),
            mem: self.mem.saturating_sub(other.mem),
            disk: self.disk.saturating_sub(other.disk),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }

    fn each(&mut self) -> [(&'static str, &mut u64); 4] {
        [
            ("cpus", &mut self.cpus),
            ("mem", &mut self.mem),
            ("disk", &mut self.disk),
            ("gpus", &mut self.gpus),
        ]
    }

    fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("cpus", self.cpus),
            ("mem", self.mem),
            ("disk", self.disk),
            ("gpus", self.gpus),
        ]
    }
}

/// Resources with the same reservations.
#[derive(Debug, Clone, PartialEq)]
struct Slot {
    /// Innermost last, as Mesos has it; empty = unreserved.
    reservations: Arc<[pb::resource::ReservationInfo]>,
    amounts: Amounts,
    ports: PortSet,
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.amounts == Amounts::default() && self.ports.is_empty()
    }
}

/// What is free on one agent for one role, or what a task takes of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pool {
    /// The reserved ones first: what is ours anyway is used before what others could use.
    slots: Vec<Slot>,
}

/// The resources that one task takes.
pub type Grant = Pool;

fn thousandths(value: f64) -> u64 {
    // A float-to-integer cast saturates; negative and NaN become 0.
    (value * 1000.0).round() as u64
}

impl Pool {
    /// An unreserved pool, for agents' totals and tests.
    pub fn unreserved(amounts: Amounts, ports: PortSet) -> Self {
        let mut pool = Self::default();
        pool.put(Slot {
            reservations: Arc::from(Vec::new()),
            amounts,
            ports,
        });
        pool
    }

    /// Reads Mesos resources. Left out, because an ordinary task of ours cannot use them: revocable and
    /// shared ones, those of resource providers, persistent volumes and disks with a source of
    /// their own, and reservations for roles that `usable` refuses.
    pub fn from_mesos(resources: &[pb::Resource], usable: impl Fn(&str) -> bool) -> Self {
        let mut pool = Self::default();
        for resource in resources {
            if resource.revocable.is_some()
                || resource.shared.is_some()
                || resource.provider_id.is_some()
                || resource
                    .disk
                    .as_ref()
                    .is_some_and(|d| d.persistence.is_some() || d.source.is_some())
            {
                continue;
            }
            let reservations = reservations_of(resource);
            if let Some(role) = reservations.last().and_then(|r| r.role.as_deref())
                && !usable(role)
            {
                continue;
            }
            let mut slot = Slot {
                reservations: reservations.into(),
                amounts: Amounts::default(),
                ports: PortSet::default(),
            };
            if resource.name == "ports" {
                let ranges = resource.ranges.as_ref().map(|r| r.range.as_slice());
                slot.ports = PortSet::from_ranges(
                    ranges
                        .unwrap_or_default()
                        .iter()
                        .map(|range| (range.begin, range.end)),
                );
            } else if let Some(scalar) = &resource.scalar {
                for (name, amount) in slot.amounts.each() {
                    if name == resource.name {
                        *amount = thousandths(scalar.value);
                    }
                }
            }
            pool.put(slot);
        }
        pool
    }

    fn put(&mut self, slot: Slot) {
        if slot.is_empty() {
            return;
        }
        if let Some(mine) = self
            .slots
            .iter_mut()
            .find(|s| s.reservations == slot.reservations)
        {
            mine.amounts = mine.amounts.plus(&slot.amounts);
            mine.ports.extend(&slot.ports);
            return;
        }
        let at = if slot.reservations.is_empty() {
            self.slots.len()
        } else {
            0
        };
        self.slots.insert(at, slot);
    }

    /// Adds everything of another pool.
    pub fn add(&mut self, other: &Pool) {
        for slot in &other.slots {
            self.put(slot.clone());
        }
    }

    /// Sum over all reservations.
    pub fn amounts(&self) -> Amounts {
        self.slots
            .iter()
            .fold(Amounts::default(), |sum, s| sum.plus(&s.amounts))
    }

    /// Ports over all reservations.
    pub fn ports(&self) -> PortSet {
        let mut all = PortSet::default();
        for slot in &self.slots {
            if all.is_empty() {
                all = slot.ports.clone();
            } else if !slot.ports.is_empty() {
                all.extend(&slot.ports);
            }
        }
        all
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether `amounts` and `ports` are all there.
    pub fn covers(&self, amounts: &Amounts, ports: &[u16]) -> bool {
        self.amounts().covers(amounts)
            && ports
                .iter()
                .all(|&port| self.slots.iter().any(|s| s.ports.contains(port)))
    }

    /// Takes `amounts` and `ports` out, or nothing at all when something is missing.
    pub fn take(&mut self, amounts: &Amounts, ports: &[u16]) -> Option<Grant> {
        if !self.covers(amounts, ports) {
            return None;
        }
        let mut left = *amounts;
        let mut grant = Pool::default();
        for slot in &mut self.slots {
            let mut taken = Slot {
                reservations: slot.reservations.clone(),
                amounts: Amounts::default(),
                ports: PortSet::default(),
            };
            let wanted = left.each().into_iter().zip(slot.amounts.each());
            for (((_, want), (_, have)), (_, got)) in wanted.zip(taken.amounts.each()) {
                let part = (*want).min(*have);
                *want -= part;
                *have -= part;
                *got = part;
            }
            let mut mine = Vec::new();
            for &port in ports {
                if slot.ports.remove(port) {
                    mine.push((u64::from(port), u64::from(port)));
                }
            }
            taken.ports = PortSet::from_ranges(mine);
            grant.put(taken);
        }
        self.slots.retain(|s| !s.is_empty());
        Some(grant)
    }

    /// As Mesos wants it in a task of `role`'s offer.
    pub fn to_mesos(&self, role: &str) -> Vec<pb::Resource> {
        let mut resources = Vec::new();
        for slot in &self.slots {
            let blank = |name: &str, kind: pb::value::Type| pb::Resource {
                name: name.to_owned(),
                r#type: kind as i32,
                allocation_info: Some(pb::resource::AllocationInfo {
                    role: Some(role.to_owned()),
                }),
                reservations: slot.reservations.to_vec(),
                ..Default::default()
            };
            for (name, amount) in slot.amounts.named() {
                if amount > 0 {
                    resources.push(pb::Resource {
                        scalar: Some(pb::value::Scalar {
                            value: amount as f64 / 1000.0,
                        }),
                        ..blank(name, pb::value::Type::Scalar)
                    });
                }
            }
            if !slot.ports.is_empty() {
                resources.push(pb::Resource {
                    ranges: Some(pb::value::Ranges {
                        range: slot
                            .ports
                            .ranges()
                            .iter()
                            .map(|r| pb::value::Range {
                                begin: u64::from(r.begin),
                                end: u64::from(r.end),
                            })
                            .collect(),
                    }),
                    ..blank("ports", pb::value::Type::Ranges)
                });
            }
        }
        resources
    }
}

/// The reservation stack of a resource, also of one in the format before
/// RESERVATION_REFINEMENT (`role` and `reservation`), which operators' answers may use.
fn reservations_of(resource: &pb::Resource) -> Vec<pb::resource::ReservationInfo> {
    if !resource.reservations.is_empty() {
        return resource.reservations.clone();
    }
    #[allow(deprecated, reason = "old masters and agents send the old format")]
    let (role, reservation) = (resource.role.as_deref(), resource.reservation.as_ref());
    match role {
        None | Some("*" | "") => Vec::new(),
        Some(role) => {
            let kind = if reservation.is_some() {
                pb::resource::reservation_info::Type::Dynamic
            } else {
                pb::resource::reservation_info::Type::Static
            };
            vec![pb::resource::ReservationInfo {
                r#type: Some(kind as i32),
                role: Some(role.to_owned()),
                principal: reservation.and_then(|r| r.principal.clone()),
                labels: reservation.and_then(|r| r.labels.clone()),
            }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(name: &str, value: f64, reserved: Option<&str>) -> pb::Resource {
        pb::Resource {
            name: name.to_owned(),
            r#type: pb::value::Type::Scalar as i32,
            scalar: Some(pb::value::Scalar { value }),
            reservations: reserved
                .map(|role| pb::resource::ReservationInfo {
                    r#type: Some(pb::resource::reservation_info::Type::Static as i32),
                    role: Some(role.to_owned()),
                    ..Default::default()
                })
                .into_iter()
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn reserved_resources_are_used_before_unreserved_ones() {
        let mut pool = Pool::from_mesos(
            &[scalar("cpus", 2.0, None), scalar("cpus", 1.0, Some("k8s"))],
            |_| true,
        );
        let want = Amounts {
            cpus: 1500,
            ..Amounts::default()
        };
        let grant = pool.take(&want, &[]).expect("three CPUs are there");
        let given = grant.to_mesos("k8s");
        let amount = |reserved: bool| {
            given
                .iter()
                .filter(|r| r.reservations.is_empty() != reserved)
                .filter_map(|r| r.scalar.as_ref())
                .map(|s| s.value)
                .sum::<f64>()
        };
        assert_eq!((amount(true), amount(false)), (1.0, 0.5));
        assert_eq!(pool.amounts().cpus, 1500);
    }

    #[test]
    fn nothing_is_taken_when_something_is_missing() {
        let start = Pool::unreserved(
            Amounts {
                cpus: 1000,
                mem: 1000,
                ..Amounts::default()
            },
            PortSet::from_ranges([(80, 81)]),
        );
        let mut pool = start.clone();
        let want = Amounts {
            cpus: 500,
            ..Amounts::default()
        };
        assert_eq!(pool.take(&want, &[82]), None);
        assert_eq!(pool, start);
    }

    #[test]
    fn resources_that_ordinary_tasks_cannot_use_are_left_out() {
        let mut revocable = scalar("cpus", 4.0, None);
        revocable.revocable = Some(pb::resource::RevocableInfo::default());
        let mut volume = scalar("disk", 100.0, None);
        volume.disk = Some(pb::resource::DiskInfo {
            persistence: Some(pb::resource::disk_info::Persistence {
                id: "v".to_owned(),
                principal: None,
            }),
            ..Default::default()
        });
        let other = scalar("cpus", 4.0, Some("spark"));
        let pool = Pool::from_mesos(&[revocable, volume, other], |role| role == "k8s");
        assert!(pool.is_empty());
    }
}
