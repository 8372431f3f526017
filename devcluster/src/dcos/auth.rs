//! Service accounts as DC/OS' identity service has them: who signs a login with the account's key
//! gets a token, and with any account there, every path but the login wants one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{CALL_DEADLINE, Dcos};
use crate::jwt;

/// The account by which DC/OS' own calls of Marathon and Mesos are made.
const OWN: &str = "dcos_adminrouter";
/// How long a token for one of these is good, in seconds.
const OWN_SECONDS: u64 = 60;

/// Service accounts, and what signs their tokens.
#[derive(Debug)]
pub struct Accounts {
    /// Public keys by the accounts' names.
    keys: BTreeMap<String, jwt::Key>,
    life: Duration,
    tokens: jwt::Key,
    /// Whether Marathon and Mesos want tokens as well, which are then handed on.
    strict: bool,
}

impl Default for Accounts {
    /// No accounts: everybody may come in.
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            life: Duration::ZERO,
            tokens: jwt::Key::random(),
            strict: false,
        }
    }
}

impl Accounts {
    /// Reads a file `{"<uid>": "-----BEGIN PUBLIC KEY-----..."}`.
    pub fn read(path: &Path, life: Duration) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let pems: BTreeMap<String, String> = serde_json::from_str(&text)
            .with_context(|| format!("{} is no object of public keys by names", path.display()))?;
        Self::new(&pems, life)
    }

    /// Takes public keys, PEM, by the accounts' names. Tokens are good for `life` at most, and
    /// signed by a secret of this process.
    pub fn new(pems: &BTreeMap<String, String>, life: Duration) -> anyhow::Result<Self> {
        let mut keys = BTreeMap::new();
        for (uid, pem) in pems {
            let key = jwt::Key::parse(pem).with_context(|| format!("the public key of {uid}"))?;
            keys.insert(uid.clone(), key);
        }
        Ok(Self {
            keys,
            life,
            ..Self::default()
        })
    }

    /// Signs tokens by this key, which Marathon and Mesos know too.
    pub fn strict(mut self, tokens: jwt::Key) -> anyhow::Result<Self> {
        anyhow::ensure!(tokens.signs(), jwt::KeyError::Public);
        self.tokens = tokens;
        self.strict = true;
        Ok(self)
    }

    /// Whether a login is signed by the account's key and still good.
    fn accepts(&self, uid: &str, token: &str, now: u64) -> Result<(), &'static str> {
        let key = self.keys.get(uid).ok_or("there is no such account")?;
        let claims = key.claims(token, now)?;
        match claims["uid"].as_str() {
            Some(of) if of != uid => Err("the token is another account's"),
            Some(_) if claims.get("exp").is_some() => Ok(()),
            _ => Err("the token has expired"),
        }
    }

    /// Makes a token that is good until `wanted`, in seconds since 1970, or as long as any is.
    fn issue(&self, uid: &str, now: u64, wanted: Option<u64>) -> Result<String, jwt::KeyError> {
        let last = now + self.life.as_secs();
        let exp = wanted.map_or(last, |wanted| wanted.min(last));
        self.tokens.sign(&json!({"uid": uid, "exp": exp}))
    }

    /// Whether there are accounts at all.
    pub(super) fn any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Who sends this `Authorization`; nobody without a good token.
    pub(super) fn user(&self, authorization: Option<&HeaderValue>) -> Option<String> {
        let authorization = authorization.map(HeaderValue::as_bytes);
        self.tokens.dcos_user(authorization)
    }

    /// A call of DC/OS' own to Marathon or Mesos, with a token where they want one.
    pub(super) fn authorize(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let request = request.timeout(CALL_DEADLINE);
        match self.own() {
            Some(own) => request.header(header::AUTHORIZATION, own),
            None => request,
        }
    }

    /// What DC/OS' own calls of Marathon and Mesos carry; nothing where nobody asks.
    fn own(&self) -> Option<String> {
        let claims = json!({"uid": OWN, "exp": jwt::now() + OWN_SECONDS});
        let token = self.tokens.sign(&claims).ok().filter(|_| self.strict)?;
        Some(format!("token={token}"))
    }
}

/// A login.
#[derive(Deserialize)]
struct Login {
    uid: String,
    token: String,
    /// Until when the account wants its token to be good.
    exp: Option<u64>,
}

pub(super) fn routes() -> Router<Arc<Dcos>> {
    Router::new().route("/acs/api/v1/auth/login", post(login))
}

async fn login(State(dcos): State<Arc<Dcos>>, body: Bytes) -> Response {
    let Ok(login) = serde_json::from_slice::<Login>(&body) else {
        return (StatusCode::BAD_REQUEST, "uid and token are wanted\n").into_response();
    };
    let now = jwt::now();
    let refused = |why: &str| {
        let text = json!({"title": "Unauthorized", "description": why});
        (StatusCode::UNAUTHORIZED, Json(text)).into_response()
    };
    if let Err(why) = dcos.accounts.accepts(&login.uid, &login.token, now) {
        return refused(why);
    }
    match dcos.accounts.issue(&login.uid, now, login.exp) {
        Ok(token) => Json(json!({ "token": token })).into_response(),
        Err(error) => refused(&error.to_string()),
    }
}

/// Lets only those in who have a token, where there are accounts.
pub(super) async fn guard(
    State(dcos): State<Arc<Dcos>>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers_mut();
    let authorization = headers.get(header::AUTHORIZATION);
    let closed = dcos.accounts.any();
    if closed && dcos.accounts.user(authorization).is_none() {
        return unauthorized();
    }
    if closed && !dcos.accounts.strict {
        // It is for this door, and for nobody behind it.
        headers.remove(header::AUTHORIZATION);
    }
    next.run(request).await
}

/// As DC/OS' admin router answers: a page, and the scheme that it wants.
fn unauthorized() -> Response {
    let page = "<html><head><title>401 Authorization Required</title></head><body>A token of \
                /acs/api/v1/auth/login is wanted: Authorization: token=...</body></html>\n";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=UTF-8"),
        (header::WWW_AUTHENTICATE, "acsjwt"),
    ];
    (StatusCode::UNAUTHORIZED, headers, page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_when_the_account_wants_it_to_and_not_later_than_any() {
        let accounts = Accounts::new(&BTreeMap::new(), Duration::from_secs(20)).unwrap();
        let ends = |wanted| {
            let token = accounts.issue("k", 100, wanted).unwrap();
            accounts.tokens.claims(&token, 100).unwrap()["exp"].clone()
        };
        assert_eq!(ends(None), 120);
        assert_eq!(ends(Some(105)), 105);
        assert_eq!(ends(Some(500)), 120);
    }

    #[test]
    fn calls_of_its_own_carry_a_token_where_marathon_wants_one() {
        let accounts = Accounts::default();
        assert_eq!(accounts.own(), None);
        let key = jwt::Key::random();
        let accounts = accounts.strict(key.clone()).unwrap();
        let own = accounts.own().unwrap();
        assert_eq!(key.dcos_user(Some(own.as_bytes())).as_deref(), Some(OWN));
    }
}
