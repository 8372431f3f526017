//! Which resources of an offer a task takes: amounts, and ports.

use mesos::pb;
use rand::Rng;
use rand::seq::SliceRandom as _;

use super::matching::matches;
use crate::marathon::model::App;
use crate::marathon::model::container::{DiskType, Persistent};
use crate::resources::{Ranges, Scalar};

/// What is left of an offer.
#[derive(Debug, Clone, Default)]
pub struct Pool(Vec<pb::Resource>);

/// The role that a resource is reserved for.
fn reserved_for(resource: &pb::Resource) -> Option<&str> {
    let reservation = resource.reservations.last()?;
    Some(reservation.role.as_deref().unwrap_or("*"))
}

/// Labels of the innermost reservation.
pub fn labels(resource: &pb::Resource) -> Vec<(&str, &str)> {
    let reservation = resource.reservations.last();
    reservation
        .and_then(|r| r.labels.as_ref())
        .map(|l| &l.labels[..])
        .unwrap_or_default()
        .iter()
        .map(|l| (l.key.as_str(), l.value.as_deref().unwrap_or("")))
        .collect()
}

/// Whether anybody may have it: not reserved for something particular, no volume, not to be
/// taken back.
fn is_plain(resource: &pb::Resource) -> bool {
    resource.disk.is_none() && resource.revocable.is_none() && labels(resource).is_empty()
}

impl Pool {
    /// All of an offer.
    pub fn new(offer: &pb::Offer) -> Self {
        Self(offer.resources.clone())
    }

    /// What is left.
    pub fn resources(&self) -> &[pb::Resource] {
        &self.0
    }

    /// Takes what is reserved under these labels, all of it.
    pub fn take_labelled(&mut self, wanted: &[(&str, &str)]) -> Vec<pb::Resource> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|r| {
            let labels = labels(r);
            wanted.iter().all(|w| labels.contains(w))
        });
        self.0 = left;
        taken
    }

    /// Plain resources for these roles, reserved ones first, by their places.
    fn usable(&self, name: &str, roles: &[&str]) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.0.len())
            .filter(|at| {
                let resource = &self.0[*at];
                let role = reserved_for(resource).unwrap_or("*");
                resource.name == name && is_plain(resource) && roles.contains(&role)
            })
            .collect();
        places.sort_by_key(|at| reserved_for(&self.0[*at]).is_none());
        places
    }

    /// Takes an amount, or nothing if there is not enough.
    pub fn take_scalar(
        &mut self,
        name: &str,
        amount: f64,
        roles: &[&str],
    ) -> Option<Vec<pb::Resource>> {
        let mut missing = Scalar::from_f64(amount);
        if missing.is_zero() {
            return Some(Vec::new());
        }
        let mut taken = Vec::new();
        let mut left = self.clone();
        for at in self.usable(name, roles) {
            let resource = &mut left.0[at];
            let there = resource.scalar.as_ref().map_or(0.0, |s| s.value);
            let there = Scalar::from_f64(there);
            let part = missing.min(there);
            if part.is_zero() {
                continue;
            }
            let value = |amount: Scalar| {
                Some(pb::value::Scalar {
                    value: amount.to_f64(),
                })
            };
            resource.scalar = value(there.minus(part));
            taken.push(pb::Resource {
                scalar: value(part),
                ..resource.clone()
            });
            missing = missing.minus(part);
            if missing.is_zero() {
                *self = left;
                return Some(taken);
            }
        }
        None
    }

    /// Takes space for a volume on this kind of disk: a part of it, or, of a disk that is
    /// mounted, all.
    pub fn take_disk(&mut self, info: &Persistent) -> Option<pb::Resource> {
        if info.r#type == DiskType::Root {
            return self.take_scalar("disk", info.size as f64, &["*"])?.pop();
        }
        let size = Scalar::from_f64(info.size as f64);
        let at = self.0.iter().position(|r| is_disk(r, info))?;
        let there = self.0[at].scalar.as_ref().map_or(0.0, |s| s.value);
        let there = Scalar::from_f64(there);
        if info.r#type == DiskType::Mount {
            return Some(self.0.remove(at));
        }
        let value = |amount: Scalar| {
            Some(pb::value::Scalar {
                value: amount.to_f64(),
            })
        };
        let taken = pb::Resource {
            scalar: value(size),
            ..self.0[at].clone()
        };
        self.0[at].scalar = value(there.minus(size));
        Some(taken)
    }

    /// Takes these ports, each from where it is, or none.
    pub fn take_ports(&mut self, ports: &[u16], roles: &[&str]) -> Option<Vec<pb::Resource>> {
        let mut taken: Vec<pb::Resource> = Vec::new();
        let mut left = self.clone();
        for port in ports {
            let one = Ranges::new([(u64::from(*port), u64::from(*port))]);
            let places = left.usable("ports", roles);
            let at = places
                .into_iter()
                .find(|at| ranges(&left.0[*at]).contains(&one))?;
            let rest = ranges(&left.0[at]).difference(&one);
            left.0[at].ranges = Some(to_pb(&rest));
            let source = pb::Resource {
                ranges: None,
                ..left.0[at].clone()
            };
            let known = taken.iter_mut().find(|t| {
                let t = pb::Resource {
                    ranges: None,
                    ..(*t).clone()
                };
                t == source
            });
            match known {
                Some(known) => known.ranges = Some(to_pb(&ranges(known).union(&one))),
                None => taken.push(pb::Resource {
                    ranges: Some(to_pb(&one)),
                    ..source
                }),
            }
        }
        *self = left;
        Some(taken)
    }

    /// Ports that could be taken.
    fn free_ports(&self, roles: &[&str]) -> Ranges {
        let places = self.usable("ports", roles);
        let none = Ranges::new([]);
        places
            .iter()
            .fold(none, |all, at| all.union(&ranges(&self.0[*at])))
    }
}

/// Whether a disk of an own kind has room for a volume and may have it.
fn is_disk(resource: &pb::Resource, info: &Persistent) -> bool {
    use pb::resource::disk_info::source::Type;
    let Some(disk) = resource.disk.as_ref().filter(|d| d.persistence.is_none()) else {
        return false;
    };
    let Some(source) = disk.source.as_ref() else {
        return false;
    };
    let size = resource.scalar.as_ref().map_or(0.0, |s| s.value);
    let (kind, root) = match info.r#type {
        DiskType::Root => return false,
        DiskType::Path => (
            Type::Path,
            source.path.as_ref().and_then(|p| p.root.clone()),
        ),
        DiskType::Mount => (
            Type::Mount,
            source.mount.as_ref().and_then(|m| m.root.clone()),
        ),
    };
    let root = root.unwrap_or_default();
    let allowed = info.constraints.iter().all(|c| match &c[..] {
        [_, operator, pattern] => matches(pattern, &root) == (operator == "LIKE"),
        _ => false,
    });
    source.r#type == kind as i32
        && resource.reservations.is_empty()
        && resource.revocable.is_none()
        && size >= info.size as f64
        && info.max_size.is_none_or(|max| size <= max as f64)
        && source.profile == info.profile_name
        && allowed
}

/// The port ranges of a resource.
pub fn ranges(resource: &pb::Resource) -> Ranges {
    let list = resource.ranges.as_ref().map_or(&[][..], |r| &r.range);
    Ranges::new(list.iter().map(|r| (r.begin, r.end)))
}

fn to_pb(ranges: &Ranges) -> pb::value::Ranges {
    let range = |(begin, end): &(u64, u64)| pb::value::Range {
        begin: *begin,
        end: *end,
    };
    pb::value::Ranges {
        range: ranges.as_slice().iter().map(range).collect(),
    }
}

/// Chooses a host port for each of the app's ports; none where a mapping wants none. Nothing
/// if the pool has not got them.
pub fn choose(
    app: &App,
    pool: &Pool,
    roles: &[&str],
    rng: &mut impl Rng,
) -> Option<Vec<Option<u16>>> {
    let wanted: Vec<Option<u16>> = if app.port_mappings().is_empty() {
        let definitions = app.port_definitions.iter().flatten();
        // Without requirePorts the numbers are those that the outside uses.
        let number = |port| if app.require_ports { port } else { 0 };
        definitions.map(|d| Some(number(d.port))).collect()
    } else {
        app.port_mappings().iter().map(|m| m.host_port).collect()
    };
    let mut fixed: Vec<u16> = wanted
        .iter()
        .copied()
        .flatten()
        .filter(|p| *p != 0)
        .collect();
    let one = |port: u16| (u64::from(port), u64::from(port));
    let free = pool.free_ports(roles);
    if !free.contains(&Ranges::new(fixed.iter().copied().map(one))) {
        return None;
    }
    let open = wanted.iter().filter(|p| **p == Some(0)).count();
    let free = free.difference(&Ranges::new(fixed.iter().copied().map(one)));
    let mut chosen = random_ports(&free, open, rng)?;
    fixed.clear();
    let ports = wanted.into_iter().map(|port| match port {
        Some(0) => chosen.pop(),
        other => other,
    });
    Some(ports.collect())
}

/// Different ports, from anywhere in the ranges.
fn random_ports(free: &Ranges, count: usize, rng: &mut impl Rng) -> Option<Vec<u16>> {
    if (free.count() as usize) < count {
        return None;
    }
    let nth = |mut n: u64| {
        for (begin, end) in free.as_slice() {
            let size = end - begin + 1;
            if n < size {
                return u16::try_from(begin + n).ok();
            }
            n -= size;
        }
        None
    };
    if free.count() <= 4 * count as u64 {
        let mut all: Vec<u16> = (0..free.count()).filter_map(nth).collect();
        all.shuffle(rng);
        all.truncate(count);
        return (all.len() == count).then_some(all);
    }
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let port = nth(rng.random_range(0..free.count()))?;
        if !chosen.contains(&port) {
            chosen.push(port);
        }
    }
    Some(chosen)
}
