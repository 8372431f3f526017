//! JSON as Mesos reads and prints it, with its error texts.
//!
//! Reading: unknown members are ignored, unknown enumeration values count as unset, a string is
//! taken where a number belongs but not the reverse, bytes are base64, required fields must be
//! there. Printing: fields that have a default in the protocol are printed even when unset, and
//! the lists of what there is even when empty.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage,
    Value as Field,
};
use serde_json::{Map, Number, Value};

/// Nesting beyond this is refused, before the parser's own limit is.
const MAX_DEPTH: usize = 100;

/// Reads a message of type `M`; the error is what Mesos answers. `name` is that of the message
/// in the texts (`Call`).
pub fn read<M: ReflectMessage + prost::Message + Default>(
    bytes: &[u8],
    name: &str,
) -> Result<M, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        format!(
            "Failed to parse body into JSON: {}",
            syntax_error(bytes, &e)
        )
    })?;
    let convert = |why: String| format!("Failed to convert JSON into {name} protobuf: {why}");
    let Value::Object(object) = value else {
        return Err(convert("Expecting a JSON object".to_owned()));
    };
    let dynamic = message(&M::default().descriptor(), &object, 0).map_err(convert)?;
    required(&dynamic)
        .map_err(|missing| convert(format!("Missing required fields: {}", missing.join(", "))))?;
    dynamic.transcode_to().map_err(|e| convert(e.to_string()))
}

/// Reads a protobuf message of type `M`, with its required fields.
pub fn read_protobuf<M: ReflectMessage + prost::Message + Default>(
    bytes: &[u8],
    name: &str,
) -> Result<M, String> {
    let refuse = || format!("Failed to parse body into {name} protobuf");
    let dynamic = DynamicMessage::decode(M::default().descriptor(), bytes).map_err(|_| refuse())?;
    required(&dynamic).map_err(|_| refuse())?;
    dynamic.transcode_to().map_err(|_| refuse())
}

/// The place of a syntax error: the rest of its line, as the parser of Mesos says it.
fn syntax_error(bytes: &[u8], error: &serde_json::Error) -> String {
    let line = bytes
        .split(|b| *b == b'\n')
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let rest = if error.is_eof() {
        &[]
    } else {
        line.get(error.column().saturating_sub(1)..)
            .unwrap_or_default()
    };
    // Enough to find the place.
    let rest = &rest[..rest.len().min(200)];
    format!(
        "syntax error at line {} near: {}",
        error.line().max(1),
        String::from_utf8_lossy(rest)
    )
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn message(
    descriptor: &MessageDescriptor,
    object: &Map<String, Value>,
    depth: usize,
) -> Result<DynamicMessage, String> {
    if depth > MAX_DEPTH {
        return Err("Nested too deeply".to_owned());
    }
    let mut out = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let Some(value) = object.get(field.name()) else {
            continue;
        };
        if value.is_null() {
            continue;
        }
        if field.is_map() {
            let Value::Object(members) = value else {
                return Err(unexpected(value, &field));
            };
            let kind = field.kind();
            let Some(entry) = kind.as_message() else {
                continue;
            };
            let value_field = entry.map_entry_value_field();
            let mut map = std::collections::HashMap::with_capacity(members.len());
            for (key, value) in members {
                if let Some(value) = single(&value_field, value, depth)? {
                    map.insert(MapKey::String(key.clone()), value);
                }
            }
            out.set_field(&field, Field::Map(map));
        } else if field.is_list() {
            let items = match value {
                Value::Array(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            };
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                if let Some(item) = single(&field, item, depth)? {
                    list.push(item);
                }
            }
            out.set_field(&field, Field::List(list));
        } else if let Some(value) = single(&field, value, depth)? {
            out.set_field(&field, value);
        }
    }
    Ok(out)
}

fn unexpected(value: &Value, field: &FieldDescriptor) -> String {
    format!(
        "Not expecting a JSON {} for field '{}'",
        kind_of(value),
        field.name()
    )
}

/// One value of a field; `None` leaves it unset.
fn single(field: &FieldDescriptor, value: &Value, depth: usize) -> Result<Option<Field>, String> {
    let wrong = || unexpected(value, field);
    let kind = field.kind();
    let out = match (&kind, value) {
        (_, Value::Null) => return Ok(None),
        (Kind::Message(descriptor), Value::Object(object)) => {
            Field::Message(message(descriptor, object, depth + 1)?)
        }
        (Kind::String, Value::String(text)) => Field::String(text.clone()),
        (Kind::Bytes, Value::String(text)) => Field::Bytes(decode_base64(field, text)?.into()),
        (Kind::Bool, Value::Bool(b)) => Field::Bool(*b),
        (Kind::Enum(descriptor), Value::String(name)) => match descriptor.get_value_by_name(name) {
            Some(value) => Field::EnumNumber(value.number()),
            None => return Ok(None),
        },
        (Kind::Enum(descriptor), Value::Number(n)) => {
            let number = n.as_i64().and_then(|n| i32::try_from(n).ok());
            match number.and_then(|n| descriptor.get_value(n)) {
                Some(value) => Field::EnumNumber(value.number()),
                None => return Ok(None),
            }
        }
        (Kind::Message(_) | Kind::String | Kind::Bytes | Kind::Bool | Kind::Enum(_), _) => {
            return Err(wrong());
        }
        (_, Value::Number(n)) => numeric(&kind, n).ok_or_else(wrong)?,
        (_, Value::String(text)) => {
            let text = text.trim();
            let number = if matches!(kind, Kind::Double | Kind::Float) {
                text.parse::<f64>().ok().map(|v| float(&kind, v))
            } else {
                serde_json::from_str::<Number>(text)
                    .ok()
                    .and_then(|n| numeric(&kind, &n))
            };
            number
                .ok_or_else(|| format!("Failed to parse '{text}' for field '{}'", field.name()))?
        }
        _ => return Err(wrong()),
    };
    Ok(Some(out))
}

fn decode_base64(field: &FieldDescriptor, text: &str) -> Result<Vec<u8>, String> {
    // White space is skipped, as in Mesos.
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64.decode(text).map_err(|error| {
        let why = match error {
            base64::DecodeError::InvalidByte(_, byte) => {
                format!("Invalid character '{}'", char::from(byte))
            }
            other => other.to_string(),
        };
        format!(
            "Failed to base64 decode bytes field '{}': {why}",
            field.name()
        )
    })
}

fn float(kind: &Kind, value: f64) -> Field {
    match kind {
        Kind::Float => Field::F32(value as f32),
        _ => Field::F64(value),
    }
}

/// A number as the field wants it; `None` when it does not fit.
fn numeric(kind: &Kind, n: &Number) -> Option<Field> {
    // A whole number may be written with a fraction of zero.
    let whole = |n: &Number| -> Option<i128> {
        n.as_i64()
            .map(i128::from)
            .or(n.as_u64().map(i128::from))
            .or_else(|| {
                let f = n.as_f64()?;
                (f.fract() == 0.0 && f.abs() < 1e18).then_some(f as i128)
            })
    };
    Some(match kind {
        Kind::Double | Kind::Float => float(kind, n.as_f64()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Field::I32(whole(n)?.try_into().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Field::I64(whole(n)?.try_into().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Field::U32(whole(n)?.try_into().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Field::U64(whole(n)?.try_into().ok()?),
        _ => return None,
    })
}

/// Paths of the required fields that are not set.
fn required(message: &DynamicMessage) -> Result<(), Vec<String>> {
    let mut missing = Vec::new();
    collect_missing(message, "", &mut missing);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing)
    }
}

fn collect_missing(message: &DynamicMessage, prefix: &str, out: &mut Vec<String>) {
    for field in message.descriptor().fields() {
        let path = format!("{prefix}{}", field.name());
        if !message.has_field(&field) {
            if field.is_required() {
                out.push(path);
            }
            continue;
        }
        if !matches!(field.kind(), Kind::Message(_)) {
            continue;
        }
        match &*message.get_field(&field) {
            Field::Message(inner) => collect_missing(inner, &format!("{path}."), out),
            Field::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    if let Field::Message(inner) = item {
                        collect_missing(inner, &format!("{path}[{i}]."), out);
                    }
                }
            }
            Field::Map(members) => {
                for value in members.values() {
                    if let Field::Message(inner) = value {
                        collect_missing(inner, &format!("{path}.value."), out);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Prints a message.
pub fn print<M: ReflectMessage>(message: &M) -> Value {
    print_dynamic(&message.transcode_to_dynamic())
}

/// Messages whose lists are printed even when they are empty.
const ALL_LISTS: [&str; 7] = [
    "mesos.v1.master.Response.GetAgents",
    "mesos.v1.master.Response.GetExecutors",
    "mesos.v1.master.Response.GetFrameworks",
    "mesos.v1.master.Response.GetTasks",
    "mesos.v1.agent.Response.GetExecutors",
    "mesos.v1.agent.Response.GetFrameworks",
    "mesos.v1.agent.Response.GetTasks",
];

fn print_dynamic(message: &DynamicMessage) -> Value {
    let mut out = Map::new();
    let all_lists = ALL_LISTS.contains(&message.descriptor().full_name());
    for field in message.descriptor().fields() {
        let proto = field.field_descriptor_proto();
        let deprecated = proto.options.as_ref().is_some_and(|o| o.deprecated());
        let has_default =
            (proto.default_value.is_some() || all_lists && field.is_list()) && !deprecated;
        if message.has_field(&field) || has_default {
            let value = message.get_field(&field);
            out.insert(field.name().to_owned(), print_field(&field, &value));
        }
    }
    Value::Object(out)
}

fn print_field(field: &FieldDescriptor, value: &Field) -> Value {
    match value {
        Field::Bool(b) => Value::Bool(*b),
        Field::I32(n) => Value::from(*n),
        Field::I64(n) => Value::from(*n),
        Field::U32(n) => Value::from(*n),
        Field::U64(n) => Value::from(*n),
        Field::F32(n) => print_float(f64::from(*n)),
        Field::F64(n) => print_float(*n),
        Field::String(s) => Value::from(s.as_str()),
        Field::Bytes(b) => Value::from(BASE64.encode(b)),
        Field::EnumNumber(n) => match field.kind() {
            Kind::Enum(descriptor) => match descriptor.get_value(*n) {
                Some(value) => Value::from(value.name()),
                None => Value::from(*n),
            },
            _ => Value::from(*n),
        },
        Field::Message(inner) => print_dynamic(inner),
        Field::List(items) => items.iter().map(|item| print_field(field, item)).collect(),
        Field::Map(members) => {
            let kind = field.kind();
            let value_field = kind
                .as_message()
                .map(MessageDescriptor::map_entry_value_field);
            let mut sorted: Vec<_> = members
                .iter()
                .map(|(key, value)| {
                    let key = match key {
                        MapKey::String(s) => s.clone(),
                        MapKey::Bool(b) => b.to_string(),
                        MapKey::I32(n) => n.to_string(),
                        MapKey::I64(n) => n.to_string(),
                        MapKey::U32(n) => n.to_string(),
                        MapKey::U64(n) => n.to_string(),
                    };
                    let value = print_field(value_field.as_ref().unwrap_or(field), value);
                    (key, value)
                })
                .collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(sorted.into_iter().collect())
        }
    }
}

/// JSON has no infinity; the reader takes it as a string.
fn print_float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None if value > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::pb::scheduler::Call;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        read::<Call>(text.as_bytes(), "Call").unwrap_err()
    }

    #[test]
    fn malformed_calls_are_refused_in_mesos_words() {
        for (text, want) in [
            (
                r#"{"type":"#,
                "Failed to parse body into JSON: syntax error at line 1 near: ",
            ),
            (
                "",
                "Failed to parse body into JSON: syntax error at line 1 near: ",
            ),
            (
                "{bad",
                "Failed to parse body into JSON: syntax error at line 1 near: bad",
            ),
            (
                "[]",
                "Failed to convert JSON into Call protobuf: Expecting a JSON object",
            ),
            (
                r#"{"subscribe": {}}"#,
                "Failed to convert JSON into Call protobuf: Missing required fields: \
                 subscribe.framework_info",
            ),
            (
                r#"{"acknowledge": {}}"#,
                "Failed to convert JSON into Call protobuf: Missing required fields: \
                 acknowledge.agent_id, acknowledge.task_id, acknowledge.uuid",
            ),
            (
                r#"{"subscribe": {"framework_info": {"user": "root", "name": 5}}}"#,
                "Failed to convert JSON into Call protobuf: Not expecting a JSON number for field \
                 'name'",
            ),
            (
                r#"{"acknowledge": {"uuid": "!!"}}"#,
                "Failed to convert JSON into Call protobuf: Failed to base64 decode bytes field \
                 'uuid': Invalid character '!'",
            ),
            (
                r#"{"accept": {"operations": [{"launch": {"task_infos": [{"name": "g",
                    "task_id": {"value": "g"}}]}}]}}"#,
                "Failed to convert JSON into Call protobuf: Missing required fields: \
                 accept.operations[0].launch.task_infos[0].agent_id",
            ),
        ] {
            assert_eq!(error(text), want, "{text}");
        }
    }

    #[test]
    fn unknown_members_and_enumeration_values_do_not_matter() {
        let call: Call = read(
            br#"{"type": "NOPE", "bogus": 1, "decline": {"offer_ids": [],
                "filters": {"refuse_seconds": "2.5"}}}"#,
            "Call",
        )
        .unwrap();
        assert_eq!(call.r#type, None);
        let filters = call.decline.unwrap().filters.unwrap();
        assert_eq!(filters.refuse_seconds, Some(2.5));
    }

    #[test]
    fn defaults_of_the_protocol_are_printed() {
        let info = mesos::pb::FrameworkInfo {
            user: "root".to_owned(),
            name: "minimal".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            print(&info),
            serde_json::json!({
                "user": "root", "name": "minimal", "failover_timeout": 0.0, "checkpoint": false
            })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read::<Call>(&bytes, "Call");
            let _ = read_protobuf::<Call>(&bytes, "Call");
        }

        #[test]
        fn no_json_makes_the_reader_panic(text in r#"[\[\]{}",:0-9a-z_ ]{0,120}"#) {
            let _ = read::<Call>(text.as_bytes(), "Call");
        }
    }
}
