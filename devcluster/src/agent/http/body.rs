//! Reading calls the way Mesos does: two exact media types, required members checked, and
//! Mesos' own words for what is wrong.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mesos::codec::Encoding;
use prost_reflect::{Cardinality, DeserializeOptions, DynamicMessage, Kind, ReflectMessage, Value};

/// Longest call that is read, bytes.
pub const MAX_CALL: usize = 64 << 20;

/// A plain text answer.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    let content = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, content, text.into()).into_response()
}

/// 400 with Mesos' words.
pub fn bad_request(words: impl Into<String>) -> Response {
    text(StatusCode::BAD_REQUEST, words)
}

/// 405 for everything but the one method.
pub fn method_not_allowed(method: &axum::http::Method, allowed: &'static str) -> Response {
    let words = format!(
        "405 Method Not Allowed. Expecting one of {{ '{allowed}' }}, but received '{method}'."
    );
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, words);
    let allowed = header::HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// Reads a call; the error is the answer.
#[expect(clippy::result_large_err, reason = "the answer is sent at once")]
pub fn read_call<M>(headers: &HeaderMap, body: &[u8]) -> Result<(M, Encoding), Response>
where
    M: ReflectMessage + prost::Message + Default,
{
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Err(bad_request("Expecting 'Content-Type' to be present"));
    };
    let encoding = content_type
        .to_str()
        .ok()
        .and_then(Encoding::from_media_type);
    let descriptor = M::default().descriptor();
    let (message, encoding) = match encoding {
        Some(Encoding::Protobuf) => {
            let message = DynamicMessage::decode(descriptor, body)
                .ok()
                .filter(|message| missing(message).is_empty())
                .ok_or_else(|| bad_request("Failed to parse body into Call protobuf"))?;
            (message, Encoding::Protobuf)
        }
        Some(Encoding::Json) => {
            let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| {
                let line = error.line().max(1);
                bad_request(format!(
                    "Failed to parse body into JSON: syntax error at line {line} near: "
                ))
            })?;
            let convert = |why: String| {
                bad_request(format!("Failed to convert JSON into Call protobuf: {why}"))
            };
            let options = DeserializeOptions::new().deny_unknown_fields(false);
            let message = DynamicMessage::deserialize_with_options(descriptor, value, &options)
                .map_err(|error| convert(error.to_string()))?;
            let missing = missing(&message);
            if !missing.is_empty() {
                let missing = missing.join(", ");
                return Err(convert(format!("Missing required fields: {missing}")));
            }
            (message, Encoding::Json)
        }
        None => {
            return Err(text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Expecting 'Content-Type' of application/json or application/x-protobuf",
            ));
        }
    };
    let message = message.transcode_to().map_err(|error| {
        bad_request(format!("Failed to parse body into Call protobuf: {error}"))
    })?;
    Ok((message, encoding))
}

/// The encoding of the answer, by the header `Accept`.
pub fn accepted(headers: &HeaderMap) -> Option<Encoding> {
    let accept = headers.get_all(header::ACCEPT);
    let mut types = accept
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|value| value.split(';').next().unwrap_or_default().trim())
        .filter(|value| !value.is_empty())
        .peekable();
    if types.peek().is_none() {
        return Some(Encoding::Json);
    }
    let types: Vec<_> = types.collect();
    let any = |names: &[&str]| types.iter().any(|t| names.contains(t));
    if any(&["*/*", "application/*", "application/json"]) {
        Some(Encoding::Json)
    } else if any(&["application/x-protobuf"]) {
        Some(Encoding::Protobuf)
    } else {
        None
    }
}

/// Paths of required members that are not there.
fn missing(message: &DynamicMessage) -> Vec<String> {
    let mut out = Vec::new();
    collect(message, "", &mut out);
    out
}

fn collect(message: &DynamicMessage, prefix: &str, out: &mut Vec<String>) {
    for field in message.descriptor().fields() {
        let path = format!("{prefix}{}", field.name());
        if !message.has_field(&field) {
            if field.cardinality() == Cardinality::Required {
                out.push(path);
            }
            continue;
        }
        if !matches!(field.kind(), Kind::Message(_)) || field.is_map() {
            continue;
        }
        match &*message.get_field(&field) {
            Value::Message(inner) => collect(inner, &format!("{path}."), out),
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    if let Value::Message(inner) = item {
                        collect(inner, &format!("{path}[{i}]."), out);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use mesos::pb::executor::Call;

    async fn refusal(content_type: &'static str, body: &str) -> (u16, String) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let response = read_call::<Call>(&headers, body.as_bytes()).unwrap_err();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn bad_calls_are_refused_in_mesos_words() {
        for (content_type, body, status, words) in [
            (
                "application/json",
                r#"{"framework_id": {"value": "f"}, "type": "HEARTBEAT"}"#,
                400,
                "Failed to convert JSON into Call protobuf: Missing required fields: executor_id",
            ),
            (
                "application/json",
                r#"{"framework_id": {"value": "f"}, "executor_id": {"value": "e"},
                    "type": "UPDATE", "update": {"status": {"state": "TASK_RUNNING"}}}"#,
                400,
                "Failed to convert JSON into Call protobuf: Missing required fields: update.status.task_id",
            ),
            (
                "application/json",
                "{",
                400,
                "Failed to parse body into JSON: syntax error at line 1 near: ",
            ),
            (
                "application/x-protobuf",
                "{}",
                400,
                "Failed to parse body into Call protobuf",
            ),
            (
                "application/json; charset=utf-8",
                "{}",
                415,
                "Expecting 'Content-Type' of application/json or application/x-protobuf",
            ),
        ] {
            assert_eq!(
                refusal(content_type, body).await,
                (status, words.to_owned())
            );
        }
    }

    #[test]
    fn json_is_the_answer_unless_only_protobuf_is_accepted() {
        let of = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            }
            accepted(&headers)
        };
        assert_eq!(of(None), Some(Encoding::Json));
        assert_eq!(of(Some("*/*")), Some(Encoding::Json));
        assert_eq!(
            of(Some("application/x-protobuf, application/json")),
            Some(Encoding::Json)
        );
        assert_eq!(of(Some("application/x-protobuf")), Some(Encoding::Protobuf));
        assert_eq!(of(Some("text/html")), None);
    }
}
