//! What calls answer that do not answer an object.

use serde_json::{Value, json};

use super::VERSION;

/// A v1 `Status` as v1beta1: the object that it is about is `details.id`.
pub fn from_v1(status: &Value) -> Value {
    let mut out = json!({
        "kind": "Status",
        "creationTimestamp": null,
        "apiVersion": VERSION,
    });
    for field in ["status", "message", "reason"] {
        if let Some(text) = status[field].as_str() {
            out[field] = json!(text);
        }
    }
    if let Some(details) = status["details"].as_object() {
        let mut about = json!({});
        for (new, old) in [
            ("name", "id"),
            ("kind", "kind"),
            ("causes", "causes"),
            ("retryAfterSeconds", "retryAfterSeconds"),
        ] {
            if let Some(value) = details.get(new) {
                about[old] = value.clone();
            }
        }
        out["details"] = about;
    }
    if let Some(code) = status["code"].as_u64() {
        out["code"] = json!(code);
    }
    out
}

/// A refusal of our own.
pub fn failure(code: u16, reason: &str, message: &str) -> Value {
    from_v1(&json!({
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }))
}

/// What DELETE answers.
pub fn deleted(kind: &str, name: &str) -> Value {
    from_v1(&json!({
        "status": "Success",
        "details": {"name": name, "kind": kind},
    }))
}
