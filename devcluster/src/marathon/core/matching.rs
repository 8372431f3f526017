//! Placement constraints: whether an agent will do for one more instance of an app.

use std::collections::BTreeMap;

use mesos::pb;
use regex::Regex;

use super::durable::{Agent, Instance};
use crate::marathon::model::App;
use crate::resources::Scalar;

/// What constraints compare of the agent that an offer is of.
pub fn agent_of(offer: &pb::Offer) -> Agent {
    let fault_domain = offer.domain.as_ref().and_then(|d| d.fault_domain.as_ref());
    Agent {
        id: offer.agent_id.value.clone(),
        host: offer.hostname.clone(),
        attributes: offer
            .attributes
            .iter()
            .map(|a| (a.name.clone(), attribute_text(a)))
            .collect(),
        region: fault_domain.map(|d| d.region.name.clone()),
        zone: fault_domain.map(|d| d.zone.name.clone()),
    }
}

/// Scalars with at most three decimals, ranges and sets in order.
fn attribute_text(attribute: &pb::Attribute) -> String {
    if let Some(scalar) = &attribute.scalar {
        return scalar_text(scalar.value);
    }
    if let Some(text) = &attribute.text {
        return text.value.clone();
    }
    if let Some(ranges) = &attribute.ranges {
        let mut list: Vec<_> = ranges.range.iter().map(|r| (r.begin, r.end)).collect();
        list.sort_unstable();
        let texts: Vec<_> = list.iter().map(|(b, e)| format!("{b}-{e}")).collect();
        return format!("[{}]", texts.join(","));
    }
    let mut items = attribute
        .set
        .as_ref()
        .map_or(Vec::new(), |s| s.item.clone());
    items.sort();
    format!("{{{}}}", items.join(","))
}

fn scalar_text(value: f64) -> String {
    Scalar::from_f64(value).to_f64().to_string()
}

fn field<'a>(agent: &'a Agent, name: &str) -> Option<&'a str> {
    match name {
        "hostname" | "@hostname" => Some(&agent.host),
        "@region" => agent.region.as_deref(),
        "@zone" => agent.zone.as_deref(),
        other => agent.attributes.get(other).map(String::as_str),
    }
}

/// Whether the agent satisfies all constraints of the app, given where its other instances
/// are.
pub fn satisfies<'a>(
    app: &App,
    agent: &Agent,
    others: impl Iterator<Item = &'a Instance> + Clone,
) -> bool {
    app.constraints.iter().all(|constraint| {
        let [name, operator, rest @ ..] = &constraint[..] else {
            return false;
        };
        let value = rest.first().map_or("", String::as_str);
        let Some(offered) = field(agent, name) else {
            // Only what is not to be there may be missing.
            return operator == "UNLIKE";
        };
        let mut counts: BTreeMap<Option<&str>, u32> = BTreeMap::new();
        for other in others.clone() {
            let of_other = other.agent.as_ref().and_then(|a| field(a, name));
            *counts.entry(of_other).or_default() += 1;
        }
        let here = counts.get(&Some(offered)).copied().unwrap_or(0);
        match operator.as_str() {
            "UNIQUE" => here == 0,
            "MAX_PER" => value.parse().is_ok_and(|most: u32| here < most),
            "CLUSTER" if value.is_empty() => counts.is_empty() || here > 0,
            "CLUSTER" => offered == value,
            "GROUP_BY" => group_by(app.instances, value, &counts, here),
            "LIKE" => matches(value, offered),
            "UNLIKE" => !matches(value, offered),
            "IS" => match value.parse::<f64>() {
                Ok(number) => offered == scalar_text(number),
                Err(_) => offered == value,
            },
            _ => false,
        }
    })
}

/// The whole value must match.
pub fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|r| r.is_match(text))
}

/// Evenly over as many values as named. Without a number each value found so far is a group
/// and a new one is always taken.
fn group_by(wanted: u32, value: &str, counts: &BTreeMap<Option<&str>, u32>, here: u32) -> bool {
    let groups = match value {
        "inf" => u32::MAX,
        text => text.parse().unwrap_or(0),
    };
    if groups == 0 {
        // Balanced over the values that are known: none may be more than one ahead.
        let least = counts.values().copied().min().unwrap_or(0);
        return here == 0 || here <= least;
    }
    let each = wanted / groups;
    let rest = wanted % groups;
    let used: u32 = counts.values().map(|c| c.saturating_sub(each)).sum();
    if here > 0 {
        here < each || (here == each && used < rest)
    } else {
        counts.len() < groups as usize
    }
}

/// For each instance how many there are at its value of the app's GROUP_BY constraints.
pub fn crowding(app: &App, instances: &[&Instance]) -> Vec<usize> {
    let fields: Vec<&str> = app
        .constraints
        .iter()
        .filter(|c| c.get(1).is_some_and(|o| o == "GROUP_BY"))
        .filter_map(|c| c.first().map(String::as_str))
        .collect();
    let mut crowding = vec![0; instances.len()];
    for name in fields {
        let values: Vec<Option<&str>> = instances
            .iter()
            .map(|i| i.agent.as_ref().and_then(|a| field(a, name)))
            .collect();
        let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for value in &values {
            *counts.entry(*value).or_default() += 1;
        }
        for (at, value) in values.iter().enumerate() {
            let count = counts.get(value).copied().unwrap_or(0);
            crowding[at] = crowding[at].max(count);
        }
    }
    crowding
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::marathon::core::durable::{Condition, Goal};
    use crate::marathon::ids::{InstanceId, PathId, Version};
    use crate::marathon::model::read;

    fn agent(host: &str, rack: &str) -> Agent {
        Agent {
            id: format!("S-{host}"),
            host: host.to_owned(),
            attributes: [("rack".to_owned(), rack.to_owned())].into(),
            region: None,
            zone: Some(format!("z-{rack}")),
        }
    }

    fn app(instances: u32, constraints: serde_json::Value) -> App {
        let app =
            json!({"id": "/a", "cmd": "x", "instances": instances, "constraints": constraints});
        read::app(app, None, &PathId::root()).unwrap()
    }

    /// Offers each agent until nobody wants any more and says where the instances are.
    fn placed(app: &App, agents: &[Agent]) -> Vec<String> {
        let mut instances: Vec<Instance> = Vec::new();
        for round in 0..20_u128 {
            for (at, agent) in agents.iter().enumerate() {
                if instances.len() < app.instances as usize
                    && satisfies(app, agent, instances.iter())
                {
                    let unique = uuid::Uuid::from_u128(round * 100 + at as u128);
                    instances.push(Instance {
                        id: InstanceId::new(&app.id, unique),
                        app: app.id.clone(),
                        version: Version::default(),
                        goal: Goal::Running,
                        condition: Condition::Running,
                        since: Version::default(),
                        role: "*".to_owned(),
                        attempts: 1,
                        task: None,
                        agent: Some(agent.clone()),
                        reservation: None,
                        healthy: None,
                    });
                }
            }
        }
        let mut hosts: Vec<_> = instances
            .iter()
            .filter_map(|i| i.agent.as_ref().map(|a| a.host.clone()))
            .collect();
        hosts.sort();
        hosts
    }

    #[test]
    fn constraints_decide_where_instances_go() {
        let agents = [
            agent("h1", "a"),
            agent("h2", "a"),
            agent("h3", "b"),
            agent("h4", "b"),
        ];
        for (instances, constraint, hosts) in [
            (
                6,
                json!(["hostname", "UNIQUE"]),
                vec!["h1", "h2", "h3", "h4"],
            ),
            (3, json!(["rack", "CLUSTER", "b"]), vec!["h3", "h3", "h4"]),
            (3, json!(["rack", "CLUSTER"]), vec!["h1", "h1", "h2"]),
            (2, json!(["hostname", "LIKE", "h[24]"]), vec!["h2", "h4"]),
            (2, json!(["hostname", "UNLIKE", "h[24]"]), vec!["h1", "h3"]),
            (
                9,
                json!(["rack", "MAX_PER", "2"]),
                vec!["h1", "h2", "h3", "h4"],
            ),
            (
                4,
                json!(["rack", "GROUP_BY", "2"]),
                vec!["h1", "h2", "h3", "h4"],
            ),
            (2, json!(["@zone", "IS", "z-b"]), vec!["h3", "h4"]),
            (2, json!(["color", "LIKE", ".*"]), vec![]),
            (1, json!(["color", "UNLIKE", ".*"]), vec!["h1"]),
        ] {
            let app = app(instances, json!([constraint]));
            assert_eq!(placed(&app, &agents), hosts, "{constraint}");
        }
    }

    #[test]
    fn groups_are_filled_evenly() {
        let agents = [agent("h1", "a"), agent("h2", "b"), agent("h3", "c")];
        for value in [
            json!(["rack", "GROUP_BY", "3"]),
            json!(["rack", "GROUP_BY"]),
        ] {
            let hosts = placed(&app(7, json!([value])), &agents);
            for agent in &agents {
                let count = hosts.iter().filter(|h| **h == agent.host).count();
                assert!((2..=3).contains(&count), "{hosts:?}");
            }
        }
    }
}
