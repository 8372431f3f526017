//! Service accounts as DC/OS' identity service has them: who signs a login with the account's key
//! gets a token, and with any account there, every path but the login wants one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Dcos;

/// Most tokens that are remembered; the oldest goes.
const MOST_TOKENS: usize = 1000;

/// Service accounts and the tokens that they have got.
#[derive(Debug, Default)]
pub struct Accounts {
    /// Public keys, PKCS #1, by the accounts' names.
    keys: BTreeMap<String, Vec<u8>>,
    life: Duration,
    tokens: Mutex<HashMap<String, Instant>>,
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

    /// Takes public keys, PEM, by the accounts' names.
    pub fn new(pems: &BTreeMap<String, String>, life: Duration) -> anyhow::Result<Self> {
        let mut keys = BTreeMap::new();
        for (uid, pem) in pems {
            let key = public_key(pem).with_context(|| format!("the public key of {uid}"))?;
            keys.insert(uid.clone(), key);
        }
        Ok(Self {
            keys,
            life,
            tokens: Mutex::default(),
        })
    }

    /// Whether a login is signed by the account's key and still good.
    fn accepts(&self, uid: &str, token: &str, now: u64) -> Result<(), &'static str> {
        let key = self.keys.get(uid).ok_or("there is no such account")?;
        let (signed, signature) = token.rsplit_once('.').ok_or("the token is none")?;
        let (head, body) = signed.split_once('.').ok_or("the token is none")?;
        let decoded = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?).ok()
        };
        if decoded(head).is_none_or(|h| h["alg"] != "RS256") {
            return Err("the token is not signed by RS256");
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature.trim_end_matches('='))
            .map_err(|_| "the signature is none")?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| "the signature is not the account's")?;
        let body = decoded(body).ok_or("the token is none")?;
        match (body["uid"].as_str(), body["exp"].as_u64()) {
            (Some(of), _) if of != uid => Err("the token is another account's"),
            (Some(_), Some(exp)) if exp > now => Ok(()),
            _ => Err("the token has expired"),
        }
    }

    /// Makes a token.
    fn issue(&self, uid: &str, now: u64) -> String {
        let mut random = [0; 24];
        rand::rng().fill_bytes(&mut random);
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!(
            "{}.{}.{}",
            part(json!({"alg": "HS256", "typ": "JWT"})),
            part(json!({"uid": uid, "exp": now + self.life.as_secs()})),
            URL_SAFE_NO_PAD.encode(random)
        );
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        tokens.retain(|_, until| *until > at);
        if tokens.len() >= MOST_TOKENS
            && let Some(oldest) = tokens
                .iter()
                .min_by_key(|(_, until)| **until)
                .map(|(t, _)| t.clone())
        {
            tokens.remove(&oldest);
        }
        tokens.insert(token.clone(), at + self.life);
        token
    }

    /// Whether there are accounts at all.
    pub(super) fn any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether whoever sends this `Authorization` may come in.
    pub(super) fn knows(&self, authorization: Option<&str>) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        let token =
            authorization.and_then(|a| a.strip_prefix("token=").or(a.strip_prefix("Bearer ")));
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        token
            .and_then(|token| tokens.get(token))
            .is_some_and(|until| *until > Instant::now())
    }
}

/// A public key without what is around it.
fn public_key(pem: &str) -> anyhow::Result<Vec<u8>> {
    let (pem, _) = Pem::read(std::io::Cursor::new(pem)).context("it is no PEM")?;
    let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents)
        .map_err(|e| anyhow::anyhow!("it is no public key: {e}"))?;
    Ok(info.subject_public_key.data.to_vec())
}

/// A login.
#[derive(Deserialize)]
struct Login {
    uid: String,
    token: String,
}

pub(super) fn routes() -> Router<Arc<Dcos>> {
    Router::new().route("/acs/api/v1/auth/login", post(login))
}

async fn login(State(dcos): State<Arc<Dcos>>, body: Bytes) -> Response {
    let Ok(login) = serde_json::from_slice::<Login>(&body) else {
        return (StatusCode::BAD_REQUEST, "uid and token are wanted\n").into_response();
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    match dcos.accounts.accepts(&login.uid, &login.token, now) {
        Ok(()) => Json(json!({"token": dcos.accounts.issue(&login.uid, now)})).into_response(),
        Err(why) => (
            StatusCode::UNAUTHORIZED,
            Json(json!({"title": "Unauthorized", "description": why})),
        )
            .into_response(),
    }
}

/// Lets only those in who have a token, where there are accounts.
pub(super) async fn guard(
    State(dcos): State<Arc<Dcos>>,
    mut request: Request,
    next: Next,
) -> Response {
    let authorization = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    if !dcos.accounts.knows(authorization) {
        let body = "a token of /acs/api/v1/auth/login is wanted: Authorization: token=...\n";
        return (StatusCode::UNAUTHORIZED, body).into_response();
    }
    if !dcos.accounts.keys.is_empty() {
        // It is for this door, and for nobody behind it.
        request.headers_mut().remove(header::AUTHORIZATION);
    }
    next.run(request).await
}
