//! A Mesos agent's attributes and domain as node labels.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use mesos::pb;

use super::syntax::{LABEL_MAX, is_label_key, is_label_value};
use crate::resources::demand::millis_of;

/// Node label of the agent's region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Node label of the agent's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Labels made of an agent, and what could not become one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentLabels {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// One sentence for each attribute that has no label, for an event and the log.
    pub problems: Vec<String>,
}

/// The labels of an agent.
pub fn labels_of(attributes: &[pb::Attribute], domain: Option<&pb::DomainInfo>) -> AgentLabels {
    let mut result = AgentLabels::default();
    for attribute in attributes {
        match label_of(attribute) {
            Ok((key, value)) => match result.labels.entry(key) {
                Entry::Vacant(label) => {
                    label.insert(value);
                }
                Entry::Occupied(_) => result.problems.push(format!(
                    "attribute `{}` appears more than once: its first value is the label",
                    attribute.name
                )),
            },
            Err(problem) => result.problems.push(problem),
        }
    }
    if let Some(fault) = domain.and_then(|d| d.fault_domain.as_ref()) {
        for (key, value) in [(REGION, &fault.region.name), (ZONE, &fault.zone.name)] {
            if is_label_value(value) {
                result.labels.insert(key.to_owned(), value.clone());
            } else {
                result.problems.push(format!(
                    "`{value}` is no label value and cannot become {key}"
                ));
            }
        }
    }
    result
}

fn label_of(attribute: &pb::Attribute) -> Result<(String, String), String> {
    let name = &attribute.name;
    let key = format!("{}{name}", seam::names::ATTRIBUTE_LABEL);
    if !is_label_key(&key) {
        let room = LABEL_MAX - "attribute-".len();
        return Err(format!(
            "attribute `{name}` cannot become a label: its name needs up to {room} letters, digits, `-`, `_` or `.`"
        ));
    }
    let value = match pb::value::Type::try_from(attribute.r#type) {
        Ok(pb::value::Type::Text) => attribute.text.as_ref().map(|t| t.value.clone()),
        Ok(pb::value::Type::Scalar) => attribute.scalar.as_ref().map(|s| scalar(s.value)),
        Ok(pb::value::Type::Ranges) => return Err(unsupported(name, "ranges")),
        Ok(pb::value::Type::Set) => return Err(unsupported(name, "a set")),
        Err(_) => return Err(unsupported(name, "of an unknown type")),
    };
    let value = value.ok_or_else(|| format!("attribute `{name}` has no value"))?;
    if !is_label_value(&value) {
        return Err(format!(
            "attribute `{name}` cannot become a label: `{value}` is no label value"
        ));
    }
    Ok((key, value))
}

fn unsupported(name: &str, kind: &str) -> String {
    format!("attribute `{name}` is {kind} and has no label: only texts and scalars do")
}

/// A scalar as Mesos prints it: three decimals at most, no trailing zeros.
fn scalar(value: f64) -> String {
    let millis = millis_of(value.abs());
    let sign = if value < 0.0 && millis > 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:03}", millis / 1_000, millis % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, value: &str) -> pb::Attribute {
        pb::Attribute {
            name: name.to_owned(),
            r#type: pb::value::Type::Text.into(),
            text: Some(pb::value::Text {
                value: value.to_owned(),
            }),
            ..pb::Attribute::default()
        }
    }

    fn number(name: &str, value: f64) -> pb::Attribute {
        pb::Attribute {
            name: name.to_owned(),
            r#type: pb::value::Type::Scalar.into(),
            scalar: Some(pb::value::Scalar { value }),
            ..pb::Attribute::default()
        }
    }

    #[test]
    fn texts_and_scalars_become_labels_and_the_rest_is_reported() {
        let set = pb::Attribute {
            name: "tags".to_owned(),
            r#type: pb::value::Type::Set.into(),
            ..pb::Attribute::default()
        };
        let attributes = [
            text("rack", "r1"),
            number("level", 1.5),
            number("size", 10.0),
            set,
            text("rack", "r2"),
            text("bad name", "x"),
            text("note", "two words"),
            number("below", -1.0),
        ];
        let result = labels_of(&attributes, None);
        let labels: Vec<_> = result
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            labels,
            [
                "k8s.mesosphere.io/attribute-level=1.5",
                "k8s.mesosphere.io/attribute-rack=r1",
                "k8s.mesosphere.io/attribute-size=10",
            ]
        );
        insta::assert_snapshot!(result.problems.join("\n"), @r"
        attribute `tags` is a set and has no label: only texts and scalars do
        attribute `rack` appears more than once: its first value is the label
        attribute `bad name` cannot become a label: its name needs up to 53 letters, digits, `-`, `_` or `.`
        attribute `note` cannot become a label: `two words` is no label value
        attribute `below` cannot become a label: `-1` is no label value
        ");
    }

    #[test]
    fn the_domain_gives_region_and_zone() {
        let domain = pb::DomainInfo {
            fault_domain: Some(pb::domain_info::FaultDomain {
                region: pb::domain_info::fault_domain::RegionInfo {
                    name: "eu".to_owned(),
                },
                zone: pb::domain_info::fault_domain::ZoneInfo {
                    name: "eu 1".to_owned(),
                },
            }),
        };
        let result = labels_of(&[], Some(&domain));
        assert_eq!(result.labels.get(REGION).map(String::as_str), Some("eu"));
        assert_eq!(
            result.problems,
            ["`eu 1` is no label value and cannot become topology.kubernetes.io/zone"]
        );
    }
}
