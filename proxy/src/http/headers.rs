//! What may pass in a request's head. Pure.
//!
//! Only a bearer token speaks for a client. Whatever else claims an identity is taken off: the
//! API servers would believe none of it without a certificate that the front door does not have,
//! but nothing that stands behind them or beside them may ever be tempted to.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers of one connection, not of the request (RFC 9110, section 7.6.1), but for `Connection`
/// and `Upgrade` themselves, which [`upgrade`] looks at.
const HOP_BY_HOP: [&str; 7] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    // The next hop's is written anew: of a length and an encoding it must not have to choose.
    "transfer-encoding",
];
/// Prefixes of headers that claim an identity: the authenticating proxy's, impersonation, and
/// client certificates as various balancers pass them on.
const IDENTITY_PREFIXES: [&str; 7] = [
    "x-remote-",
    "impersonate-",
    "x-ssl-client-",
    "ssl-client-",
    "x-client-cert",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client-cert",
];
/// Other headers that do.
const IDENTITY: [&str; 8] = [
    // DC/OS' own session among them.
    "cookie",
    "client-cert",
    "client-cert-chain",
    "remote-user",
    "x-forwarded-user",
    "x-forwarded-groups",
    "x-forwarded-email",
    "x-webauth-user",
];
/// Subprotocol that carries a bearer token in a WebSocket's head.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether a header claims an identity that is not a bearer token.
pub fn claims_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    IDENTITY.contains(&name) || IDENTITY_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Takes off what claims an identity, and what belongs to the connection.
pub fn strip(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|word| HeaderName::try_from(word.trim().to_ascii_lowercase()).ok())
        .filter(|name| *name != header::UPGRADE)
        .collect();
    named.extend(
        headers
            .keys()
            .filter(|name| claims_identity(name) || HOP_BY_HOP.contains(&name.as_str()))
            .cloned(),
    );
    for name in named {
        headers.remove(name);
    }
}

/// What the client wants to change the connection to, when it does. Takes `Connection` and
/// `Upgrade` off; [`set_upgrade`] puts them on again for the next hop.
pub fn upgrade(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let wanted = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE).filter(|_| wanted)
}

/// The opposite.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Takes off an answer's head what belongs to the connection.
pub fn strip_answer(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::UPGRADE]
        .iter()
        .map(HeaderName::as_str)
        .chain(HOP_BY_HOP)
    {
        headers.remove(name);
    }
}

/// Whether the request carries a bearer token: in `Authorization`, or as a WebSocket's
/// subprotocol. Another kind of `Authorization` is taken off.
pub fn keep_bearer(headers: &mut HeaderMap) -> bool {
    let bearer = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        bytes.len() > 7 && bytes[..7].eq_ignore_ascii_case(b"bearer ")
    };
    let authorized = match headers.get_all(header::AUTHORIZATION).iter().count() {
        1 => headers.get(header::AUTHORIZATION).is_some_and(bearer),
        // Of two the next hop might read the other one.
        _ => false,
    };
    if !authorized {
        headers.remove(header::AUTHORIZATION);
    }
    authorized
        || headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| {
                let token = word.trim().strip_prefix(TOKEN_PROTOCOL);
                token.is_some_and(|t| !t.is_empty())
            })
}

/// Takes a bearer token off, wherever it is.
pub fn drop_bearer(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    let others: Vec<String> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty() && !word.starts_with(TOKEN_PROTOCOL))
        .collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = HeaderValue::try_from(others.join(", "))
        && !value.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
