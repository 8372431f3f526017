//! Protobuf's text form, which Mesos puts into some of its error messages.

use std::fmt::Write as _;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value as Field};

/// Prints a message over several lines, fields in the order of their numbers.
pub fn print<M: ReflectMessage>(message: &M) -> String {
    let mut out = String::new();
    print_message(&message.transcode_to_dynamic(), 0, &mut out);
    out
}

fn print_message(message: &DynamicMessage, depth: usize, out: &mut String) {
    for field in message.descriptor().fields() {
        if !message.has_field(&field) {
            continue;
        }
        match &*message.get_field(&field) {
            Field::List(items) => {
                for item in items {
                    print_field(&field, item, depth, out);
                }
            }
            // Only in messages whose text nobody reads.
            Field::Map(_) => {}
            value => print_field(&field, value, depth, out),
        }
    }
}

fn print_field(field: &FieldDescriptor, value: &Field, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    let name = field.name();
    if let Field::Message(inner) = value {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{indent}{name} {{");
        print_message(inner, depth + 1, out);
        let _ = writeln!(out, "{indent}}}");
        return;
    }
    let text = match value {
        Field::Bool(b) => b.to_string(),
        Field::I32(n) => n.to_string(),
        Field::I64(n) => n.to_string(),
        Field::U32(n) => n.to_string(),
        Field::U64(n) => n.to_string(),
        Field::F32(n) => n.to_string(),
        Field::F64(n) => n.to_string(),
        Field::String(s) => quoted(s.as_bytes()),
        Field::Bytes(b) => quoted(b),
        Field::EnumNumber(n) => match field.kind() {
            Kind::Enum(descriptor) => descriptor
                .get_value(*n)
                .map_or_else(|| n.to_string(), |v| v.name().to_owned()),
            _ => n.to_string(),
        },
        Field::Message(_) | Field::List(_) | Field::Map(_) => return,
    };
    let _ = writeln!(out, "{indent}{name}: {text}");
}

fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'"' => out.push_str("\\\""),
            b'\'' => out.push_str("\\'"),
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::pb;

    #[test]
    fn messages_print_as_in_mesos_errors() {
        let info = pb::ExecutorInfo {
            executor_id: pb::ExecutorId {
                value: "e\"1".to_owned(),
            },
            r#type: Some(pb::executor_info::Type::Custom as i32),
            data: Some(vec![0, b'a']),
            ..Default::default()
        };
        assert_eq!(
            print(&info),
            "executor_id {\n  value: \"e\\\"1\"\n}\ndata: \"\\000a\"\ntype: CUSTOM\n"
        );
    }
}
