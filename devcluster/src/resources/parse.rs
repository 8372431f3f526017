//! The texts of `--resources` and `--attributes`.

use std::collections::BTreeMap;

use mesos::pb;

use super::{DEFAULT_ROLE, Resource, ResourceError, Resources, Value, role};

/// Reads `cpus:2;mem:4096;ports:[31000-32000];cpus(web):1`, or a JSON array of resources.
pub(super) fn resources(text: &str) -> Result<Resources, ResourceError> {
    let text = text.trim();
    if text.starts_with('[') {
        return json(text);
    }
    let mut out = Resources::default();
    for token in text.split(';').map(str::trim).filter(|t| !t.is_empty()) {
        let (name, value) = match token.split(':').collect::<Vec<_>>()[..] {
            [name, value] => (name.trim(), value.trim()),
            _ => {
                return Err(ResourceError::Text(format!(
                    "missing or extra ':' in {token}"
                )));
            }
        };
        let (name, of) = match name.split_once('(') {
            None => (name, DEFAULT_ROLE),
            Some((name, rest)) => match rest.split_once(')') {
                Some((of, "")) => (name.trim(), of.trim()),
                _ => {
                    return Err(ResourceError::Text(format!(
                        "mismatched parentheses in {token}"
                    )));
                }
            },
        };
        if name.is_empty() {
            return Err(ResourceError::Invalid("Empty resource name".to_owned()));
        }
        role::validate(of).map_err(|e| ResourceError::Invalid(e.to_string()))?;
        let value = Value::parse(value)
            .map_err(|why| ResourceError::Text(format!("resource {name} value {value}: {why}")))?;
        if matches!(value, Value::Scalar(s) if s.millis() < 0) {
            return Err(ResourceError::Text(format!("resource {name} is negative")));
        }
        let mut resource = Resource::new(name, value);
        if of != DEFAULT_ROLE {
            resource.meta.reservations.push(static_reservation(of));
        }
        out.add(&resource);
    }
    Ok(out)
}

fn json(text: &str) -> Result<Resources, ResourceError> {
    let values: Vec<serde_json::Value> =
        serde_json::from_str(text).map_err(|e| ResourceError::Text(e.to_string()))?;
    let mut list = Vec::with_capacity(values.len());
    for value in values {
        list.push(
            mesos::codec::from_json::<pb::Resource>(&value)
                .map_err(|e| ResourceError::Text(e.to_string()))?,
        );
    }
    Resources::from_pb(&list)
}

/// A reservation that the agent was started with.
pub(super) fn static_reservation(role: &str) -> pb::resource::ReservationInfo {
    pb::resource::ReservationInfo {
        r#type: Some(pb::resource::reservation_info::Type::Static as i32),
        role: Some(role.to_owned()),
        principal: None,
        labels: None,
    }
}

/// Reads `rack:r1;slots:3.5;gen:[1-5]`: text, scalars and ranges, in the order given.
pub fn parse_attributes(text: &str) -> Result<Vec<pb::Attribute>, ResourceError> {
    let mut out = Vec::new();
    for token in text
        .split([';', '\n'])
        .map(str::trim)
        .filter(|t| !t.is_empty())
    {
        let Some((name, value)) = token.split_once(':') else {
            return Err(ResourceError::Text(format!(
                "attribute `{token}` is not `name:value`"
            )));
        };
        let (name, value) = (name.trim(), value.trim());
        let mut attribute = pb::Attribute {
            name: name.to_owned(),
            r#type: pb::value::Type::Text as i32,
            ..Default::default()
        };
        match Value::parse(value) {
            Ok(Value::Scalar(s)) => {
                attribute.r#type = pb::value::Type::Scalar as i32;
                attribute.scalar = Some(pb::value::Scalar { value: s.to_f64() });
            }
            Ok(Value::Ranges(r)) => {
                attribute.r#type = pb::value::Type::Ranges as i32;
                attribute.ranges = Some(super::ranges_to_pb(&r));
            }
            Ok(Value::Set(_)) => {
                return Err(ResourceError::Text(format!(
                    "attribute {name} is a set: only text, scalars and ranges can be attributes"
                )));
            }
            Err(_) if value.starts_with('[') => {
                return Err(ResourceError::Text(format!(
                    "attribute {name} has malformed ranges `{value}`"
                )));
            }
            Err(_) => {
                attribute.text = Some(pb::value::Text {
                    value: value.to_owned(),
                });
            }
        }
        out.push(attribute);
    }
    Ok(out)
}

/// Total quantities by name, the form of a task's limits and a framework's minimum.
pub fn scalar_map(
    map: &std::collections::HashMap<String, pb::value::Scalar>,
) -> BTreeMap<String, f64> {
    map.iter().map(|(k, v)| (k.clone(), v.value)).collect()
}
