//! Templates and values: any template is rendered or refused, never a panic, never more than the
//! bounds; names that are looked up in vain while rendering are among those found beforehand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packaging::mustache::{LARGEST_RESULT, Template};
use serde_json::{Value, json};

fuzz_target!(|text: &str| {
    let (template, value) = text.split_once("\n---\n").unwrap_or((text, ""));
    let value: Value = serde_json::from_str(value)
        .ok()
        .filter(Value::is_object)
        .unwrap_or_else(|| json!({"a": {"b": [1, "x", {"c": null}]}, "t": true, "s": "{{#asJson}}s{{/asJson}}"}));
    if let Ok(template) = Template::parse(template) {
        let _ = template.unresolved(&value);
        if let Ok((result, _)) = template.render_watched(&value) {
            // The bound is looked at between two tags.
            assert!(result.len() <= LARGEST_RESULT + text.len() * 2 + (1 << 20));
        }
    }
});
