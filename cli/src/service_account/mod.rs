//! DC/OS' service accounts: a user id with a private key, as they lie in a secret, and the login
//! that makes a token of them.

mod renewal;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::{Value, json};

pub use renewal::{begin, keep, keep_of_file};

/// How long a login's own token is good.
const LOGIN_SECONDS: u64 = 300;
/// How long a token is taken to be good that does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);
/// How long a login may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why a service account gives no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secret.
    #[error(
        "the secret of the service account is not usable: {0}; `dcos security secrets create-sa-secret` writes one"
    )]
    Secret(String),
    /// The key.
    #[error("the private key of the service account {uid} is not usable: {reason}")]
    Key {
        /// Whose.
        uid: String,
        /// Why not.
        reason: String,
    },
    /// The file that others read the token from. Worth a retry.
    #[error("write the token to {path}: {reason}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The login. Worth a retry.
    #[error("log in as {uid} at {endpoint}: {reason}")]
    Login {
        /// Who.
        uid: String,
        /// Where.
        endpoint: String,
        /// Why not.
        reason: String,
    },
}

/// A service account.
#[derive(Deserialize)]
pub struct Account {
    uid: String,
    private_key: String,
    login_endpoint: String,
    #[serde(default)]
    scheme: String,
    /// The authority to trust at the login instead of the operating system's.
    #[serde(skip)]
    ca: Option<PathBuf>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("uid", &self.uid)
            .field("login_endpoint", &self.login_endpoint)
            .finish_non_exhaustive()
    }
}

/// A token, and until when it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What `Authorization: token=` takes.
    pub value: String,
    /// When a new one is to be had: well before this one ends.
    pub renew_at: SystemTime,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("renew_at", &self.renew_at)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// Reads the secret of a service account. `None`: it is something else, such as the plain
    /// password of a Mesos principal.
    pub fn parse(secret: &str) -> Option<Result<Self, Error>> {
        let value: Value = serde_json::from_str(secret).ok()?;
        value.get("login_endpoint")?;
        let account: Result<Self, _> = serde_json::from_value(value);
        Some(match account {
            Ok(account) if !matches!(account.scheme.as_str(), "" | "RS256") => Err(Error::Secret(
                format!("its scheme is {}, where RS256 is known", account.scheme),
            )),
            Ok(account) => Ok(account),
            // The text of the error could show the key.
            Err(_) => Err(Error::Secret(
                "uid, private_key or login_endpoint is missing or no text".to_owned(),
            )),
        })
    }

    /// The same, trusting another authority at the login than the operating system's.
    #[must_use]
    pub fn trusting(mut self, ca: Option<PathBuf>) -> Self {
        self.ca = ca;
        self
    }

    /// Its name.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Where DC/OS' APIs are: the login without its path.
    pub fn dcos(&self) -> &str {
        let end = self.login_endpoint.find("/acs/api/");
        let base = end.and_then(|end| self.login_endpoint.get(..end));
        base.unwrap_or(&self.login_endpoint).trim_end_matches('/')
    }

    /// The token that a login asks for another with, signed by the account's key.
    fn assertion(&self, now: u64) -> Result<String, Error> {
        let bad = |reason: &str| Error::Key {
            uid: self.uid.clone(),
            reason: reason.to_owned(),
        };
        let pem = pem::parse(&self.private_key).map_err(|_| bad("it is no PEM"))?;
        let key = match pem.tag() {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(pem.contents()),
            _ => RsaKeyPair::from_pkcs8(pem.contents()),
        }
        .map_err(|e| bad(&e.to_string()))?;
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "RS256", "typ": "JWT"}));
        let body = part(json!({"uid": self.uid, "exp": now + LOGIN_SECONDS}));
        let text = format!("{head}.{body}");
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            text.as_bytes(),
            &mut signature,
        )
        .map_err(|_| bad("it does not sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Logs in.
    pub async fn login(&self) -> Result<Token, Error> {
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let failed = |reason: String| Error::Login {
            uid: self.uid.clone(),
            endpoint: self.login_endpoint.clone(),
            reason,
        };
        let body = json!({
            "uid": self.uid, "token": self.assertion(seconds)?, "exp": seconds + LOGIN_SECONDS,
        });
        let https = self.login_endpoint.starts_with("https:");
        let client = crate::http::public_client(self.ca.as_deref(), https, DEADLINE)
            .map_err(|e| failed(crate::error::chain(&e)))?;
        let answer = client
            .post(&self.login_endpoint)
            .json(&body)
            .send()
            .await
            .map_err(|e| failed(crate::error::chain(&e.without_url())))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(failed(format!(
                "HTTP {status}: is the service account's public key in DC/OS?"
            )));
        }
        let answer: Value = answer
            .json()
            .await
            .map_err(|e| failed(crate::error::chain(&e.without_url())))?;
        match answer["token"].as_str() {
            Some(token) if !token.is_empty() => Ok(Token {
                value: token.to_owned(),
                renew_at: renew_at(token, now),
            }),
            _ => Err(failed("the answer holds no token".to_owned())),
        }
    }
}

/// When three quarters of a token's life are over.
fn renew_at(token: &str, now: SystemTime) -> SystemTime {
    let expires = token
        .split('.')
        .nth(1)
        .and_then(|body| URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok())
        .and_then(|body| serde_json::from_slice::<Value>(&body).ok())
        .and_then(|body| body["exp"].as_u64())
        .and_then(|exp| UNIX_EPOCH.checked_add(Duration::from_secs(exp)));
    let life = expires.and_then(|at| at.duration_since(now).ok());
    now + life.unwrap_or(DEFAULT_LIFE).mul_f64(0.75)
}

#[cfg(test)]
pub(crate) mod tests;
