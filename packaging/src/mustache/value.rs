//! JSON values as Cosmos' Java values print them.

use serde_json::{Number, Value};

/// Prints a value. Texts have quotes where they are entries of a list.
pub(super) fn print(value: &Value, in_list: bool, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&print_number(number)),
        Value::String(text) => {
            if in_list {
                out.push('"');
            }
            escape(text, out);
            if in_list {
                out.push('"');
            }
        }
        Value::Array(entries) => {
            out.push('[');
            for (n, entry) in entries.iter().enumerate() {
                if n > 0 {
                    out.push_str(", ");
                }
                print(entry, true, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (n, (name, member)) in members.iter().enumerate() {
                if n > 0 {
                    out.push_str(", ");
                }
                out.push_str(name);
                out.push('=');
                print(member, false, out);
            }
            out.push('}');
        }
    }
}

/// Escapes a text as circe, Cosmos' JSON library, does.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // C1's controls among them.
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// A number: whole ones in full, others as Java prints doubles.
fn print_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => print_float(float),
        _ => number.to_string(),
    }
}

fn print_float(float: f64) -> String {
    // Shortest digits that read back as the same number: `-1.25e-7`.
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    // Digits before the point, if it were written out.
    let places = usize::try_from(exponent + 1);
    if float == 0.0 {
        return "0".to_owned();
    }
    if let Ok(places) = places
        && places >= digits.len()
    {
        return format!("{sign}{digits}{}", "0".repeat(places - digits.len()));
    }
    if !(-3..7).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let rest = if rest.is_empty() { "0" } else { rest };
        return format!("{sign}{first}.{rest}E{exponent}");
    }
    match places {
        Ok(places) if places > 0 => {
            let (whole, rest) = digits.split_at(places);
            format!("{sign}{whole}.{rest}")
        }
        _ => {
            let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
            format!("{sign}0.{}{digits}", "0".repeat(zeros))
        }
    }
}
