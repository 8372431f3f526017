//! Mesos' resource arithmetic: what an agent has, what is offered, what a task uses.
//!
//! [`Resources`] is a list in which quantities that may be added are added: same name, kind,
//! reservations, allocation, disk and so on. Everything is checked on the way in
//! ([`Resources::from_pb`]); afterwards no operation can fail except taking away what is
//! not there.

mod display;
mod parse;
pub mod role;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesos::pb;
use mesos::pb::resource::reservation_info::Type as ReservationType;

pub use parse::{parse_attributes, scalar_map};
pub use role::{DEFAULT_ROLE, is_strict_subrole};
pub use value::{Ranges, Scalar, Value};

/// Why resources are refused. Never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// A resource in a message breaks a rule; the text is Mesos' own.
    #[error("{0}")]
    Invalid(String),
    /// A text such as that of `--resources` cannot be read.
    #[error("bad value for resources: {0}")]
    Text(String),
}

/// More was to be taken away than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{from} does not contain {taken}")]
pub struct NotContained {
    /// What there is, printed.
    pub from: String,
    /// What was to be taken, printed.
    pub taken: String,
}

/// The forms in which resources appear in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `reservations` only: clients with the capability RESERVATION_REFINEMENT.
    PostRefinement,
    /// `role` and `reservation`: older clients.
    PreRefinement,
    /// Both, for people and tools that read an endpoint.
    Endpoint,
}

/// What makes a resource of its own kind, everything but its quantity.
#[derive(Debug, Clone, PartialEq)]
struct Meta {
    name: Arc<str>,
    /// The role it is allocated to, while it is offered or used.
    allocation: Option<Arc<str>>,
    /// From the outermost to the innermost.
    reservations: Vec<pb::resource::ReservationInfo>,
    rare: Option<Box<Rare>>,
}

/// What most resources do not have.
#[derive(Debug, Clone, PartialEq, Default)]
struct Rare {
    disk: Option<pb::resource::DiskInfo>,
    provider: Option<pb::ResourceProviderId>,
    revocable: bool,
    shared: bool,
}

/// One resource: a quantity of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    meta: Meta,
    value: Value,
}

impl Resource {
    /// Unreserved and not allocated.
    pub fn new(name: &str, value: Value) -> Self {
        Self {
            meta: Meta {
                name: name.into(),
                allocation: None,
                reservations: Vec::new(),
                rare: None,
            },
            value,
        }
    }

    /// Checks and reads one resource in any of the formats.
    pub fn from_pb(resource: &pb::Resource) -> Result<Self, ResourceError> {
        let invalid = |text: &str| Err(ResourceError::Invalid(text.to_owned()));
        if resource.name.is_empty() {
            return invalid("Empty resource name");
        }
        let value = value_from_pb(resource)?;
        if resource.disk.is_some() && resource.name != "disk" {
            return Err(ResourceError::Invalid(format!(
                "DiskInfo should not be set for {} resource",
                resource.name
            )));
        }
        let reservations = reservations_from_pb(resource)?;
        let rare = Rare {
            disk: resource.disk.clone(),
            provider: resource.provider_id.clone(),
            revocable: resource.revocable.is_some(),
            shared: resource.shared.is_some(),
        };
        let persistent = rare.disk.as_ref().is_some_and(|d| d.persistence.is_some());
        if rare.shared && !persistent {
            return Err(ResourceError::Invalid(format!(
                "Resource '{}' cannot be shared: only persistent volumes can",
                resource.name
            )));
        }
        Ok(Self {
            meta: Meta {
                name: resource.name.as_str().into(),
                allocation: resource
                    .allocation_info
                    .as_ref()
                    .map(|a| a.role.as_deref().unwrap_or_default().into()),
                reservations,
                rare: (rare != Rare::default()).then(|| Box::new(rare)),
            },
            value,
        })
    }

    /// The message form. Refined reservations have no older form: there the innermost counts.
    #[allow(deprecated, reason = "older clients read `role`")]
    pub fn to_pb(&self, format: Format) -> pb::Resource {
        let rare = self.meta.rare.as_deref();
        let mut out = pb::Resource {
            provider_id: rare.and_then(|r| r.provider.clone()),
            name: self.meta.name.to_string(),
            r#type: self.value.kind() as i32,
            allocation_info: self.meta.allocation.as_ref().map(|role| {
                pb::resource::AllocationInfo {
                    role: Some(role.to_string()),
                }
            }),
            disk: rare.and_then(|r| r.disk.clone()),
            revocable: rare
                .filter(|r| r.revocable)
                .map(|_| pb::resource::RevocableInfo {}),
            shared: rare
                .filter(|r| r.shared)
                .map(|_| pb::resource::SharedInfo {}),
            ..Default::default()
        };
        match &self.value {
            Value::Scalar(s) => out.scalar = Some(pb::value::Scalar { value: s.to_f64() }),
            Value::Ranges(r) => out.ranges = Some(ranges_to_pb(r)),
            Value::Set(s) => {
                out.set = Some(pb::value::Set {
                    item: s.iter().cloned().collect(),
                });
            }
        }
        if format != Format::PreRefinement {
            out.reservations.clone_from(&self.meta.reservations);
        }
        if format != Format::PostRefinement {
            match self.meta.reservations.last() {
                None => out.role = Some(DEFAULT_ROLE.to_owned()),
                Some(last) => {
                    out.role.clone_from(&last.role);
                    if last.r#type() == ReservationType::Dynamic {
                        out.reservation = Some(pb::resource::ReservationInfo {
                            r#type: None,
                            role: None,
                            principal: last.principal.clone(),
                            labels: last.labels.clone(),
                        });
                    }
                }
            }
        }
        out
    }

    /// `cpus`, `mem`, `ports`, ...
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// How much.
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// The role it is allocated to.
    pub fn allocation(&self) -> Option<&str> {
        self.meta.allocation.as_deref()
    }

    /// The role it is reserved for.
    pub fn reserved_for(&self) -> Option<&str> {
        self.meta.reservations.last()?.role.as_deref()
    }

    /// Whether it may be taken away at any time.
    pub fn is_revocable(&self) -> bool {
        self.meta.rare.as_ref().is_some_and(|r| r.revocable)
    }

    /// Whether a framework in `role` may have it: unreserved, or reserved for the role or
    /// one above it.
    pub fn allocatable_to(&self, role: &str) -> bool {
        self.reserved_for()
            .is_none_or(|of| of == role || role::is_strict_subrole(role, of))
    }

    /// Whether a part of it can be given away.
    pub fn is_divisible(&self) -> bool {
        !self.exclusive()
    }

    /// The same resource, that much of it.
    #[must_use]
    pub fn with_scalar(&self, scalar: Scalar) -> Self {
        Self {
            meta: self.meta.clone(),
            value: Value::Scalar(scalar),
        }
    }

    /// Exclusive things (mount disks, persistent volumes) are never merged or split.
    fn exclusive(&self) -> bool {
        use pb::resource::disk_info::source::Type;
        let Some(disk) = self.meta.rare.as_ref().and_then(|r| r.disk.as_ref()) else {
            return false;
        };
        disk.persistence.is_some()
            || disk.source.as_ref().is_some_and(|s| match s.r#type() {
                Type::Mount | Type::Block => true,
                Type::Raw => s.id.is_some(),
                Type::Path | Type::Unknown => false,
            })
    }

    fn contains(&self, other: &Self) -> bool {
        if self.exclusive() {
            return self == other;
        }
        self.meta == other.meta && self.value.contains(&other.value)
    }
}

fn value_from_pb(resource: &pb::Resource) -> Result<Value, ResourceError> {
    let invalid = |text: &str| Err(ResourceError::Invalid(text.to_owned()));
    let parts = (&resource.scalar, &resource.ranges, &resource.set);
    match pb::value::Type::try_from(resource.r#type) {
        Ok(pb::value::Type::Scalar) => {
            let (Some(scalar), None, None) = parts else {
                return invalid("Invalid scalar resource");
            };
            if !scalar.value.is_finite() {
                return invalid("Invalid scalar resource: value is not finite");
            }
            let fixed = Scalar::from_f64(scalar.value);
            if scalar.value != 0.0 && fixed <= Scalar::ZERO {
                return invalid("Invalid scalar resource: value <= 0");
            }
            Ok(Value::Scalar(fixed))
        }
        Ok(pb::value::Type::Ranges) => {
            let (None, Some(ranges), None) = parts else {
                return invalid("Invalid ranges resource");
            };
            let mut all: Vec<_> = ranges.range.iter().map(|r| (r.begin, r.end)).collect();
            if all.iter().any(|(b, e)| b > e) {
                return invalid("Invalid ranges resource: begin > end");
            }
            all.sort_unstable();
            if all.windows(2).any(|w| w[1].0 <= w[0].1) {
                return invalid("Invalid ranges resource: overlapping ranges");
            }
            Ok(Value::Ranges(Ranges::new(all)))
        }
        Ok(pb::value::Type::Set) => {
            let (None, None, Some(set)) = parts else {
                return invalid("Invalid set resource");
            };
            let items: std::collections::BTreeSet<_> = set.item.iter().cloned().collect();
            if items.len() != set.item.len() {
                return invalid("Invalid set resource: duplicated elements");
            }
            Ok(Value::Set(items))
        }
        Ok(pb::value::Type::Text) => invalid("Unsupported resource type"),
        Err(_) => invalid("Invalid resource type"),
    }
}

#[allow(deprecated, reason = "older clients send `role`")]
fn reservations_from_pb(
    resource: &pb::Resource,
) -> Result<Vec<pb::resource::ReservationInfo>, ResourceError> {
    let invalid = |text: String| Err(ResourceError::Invalid(text));
    let check = |name: &str| {
        role::validate(name).map_err(|error| ResourceError::Invalid(error.to_string()))
    };
    if !resource.reservations.is_empty() {
        for (i, reservation) in resource.reservations.iter().enumerate() {
            let name = reservation.role.as_deref().unwrap_or_default();
            check(name)?;
            if name == DEFAULT_ROLE {
                return invalid("Invalid reservation: role \"*\" cannot be reserved".to_owned());
            }
            if i > 0 {
                let above = resource.reservations[i - 1].role.as_deref().unwrap_or("");
                if !role::is_strict_subrole(name, above) {
                    return invalid(format!(
                        "Invalid refined reservation: role '{name}' is not a refinement of '{above}'"
                    ));
                }
            }
        }
        return Ok(resource.reservations.clone());
    }
    let name = resource.role.as_deref().unwrap_or(DEFAULT_ROLE);
    check(name)?;
    match (&resource.reservation, name) {
        (Some(_), DEFAULT_ROLE) => {
            invalid("Invalid reservation: role \"*\" cannot be dynamically reserved".to_owned())
        }
        (None, DEFAULT_ROLE) => Ok(Vec::new()),
        (None, name) => Ok(vec![parse::static_reservation(name)]),
        (Some(old), name) => Ok(vec![pb::resource::ReservationInfo {
            r#type: Some(ReservationType::Dynamic as i32),
            role: Some(name.to_owned()),
            principal: old.principal.clone(),
            labels: old.labels.clone(),
        }]),
    }
}

fn ranges_to_pb(ranges: &Ranges) -> pb::value::Ranges {
    pb::value::Ranges {
        range: ranges
            .as_slice()
            .iter()
            .map(|&(begin, end)| pb::value::Range { begin, end })
            .collect(),
    }
}

/// A list of resources in which nothing is empty and everything that can be is added up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resources(Vec<Resource>);

impl Resources {
    /// Reads `cpus:2;mem:4096;ports:[31000-32000];cpus(web):1`, or a JSON array.
    pub fn parse(text: &str) -> Result<Self, ResourceError> {
        parse::resources(text)
    }

    /// Checks and reads resources of a message, in any of the formats.
    pub fn from_pb(list: &[pb::Resource]) -> Result<Self, ResourceError> {
        let mut out = Self(Vec::with_capacity(list.len()));
        for resource in list {
            out.add(&Resource::from_pb(resource)?);
        }
        Ok(out)
    }

    /// The message form.
    pub fn to_pb(&self, format: Format) -> Vec<pb::Resource> {
        self.0.iter().map(|r| r.to_pb(format)).collect()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The single resources.
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.0.iter()
    }

    /// Adds one resource.
    pub fn add(&mut self, resource: &Resource) {
        if resource.value.is_empty() {
            return;
        }
        if !resource.exclusive()
            && let Some(mine) = self.0.iter_mut().find(|r| r.meta == resource.meta)
        {
            mine.value.add(&resource.value);
            return;
        }
        self.0.push(resource.clone());
    }

    /// Adds all.
    pub fn add_all(&mut self, other: &Self) {
        for resource in &other.0 {
            self.add(resource);
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.add_all(other);
        out
    }

    /// Whether all of `other` is here.
    pub fn contains(&self, other: &Self) -> bool {
        // Kinds are unique in both lists (but for exclusive ones, which must be equal), so
        // each can be looked at on its own.
        other
            .0
            .iter()
            .all(|theirs| self.0.iter().any(|mine| mine.contains(theirs)))
    }

    /// Takes away all of `other`, or nothing and an error when it is not all here.
    pub fn subtract(&mut self, other: &Self) -> Result<(), NotContained> {
        if !self.contains(other) {
            return Err(NotContained {
                from: self.to_string(),
                taken: other.to_string(),
            });
        }
        self.subtract_what_is_here(other);
        Ok(())
    }

    /// Takes away whatever of `other` is here. For accounts that must go on after an
    /// inconsistency, such as an agent that came back with less than before.
    pub fn subtract_what_is_here(&mut self, other: &Self) {
        for theirs in &other.0 {
            if theirs.exclusive() {
                if let Some(i) = self.0.iter().position(|mine| mine == theirs) {
                    self.0.remove(i);
                }
                continue;
            }
            if let Some(i) = self.0.iter().position(|mine| mine.meta == theirs.meta) {
                self.0[i].value.subtract(&theirs.value);
                if self.0[i].value.is_empty() {
                    self.0.remove(i);
                }
            }
        }
    }

    /// The same resources allocated to `role`.
    #[must_use]
    pub fn allocated_to(&self, role: &str) -> Self {
        let role: Arc<str> = role.into();
        self.map(|r| r.meta.allocation = Some(Arc::clone(&role)))
    }

    /// The same resources with `role` where no allocation is given.
    #[must_use]
    pub fn allocated_by_default(&self, role: &str) -> Self {
        let role: Arc<str> = role.into();
        self.map(|r| {
            r.meta.allocation.get_or_insert_with(|| Arc::clone(&role));
        })
    }

    /// The same resources allocated to nobody.
    #[must_use]
    pub fn unallocated(&self) -> Self {
        self.map(|r| r.meta.allocation = None)
    }

    fn map(&self, change: impl Fn(&mut Resource)) -> Self {
        let mut out = Self(Vec::with_capacity(self.0.len()));
        for resource in &self.0 {
            let mut resource = resource.clone();
            change(&mut resource);
            out.add(&resource);
        }
        out
    }

    /// Those for which `keep` holds.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Resource) -> bool) -> Self {
        Self(self.0.iter().filter(|r| keep(r)).cloned().collect())
    }

    /// What a framework in `role` may have.
    #[must_use]
    pub fn allocatable_to(&self, role: &str) -> Self {
        self.filter(|r| r.allocatable_to(role))
    }

    /// What is allocated, by role.
    pub fn by_allocation(&self) -> BTreeMap<String, Self> {
        let mut out: BTreeMap<String, Self> = BTreeMap::new();
        for resource in &self.0 {
            if let Some(role) = resource.allocation() {
                out.entry(role.to_owned()).or_default().add(resource);
            }
        }
        out
    }

    /// What is reserved, by the role it is reserved for.
    pub fn by_reservation(&self) -> BTreeMap<String, Self> {
        let mut out: BTreeMap<String, Self> = BTreeMap::new();
        for resource in &self.0 {
            if let Some(role) = resource.reserved_for() {
                out.entry(role.to_owned()).or_default().add(resource);
            }
        }
        out
    }

    /// What is not reserved.
    #[must_use]
    pub fn unreserved(&self) -> Self {
        self.filter(|r| r.reserved_for().is_none())
    }

    /// The sum of all scalars of this name.
    pub fn scalar(&self, name: &str) -> Option<Scalar> {
        let mut sum = None;
        for resource in self.0.iter().filter(|r| r.name() == name) {
            if let Value::Scalar(s) = resource.value {
                sum = Some(s.plus(sum.unwrap_or_default()));
            }
        }
        sum
    }

    /// All numbers of this name, `ports` usually.
    pub fn ranges(&self, name: &str) -> Ranges {
        let mut all = Ranges::default();
        for resource in self.0.iter().filter(|r| r.name() == name) {
            if let Value::Ranges(r) = &resource.value {
                all = all.union(r);
            }
        }
        all
    }

    /// Sums of the scalars by name: what fair shares are computed from.
    pub fn scalars(&self) -> BTreeMap<Arc<str>, Scalar> {
        let mut out: BTreeMap<Arc<str>, Scalar> = BTreeMap::new();
        for resource in &self.0 {
            if let Value::Scalar(s) = resource.value {
                let sum = out.entry(Arc::clone(&resource.meta.name)).or_default();
                *sum = sum.plus(s);
            }
        }
        out
    }

    /// The order in which Mesos' allocator offers them: ranges and sets that nobody reserved,
    /// what is reserved, then scalars that nobody reserved.
    #[must_use]
    pub fn scalars_last(&self) -> Self {
        let place = |r: &Resource| match r.value {
            _ if r.reserved_for().is_some() => 1,
            Value::Scalar(_) => 2,
            _ => 0,
        };
        let mut out = self.0.clone();
        // Stable: within each kind the order stays.
        out.sort_by_key(place);
        Self(out)
    }
}

impl<'a> IntoIterator for &'a Resources {
    type Item = &'a Resource;
    type IntoIter = std::slice::Iter<'a, Resource>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(iter: I) -> Self {
        let mut out = Self::default();
        for resource in iter {
            out.add(&resource);
        }
        out
    }
}
