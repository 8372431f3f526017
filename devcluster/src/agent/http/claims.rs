//! Executors' tokens, with `--authenticate_http_executors`: who they say they are, and whether that
//! is who calls.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::agent::container::ContainerId;
use crate::http::error;
use crate::ids::{ExecutorId, FrameworkId};
use crate::jwt;

/// The realm of the executor API.
const REALM: &str = "mesos-agent-executor";

/// What a token says. Like Mesos' own it never ends: its container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct ExecutorClaims {
    /// The framework.
    pub fid: String,
    /// The executor.
    pub eid: String,
    /// Its container.
    pub cid: String,
}

impl ExecutorClaims {
    /// A token that says this. Empty for a key that does not sign, which no agent is started with.
    pub fn sign(&self, key: &jwt::Key) -> String {
        let claims = serde_json::json!({"fid": self.fid, "eid": self.eid, "cid": self.cid});
        key.sign(&claims).unwrap_or_default()
    }

    /// What is wrong with a call of this executor, whose container now is `container`.
    pub fn mismatch(
        &self,
        framework: &FrameworkId,
        executor: &ExecutorId,
        container: Option<&ContainerId>,
    ) -> Option<String> {
        let lacks = |what: String| Some(format!("The token of the executor does not name {what}"));
        if self.fid != framework.to_string() {
            lacks(format!("the framework {framework} of the call"))
        } else if self.eid != executor.to_string() {
            lacks(format!("the executor {executor} of the call"))
        } else if container.is_none_or(|c| c.to_string() != self.cid) {
            lacks("the executor's container".to_owned())
        } else {
            None
        }
    }
}

/// What the token of a request says; the answer to one without a good token.
pub(super) fn of(key: &jwt::Key, headers: &HeaderMap) -> Result<ExecutorClaims, Box<Response>> {
    let header = headers.get(header::AUTHORIZATION);
    let token = header.and_then(|h| h.to_str().ok()?.strip_prefix("Bearer "));
    let Some(token) = token else {
        return Err(unauthorized(""));
    };
    let claims = key.claims(token, jwt::now()).and_then(|claims| {
        serde_json::from_value(claims).map_err(|_| "the token is no executor's")
    });
    claims.map_err(|why| {
        unauthorized(&format!(
            ", error=\"invalid_token\", error_description=\"Invalid JWT: {why}\""
        ))
    })
}

fn unauthorized(more: &str) -> Box<Response> {
    let mut response = error(401, "");
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer realm=\"{REALM}\"{more}")) {
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    Box::new(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> ExecutorClaims {
        let [fid, eid, cid] = ["F", "e", "c"].map(str::to_owned);
        ExecutorClaims { fid, eid, cid }
    }

    fn asked(key: &jwt::Key, header: &str) -> Result<ExecutorClaims, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, header.parse().unwrap());
        of(key, &headers).map_err(|response| {
            assert_eq!(response.status(), 401);
            let wanted = &response.headers()[header::WWW_AUTHENTICATE];
            wanted.to_str().unwrap().to_owned()
        })
    }

    #[test]
    fn only_the_agents_own_tokens_are_taken() {
        let key = jwt::Key::random();
        let token = claims().sign(&key);
        assert_eq!(asked(&key, &format!("Bearer {token}")), Ok(claims()));
        let realm = "Bearer realm=\"mesos-agent-executor\"";
        assert_eq!(
            asked(&key, &format!("token={token}")),
            Err(realm.to_owned())
        );
        let foreign = claims().sign(&jwt::Key::random());
        let why = asked(&key, &format!("Bearer {foreign}")).unwrap_err();
        assert!(why.contains("error=\"invalid_token\""), "{why}");
        let other = key.sign(&serde_json::json!({"uid": "kubernetes"})).unwrap();
        assert!(asked(&key, &format!("Bearer {other}")).is_err());
    }

    #[test]
    fn a_token_is_good_for_its_own_container_only() {
        let of = |fid: &str, eid: &str, cid: Option<&str>| {
            let cid = cid.map(|cid| ContainerId::from(cid.to_owned()));
            claims().mismatch(&fid.into(), &eid.into(), cid.as_ref())
        };
        assert_eq!(of("F", "e", Some("c")), None);
        for (call, word) in [
            (of("G", "e", Some("c")), "framework G"),
            (of("F", "x", Some("c")), "executor x"),
            (of("F", "e", Some("d")), "container"),
            (of("F", "e", None), "container"),
        ] {
            let why = call.unwrap();
            assert!(why.contains(word), "{why}");
        }
    }
}
