//! Quotas and weights of roles as operators set them. Both survive a restart of the master.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesos::pb;
use mesos::pb::quota::{QuotaConfig, QuotaInfo, QuotaStatus};

use super::event::Answer;
use super::state::MasterState;
use crate::allocator::quota::Quota;
use crate::ids::OfferId;
use crate::resources::{Format, Resource, Resources, Scalar, Value, role};

type Scalars = BTreeMap<Arc<str>, Scalar>;

fn invalid(why: impl std::fmt::Display) -> String {
    format!("Invalid QuotaConfig: {why}")
}

/// Reads a configuration. A guarantee or limit of nothing at all is not the same for both: the
/// former says nothing, the latter forbids.
pub(super) fn read(config: &QuotaConfig) -> Result<Quota, String> {
    role::validate(&config.role).map_err(invalid)?;
    if config.role == role::DEFAULT_ROLE {
        return Err(invalid(format!(
            "setting quota for the default '{}' role is not supported",
            role::DEFAULT_ROLE
        )));
    }
    let scalars = |of: &std::collections::HashMap<String, pb::value::Scalar>| {
        of.iter()
            .map(|(name, scalar)| match scalar.value {
                value if value >= 0.0 => Ok((Arc::from(name.as_str()), Scalar::from_f64(value))),
                value => Err(invalid(format!(
                    "'{name}' is {value}: it must not be negative"
                ))),
            })
            .collect::<Result<Scalars, String>>()
    };
    let mut guarantees = scalars(&config.guarantees)?;
    guarantees.retain(|_, amount| !amount.is_zero());
    let limits = scalars(&config.limits)?;
    for (name, guarantee) in &guarantees {
        if limits.get(name).is_some_and(|limit| limit < guarantee) {
            return Err(invalid(format!(
                "guarantees '{}' are not within limits '{}'",
                shown(&guarantees),
                shown(&limits)
            )));
        }
    }
    Ok(Quota { guarantees, limits })
}

/// As it was set.
pub(super) fn config(role: &str, quota: &Quota) -> QuotaConfig {
    let scalars = |of: &Scalars| {
        of.iter()
            .map(|(name, scalar)| {
                let value = scalar.to_f64();
                (name.to_string(), pb::value::Scalar { value })
            })
            .collect()
    };
    QuotaConfig {
        role: role.to_owned(),
        guarantees: scalars(&quota.guarantees),
        limits: scalars(&quota.limits),
    }
}

/// As Mesos writes it in errors: `cpus:2; mem:1280`.
fn shown(scalars: &Scalars) -> String {
    let parts: Vec<String> = scalars
        .iter()
        .map(|(name, scalar)| format!("{name}:{scalar}"))
        .collect();
    parts.join("; ")
}

impl MasterState {
    /// UPDATE_QUOTA: all of them or none.
    pub(super) fn update_quota(&mut self, call: &pb::master::call::UpdateQuota) -> Answer {
        let mut wanted = BTreeMap::new();
        for config in &call.quota_configs {
            let quota = match read(config) {
                Ok(quota) => quota,
                Err(error) => return Answer::bad_request(error),
            };
            if wanted.insert(config.role.clone(), quota).is_some() {
                let text = format!("role '{}' appears more than once", config.role);
                return Answer::bad_request(invalid(text));
            }
        }
        let mut all = self.allocator.quotas().clone();
        all.extend(wanted.clone());
        let mut promised = Scalars::new();
        for (name, amount) in all.values().flat_map(|quota| &quota.guarantees) {
            let sum = promised.entry(Arc::clone(name)).or_default();
            *sum = sum.plus(*amount);
        }
        let capacity = self.allocator.capacity();
        let too_much = promised
            .iter()
            .any(|(name, amount)| *amount > capacity.get(name).copied().unwrap_or_default());
        if too_much && !call.force() {
            return Answer::bad_request(invalid(format!(
                "total quota guarantees '{}' exceed cluster capacity '{}' (use 'force' flag to bypass this check)",
                shown(&promised),
                shown(capacity)
            )));
        }
        for (role, quota) in wanted {
            self.allocator.set_quota(&role, quota);
        }
        self.registry.quotas = self
            .allocator
            .quotas()
            .iter()
            .map(|(role, quota)| (role.clone(), quota.clone()))
            .collect();
        self.save();
        self.rescind_all();
        Answer::Ok
    }

    /// SET_QUOTA, which clients from before 1.9 send: what is guaranteed is the limit too, and a
    /// quota that is set is not changed.
    pub(super) fn set_quota(&mut self, request: &pb::quota::QuotaRequest) -> Answer {
        let refuse = |why: String| {
            Answer::bad_request(format!("Failed to validate set quota request: {why}"))
        };
        let mut amounts = std::collections::HashMap::new();
        for resource in &request.guarantee {
            let plain = resource.reservations.is_empty() && resource.disk.is_none();
            let scalar = resource.scalar.filter(|_| plain);
            let Some(scalar) = scalar else {
                return refuse(format!(
                    "'{}' is not a plain scalar resource",
                    resource.name
                ));
            };
            if amounts.insert(resource.name.clone(), scalar).is_some() {
                return refuse(format!("'{}' is there more than once", resource.name));
            }
        }
        if amounts.is_empty() {
            return refuse("it guarantees nothing".to_owned());
        }
        let role = request.role();
        if self.allocator.quotas().contains_key(role) {
            return refuse(format!("role '{role}' has a quota already"));
        }
        self.update_quota(&pb::master::call::UpdateQuota {
            force: request.force,
            quota_configs: vec![QuotaConfig {
                role: role.to_owned(),
                guarantees: amounts.clone(),
                limits: amounts,
            }],
        })
    }

    /// REMOVE_QUOTA, which clients from before 1.9 send.
    pub(super) fn remove_quota(&mut self, role: &str) -> Answer {
        if !self.allocator.quotas().contains_key(role) {
            return Answer::bad_request(format!("Failed to remove quota: role '{role}' has none"));
        }
        self.update_quota(&pb::master::call::UpdateQuota {
            force: None,
            quota_configs: vec![QuotaConfig {
                role: role.to_owned(),
                ..Default::default()
            }],
        })
    }

    /// UPDATE_WEIGHTS.
    pub(super) fn update_weights(&mut self, infos: &[pb::WeightInfo]) -> Answer {
        for info in infos {
            if let Err(error) = role::validate(info.role()) {
                return Answer::bad_request(format!(
                    "Failed to validate update weights request JSON: {error}"
                ));
            }
            if info.weight.is_nan() || info.weight <= 0.0 {
                return Answer::bad_request(format!(
                    "Failed to validate update weights request JSON: Invalid weight '{}': Weights must be positive",
                    info.weight
                ));
            }
        }
        for info in infos {
            self.allocator.set_weight(info.role(), info.weight);
            self.registry
                .weights
                .insert(info.role().to_owned(), info.weight);
        }
        self.save();
        self.rescind_all();
        Answer::Ok
    }

    /// Shares are others now, so what is offered is offered anew with the next round.
    fn rescind_all(&mut self) {
        let offers: Vec<OfferId> = self.offers.keys().cloned().collect();
        for offer in offers {
            self.rescind(&offer);
        }
    }

    /// GET_QUOTA.
    #[allow(deprecated, reason = "clients from before 1.9 read `infos`")]
    pub(super) fn quota_status(&self) -> QuotaStatus {
        let quotas = self.allocator.quotas();
        let infos = quotas
            .iter()
            .filter(|(_, quota)| !quota.guarantees.is_empty());
        QuotaStatus {
            infos: infos
                .map(|(role, quota)| QuotaInfo {
                    role: Some(role.clone()),
                    guarantee: quota
                        .guarantees
                        .iter()
                        .map(|(name, scalar)| Resource::new(name, Value::Scalar(*scalar)))
                        .collect::<Resources>()
                        .to_pb(Format::PostRefinement),
                    ..Default::default()
                })
                .collect(),
            configs: quotas
                .iter()
                .map(|(role, quota)| config(role, quota))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(role: &str, guarantee: f64, limit: f64) -> QuotaConfig {
        let cpus = |value| [("cpus".to_owned(), pb::value::Scalar { value })].into();
        QuotaConfig {
            role: role.to_owned(),
            guarantees: cpus(guarantee),
            limits: cpus(limit),
        }
    }

    #[test]
    fn quotas_that_make_no_sense_are_refused() {
        assert!(read(&of("eng", 1.0, 1.0)).is_ok());
        assert!(read(&of("eng/../x", 1.0, 1.0)).is_err());
        assert!(read(&of("*", 1.0, 1.0)).is_err());
        assert!(read(&of("eng", -1.0, 1.0)).is_err());
        assert!(read(&of("eng", f64::NAN, 1.0)).is_err());
        assert_eq!(
            read(&of("eng", 2.0, 1.0)).unwrap_err(),
            "Invalid QuotaConfig: guarantees 'cpus:2' are not within limits 'cpus:1'"
        );
        // A limit of nothing forbids, a guarantee of nothing is none.
        let none = read(&of("eng", 0.0, 0.0)).unwrap();
        assert!(none.guarantees.is_empty() && none.limits.len() == 1);
    }

    #[test]
    fn what_was_set_is_shown() {
        let config_of = of("eng", 0.5, 2.0);
        assert_eq!(config("eng", &read(&config_of).unwrap()), config_of);
    }
}
