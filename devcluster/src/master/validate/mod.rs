//! What Mesos refuses, and in which words: clients show these texts and some match on them.

mod constraints;
mod task;

use std::collections::BTreeSet;

use mesos::pb;
use mesos::pb::scheduler::Call;
use mesos::pb::scheduler::call::Type as CallType;

use super::frameworks::capabilities_of;
use crate::ids;
use crate::resources::role::{self, Braced};

pub(super) use constraints::{offer_constraints, satisfied};
pub(super) use task::{group, normalized, normalized_executor, task};

/// Checks a scheduler's call before anything else looks at it.
pub fn scheduler_call(call: &Call) -> Result<(), String> {
    let expect = |there: bool, what: &str| match there {
        true => Ok(()),
        false => Err(format!("Expecting '{what}' to be present")),
    };
    expect(call.r#type.is_some(), "type")?;
    if call.r#type() == CallType::Subscribe {
        let Some(subscribe) = &call.subscribe else {
            return expect(false, "subscribe");
        };
        let id = |id: &Option<pb::FrameworkId>| id.clone().unwrap_or_default().value;
        if id(&call.framework_id) != id(&subscribe.framework_info.id) {
            return Err("'framework_id' differs from 'subscribe.framework_info.id'".to_owned());
        }
        return Ok(());
    }
    expect(call.framework_id.is_some(), "framework_id")?;
    match call.r#type() {
        CallType::Unknown
        | CallType::Subscribe
        | CallType::Teardown
        | CallType::Revive
        | CallType::Suppress => Ok(()),
        CallType::Accept => expect(call.accept.is_some(), "accept"),
        CallType::Decline => expect(call.decline.is_some(), "decline"),
        CallType::AcceptInverseOffers => expect(
            call.accept_inverse_offers.is_some(),
            "accept_inverse_offers",
        ),
        CallType::DeclineInverseOffers => expect(
            call.decline_inverse_offers.is_some(),
            "decline_inverse_offers",
        ),
        CallType::Kill => expect(call.kill.is_some(), "kill"),
        CallType::Shutdown => expect(call.shutdown.is_some(), "shutdown"),
        CallType::Acknowledge => match &call.acknowledge {
            Some(acknowledge) => uuid(&acknowledge.uuid),
            None => expect(false, "acknowledge"),
        },
        CallType::AcknowledgeOperationStatus => match &call.acknowledge_operation_status {
            Some(acknowledge) => {
                uuid(&acknowledge.uuid)?;
                expect(acknowledge.agent_id.is_some(), "agent_id")
            }
            None => expect(false, "acknowledge_operation_status"),
        },
        CallType::Reconcile => expect(call.reconcile.is_some(), "reconcile"),
        CallType::ReconcileOperations => {
            expect(call.reconcile_operations.is_some(), "reconcile_operations")
        }
        CallType::Message => expect(call.message.is_some(), "message"),
        CallType::Request => expect(call.request.is_some(), "request"),
        CallType::UpdateFramework => match &call.update_framework {
            None => expect(false, "update_framework"),
            Some(update) if call.framework_id != update.framework_info.id => {
                Err("'framework_id' differs from 'update_framework.framework_info.id'".to_owned())
            }
            Some(_) => Ok(()),
        },
    }
}

/// Sixteen bytes of version 1 to 5, as the library knows them that Mesos uses; the variant does
/// not count.
pub(crate) fn uuid(bytes: &[u8]) -> Result<(), String> {
    match uuid::Uuid::from_slice(bytes) {
        Ok(uuid) if (1..=5).contains(&uuid.get_version_num()) => Ok(()),
        Ok(_) | Err(_) => Err("Not a valid UUID".to_owned()),
    }
}

#[allow(deprecated, reason = "frameworks without MULTI_ROLE have only `role`")]
pub(super) fn framework_info(info: &pb::FrameworkInfo) -> Result<(), String> {
    if capabilities_of(info).multi_role {
        if info.role.is_some() {
            return Err(
                "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
                    .to_owned(),
            );
        }
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<_> = info.roles.iter().filter(|r| !seen.insert(*r)).collect();
        if !twice.is_empty() {
            let twice: Vec<_> = twice.into_iter().collect();
            return Err(format!(
                "'FrameworkInfo.roles' contains duplicate items: {}",
                Braced(&twice)
            ));
        }
        for role in &info.roles {
            role::validate(role)
                .map_err(|e| format!("'FrameworkInfo.roles' contains invalid role: {e}"))?;
        }
    } else {
        if !info.roles.is_empty() {
            return Err(
                "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE \
                 capable"
                    .to_owned(),
            );
        }
        role::validate(info.role.as_deref().unwrap_or(role::DEFAULT_ROLE))
            .map_err(|e| format!("'FrameworkInfo.role' is not a valid role: {e}"))?;
    }
    if let Some(id) = &info.id
        && !id.value.is_empty()
        && let Some(why) = ids::why_invalid(&id.value)
    {
        return Err(why);
    }
    for filter in info.offer_filters.values() {
        let Some(minimum) = &filter.min_allocatable_resources else {
            continue;
        };
        for scalar in minimum
            .quantities
            .iter()
            .flat_map(|q| q.quantities.values())
        {
            if !scalar.value.is_finite() || scalar.value < 0.0 {
                return Err(
                    "Invalid 'min_allocatable_resources': values must not be negative or infinite"
                        .to_owned(),
                );
            }
        }
    }
    let timeout = info.failover_timeout.unwrap_or(0.0);
    // Durations are nanoseconds in 64 bits.
    let most = i64::MAX as f64 / 1e9;
    if !(-most..=most).contains(&timeout) {
        return Err(format!(
            "The framework failover_timeout ({}) is invalid",
            as_cpp_prints(timeout)
        ));
    }
    Ok(())
}

/// A floating point number as C++ streams print it: six digits, two of exponent at least.
fn as_cpp_prints(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{value:.5e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    match exponent.parse::<i32>() {
        Ok(e) if (-4..6).contains(&e) => format!("{value}"),
        Ok(e) => format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs()),
        Err(_) => text,
    }
}

pub(super) fn framework_update(
    old: &pb::FrameworkInfo,
    new: &pb::FrameworkInfo,
) -> Result<(), String> {
    if old.principal != new.principal {
        return Err("Changing framework's principal is not allowed.".to_owned());
    }
    if old.user != new.user {
        return Err(format!(
            "Updating 'FrameworkInfo.user' is unsupported; attempted to update from '{}' to '{}'",
            old.user, new.user
        ));
    }
    let (from, to) = (old.checkpoint(), new.checkpoint());
    if from != to {
        return Err(format!(
            "Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from \
             '{from}' to '{to}'"
        ));
    }
    Ok(())
}

pub(super) fn suppressed_roles(
    roles: &BTreeSet<String>,
    suppressed: &[String],
) -> Result<(), String> {
    let foreign: BTreeSet<_> = suppressed.iter().filter(|r| !roles.contains(*r)).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let foreign: Vec<_> = foreign.into_iter().collect();
    Err(format!(
        "Suppressed roles {} are not contained in the set of roles",
        Braced(&foreign)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_mesos_errors() {
        for (value, text) in [
            (1e300, "1e+300"),
            (-1.25e-7, "-1.25e-07"),
            (1e12, "1e+12"),
            (5.5, "5.5"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(as_cpp_prints(value), text);
        }
    }

    #[test]
    fn uuids_of_version_1_to_5_are_valid() {
        assert!(uuid(uuid::Uuid::new_v4().as_bytes()).is_ok());
        let v7 = uuid::Uuid::parse_str("0190163d-8694-739b-aea5-966c26f8ad91").unwrap();
        assert_eq!(uuid(v7.as_bytes()), Err("Not a valid UUID".to_owned()));
        let odd_variant = uuid::Uuid::parse_str("aabbccdd-eeff-5011-0233-445566778899").unwrap();
        assert!(uuid(odd_variant.as_bytes()).is_ok());
        assert!(uuid(&[1, 2, 3]).is_err());
        assert!(uuid(&[]).is_err());
    }
}
