//! What both the master's and the agent's HTTP sides need: Mesos' JSON, its content
//! negotiation, its error answers, and streams of RecordIO frames with a bound.

pub mod json;
pub mod query;
pub mod stream;
pub mod text;

use std::io::Read as _;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use mesos::codec::Encoding;
use prost_reflect::ReflectMessage;

/// Greatest body of a call, bytes, also after decompression.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// An error as Mesos sends it.
pub fn error(status: u16, text: impl Into<String>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// 404 as Mesos sends it for a path that it does not have.
pub fn not_found() -> Response {
    error(404, "404 Not Found.")
}

/// 405 as Mesos sends it.
pub fn method_not_allowed(allowed: &'static str, received: &str) -> Response {
    let mut response = error(
        405,
        format!(
            "405 Method Not Allowed. Expecting one of {{ '{allowed}' }}, but received '{received}'."
        ),
    );
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// An answer without a body.
pub fn empty(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// 200 with a JSON document.
pub fn json_response(value: &serde_json::Value) -> Response {
    body(Encoding::Json, value.to_string().into_bytes())
}

/// 200 with bytes of this encoding.
pub fn body(encoding: Encoding, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(encoding.media_type()),
    );
    response
}

/// Writes a message as Mesos does.
pub fn encode<M: ReflectMessage + prost::Message>(encoding: Encoding, message: &M) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => message.encode_to_vec(),
        Encoding::Json => json::print(message).to_string().into_bytes(),
    }
}

/// Reads a call by its `Content-Type`; the error is the answer. `name` is that of the message
/// in Mesos' texts.
pub fn read_call<M: ReflectMessage + prost::Message + Default>(
    headers: &HeaderMap,
    bytes: &[u8],
    name: &str,
) -> Result<M, Box<Response>> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Err(Box::new(error(
            400,
            "Expecting 'Content-Type' to be present",
        )));
    };
    let encoding = content_type
        .to_str()
        .ok()
        .and_then(Encoding::from_media_type);
    let read = match encoding {
        Some(Encoding::Json) => json::read(bytes, name),
        Some(Encoding::Protobuf) => json::read_protobuf(bytes, name),
        None => {
            return Err(Box::new(error(
                415,
                "Expecting 'Content-Type' of application/json or application/x-protobuf",
            )));
        }
    };
    read.map_err(|text| Box::new(error(400, text)))
}

/// The encoding of a response by its `Accept`: JSON if it is allowed at all.
pub fn accepted(headers: &HeaderMap) -> Result<Encoding, Box<Response>> {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        if accepts(headers, encoding.media_type()) {
            return Ok(encoding);
        }
    }
    Err(Box::new(error(
        406,
        "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
    )))
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let kind = media_type.split('/').next().unwrap_or_default();
    values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|candidate| {
            let mut parts = candidate.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused = parts.any(|p| {
                p.strip_prefix("q=")
                    .and_then(|q| q.trim().parse::<f64>().ok())
                    .is_some_and(|q| q <= 0.0)
            });
            let matches = name == "*/*"
                || name == media_type
                || name.strip_suffix("/*").is_some_and(|k| k == kind);
            matches && !refused
        })
}

/// Undoes `Content-Encoding: gzip`.
pub fn decoded(headers: &HeaderMap, bytes: bytes::Bytes) -> Result<bytes::Bytes, Box<Response>> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(bytes);
    };
    let fail = || Box::new(error(500, "failed to decode body"));
    if encoding.as_bytes() != b"gzip" {
        return Ok(bytes);
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes.as_ref())
        .take(MAX_BODY_BYTES as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|_| fail())?;
    if out.len() > MAX_BODY_BYTES {
        return Err(Box::new(error(413, "Body is too large")));
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_answer_unless_only_protobuf_is_accepted() {
        let with = |accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            accepted(&headers).ok()
        };
        assert_eq!(with(None), Some(Encoding::Json));
        assert_eq!(with(Some("*/*")), Some(Encoding::Json));
        assert_eq!(
            with(Some("application/x-protobuf")),
            Some(Encoding::Protobuf)
        );
        assert_eq!(
            with(Some("application/x-protobuf, application/json")),
            Some(Encoding::Json)
        );
        assert_eq!(
            with(Some("application/json;q=0, application/x-protobuf")),
            Some(Encoding::Protobuf)
        );
        assert_eq!(with(Some("text/html")), None);
    }
}
