//! The unversioned HTTP endpoints (`/state`, `/slaves`, ...), which tools and older clients read.

mod documents;

use std::collections::BTreeMap;

use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::event::Answer;
use super::server::Shared;
use super::state::MasterState;
use crate::http;
use documents::{flags, frameworks, roles, slaves, state, summary, tasks, version, weights};
pub(crate) use documents::{list_of_labels, quantities, task};

/// Answers a GET of one of these endpoints. `path` has no `/master` in front and no slash at
/// its end.
pub(super) fn get(shared: &Shared, method: &Method, path: &str, query: &str) -> Response {
    let answer: fn(&MasterState, Option<&str>, &BTreeMap<String, String>) -> Value = match path {
        "/state" => |s, cluster, _| state(s, cluster),
        "/state-summary" => |s, cluster, _| summary(s, cluster),
        "/slaves" => |s, _, q| slaves(s, q),
        "/frameworks" => |s, _, q| frameworks(s, q),
        "/tasks" => |s, _, q| tasks(s, q),
        "/roles" => |s, _, _| roles(s),
        "/flags" => |s, cluster, _| json!({"flags": flags(s, cluster)}),
        "/version" => |_, _, _| version(),
        "/metrics/snapshot" => |s, _, _| {
            let metrics = s.metrics_snapshot();
            Value::Object(
                metrics
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), json!(v)))
                    .collect(),
            )
        },
        "/maintenance/schedule" | "/maintenance/status" => |_, _, _| json!({}),
        "/weights" => |s, _, _| weights(s),
        "/quota" => |_, _, _| json!({}),
        "/health" => return http::empty(200),
        "/redirect" => return redirect(shared),
        "/machine/up" | "/machine/down" | "/reserve" | "/unreserve" | "/create-volumes"
        | "/destroy-volumes" => {
            return if *method == Method::POST {
                http::error(501, "not supported by this master (devcluster)")
            } else {
                http::method_not_allowed("POST", method.as_str())
            };
        }
        _ => return http::not_found(),
    };
    if *method != Method::GET && *method != Method::HEAD {
        return http::method_not_allowed("GET", method.as_str());
    }
    let query = parse_query(query);
    let value = shared.look(|state| answer(state, shared.cluster(), &query));
    if path == "/metrics/snapshot" || !query.contains_key("jsonp") {
        return http::json_response(&value);
    }
    let call = query.get("jsonp").map_or("", String::as_str);
    let mut response = http::error(200, format!("{call}({value});"));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/javascript"),
    );
    response
}

fn redirect(shared: &Shared) -> Response {
    let place = shared.look(|state| {
        let hostname = state.info.hostname.clone().unwrap_or_default();
        format!("//{hostname}:{}", state.info.port)
    });
    let mut response = http::empty(307);
    match HeaderValue::from_str(&place) {
        Ok(value) => {
            response.headers_mut().insert(header::LOCATION, value);
            response
        }
        Err(_) => http::error(500, "the advertised host name is not one"),
    }
}

/// `POST /teardown` with a form `frameworkId=...`.
pub(super) fn teardown(
    method: &Method,
    body: &[u8],
    call: impl FnOnce(String) -> Answer,
) -> Response {
    if *method != Method::POST {
        return http::method_not_allowed("POST", method.as_str());
    }
    let mut form = parse_query(&String::from_utf8_lossy(body));
    let Some(id) = form.remove("frameworkId") else {
        return http::error(
            400,
            "Missing 'frameworkId' query parameter in the request body",
        );
    };
    match call(id) {
        Answer::Error { status, text } => http::error(status, text),
        _ => http::empty(200),
    }
}

/// `a=1&b=2`, with percent encoding and plus signs undone.
pub(crate) fn parse_query(text: &str) -> BTreeMap<String, String> {
    http::query::pairs(text).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_never_panic() {
        let query = parse_query("frameworkId=a%2Fb&x=1+2&y&%&z=%zz");
        assert_eq!(query["frameworkId"], "a/b");
        assert_eq!(query["x"], "1 2");
        assert_eq!(query["y"], "");
        assert_eq!(query["z"], "%zz");
    }
}
