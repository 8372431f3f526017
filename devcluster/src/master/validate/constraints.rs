//! Offer constraints: which agents a framework wants to hear of at all.

use mesos::pb;
use mesos::pb::scheduler::OfferConstraints;
use mesos::pb::scheduler::attribute_constraint::predicate::Predicate;
use mesos::pb::scheduler::attribute_constraint::selector::{PseudoattributeType, Selector};
use mesos::pb::scheduler::offer_constraints::RoleConstraints;

use crate::master::frameworks::roles_of;

/// Why the constraints of a framework are refused.
pub(in crate::master) fn offer_constraints(
    info: &pb::FrameworkInfo,
    constraints: Option<&OfferConstraints>,
) -> Option<String> {
    let constraints = constraints?;
    let roles = roles_of(info);
    let mut names: Vec<_> = constraints.role_constraints.iter().collect();
    names.sort_by_key(|(role, _)| role.as_str());
    for (role, constraints) in names {
        if !roles.contains(role) {
            // No blank before `not`: so in Mesos.
            return Some(format!(
                "Offer constraints specify `role_constraints` for a role '{role}'not contained \
                 in the set of roles"
            ));
        }
        if constraints.groups.is_empty() {
            return Some(format!(
                "'OfferConstraints.role_constraints' of role '{role}' has no groups"
            ));
        }
        for constraint in constraints
            .groups
            .iter()
            .flat_map(|g| &g.attribute_constraints)
        {
            match &constraint.selector.selector {
                None => return Some("'AttributeConstraint.selector' is not set".to_owned()),
                Some(Selector::PseudoattributeType(kind))
                    if matches!(
                        PseudoattributeType::try_from(*kind),
                        Ok(PseudoattributeType::Unknown) | Err(_)
                    ) =>
                {
                    return Some("Unknown pseudoattribute in 'AttributeConstraint'".to_owned());
                }
                Some(_) => {}
            }
            match &constraint.predicate.predicate {
                None => return Some("'AttributeConstraint.predicate' is not set".to_owned()),
                Some(Predicate::TextMatches(_) | Predicate::TextNotMatches(_)) => {
                    return Some(
                        "Regular expressions in offer constraints are not supported by this \
                         master (devcluster)"
                            .to_owned(),
                    );
                }
                Some(_) => {}
            }
        }
    }
    None
}

/// Whether an agent satisfies one group at least.
pub(in crate::master) fn satisfied(constraints: &RoleConstraints, agent: &pb::AgentInfo) -> bool {
    constraints.groups.iter().any(|group| {
        group.attribute_constraints.iter().all(|constraint| {
            let Some(selector) = &constraint.selector.selector else {
                return false;
            };
            match &constraint.predicate.predicate {
                Some(predicate) => holds(predicate, &values(selector, agent)),
                None => false,
            }
        })
    })
}

/// The values of what is selected: `Some(text)`, or `None` for an attribute of another kind.
fn values<'a>(selector: &'a Selector, agent: &'a pb::AgentInfo) -> Vec<Option<&'a str>> {
    let domain = agent.domain.as_ref().and_then(|d| d.fault_domain.as_ref());
    match selector {
        Selector::AttributeName(name) => agent
            .attributes
            .iter()
            .filter(|a| a.name == *name)
            .map(|a| a.text.as_ref().map(|t| t.value.as_str()))
            .collect(),
        Selector::PseudoattributeType(kind) => match PseudoattributeType::try_from(*kind) {
            Ok(PseudoattributeType::Hostname) => vec![Some(agent.hostname.as_str())],
            Ok(PseudoattributeType::Region) => domain
                .map(|d| Some(d.region.name.as_str()))
                .into_iter()
                .collect(),
            Ok(PseudoattributeType::Zone) => domain
                .map(|d| Some(d.zone.name.as_str()))
                .into_iter()
                .collect(),
            Ok(PseudoattributeType::Unknown) | Err(_) => Vec::new(),
        },
    }
}

fn holds(predicate: &Predicate, values: &[Option<&str>]) -> bool {
    match predicate {
        Predicate::Exists(_) => !values.is_empty(),
        Predicate::NotExists(_) => values.is_empty(),
        // Values that are no text pass, as in Mesos.
        Predicate::TextEquals(text) => values.iter().any(|v| v.is_none_or(|v| v == text.value)),
        Predicate::TextNotEquals(text) => values.iter().all(|v| v.is_none_or(|v| v != text.value)),
        Predicate::TextMatches(_) | Predicate::TextNotMatches(_) => false,
    }
}
