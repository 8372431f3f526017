//! JSON Web Tokens as DC/OS and Mesos sign them: RS256 by a pair of keys, or HS256 by a secret that
//! whoever checks them knows too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use serde_json::{Value, json};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Shortest secret, bytes: what HS256 is as strong as.
const SHORTEST_SECRET: usize = 32;

/// Why a key is of no use. Not worth a retry. The texts show nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{0}; expected an RSA key in PEM, or a secret of {SHORTEST_SECRET} bytes or more")]
    Format(String),
    /// A public key signs nothing.
    #[error("the public half of a key signs no tokens; the private one is wanted")]
    Public,
    /// The key does not sign.
    #[error("the key does not sign")]
    Sign,
}

/// What tokens are signed with, or checked against.
#[derive(Clone)]
pub struct Key(Arc<Kind>);

enum Kind {
    Secret(hmac::Key),
    Pair(KeyPair),
    /// PKCS #1.
    Public(Vec<u8>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, <secret>)", self.algorithm())
    }
}

impl Key {
    /// Reads a file: PEM of a private or a public RSA key, or a secret.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// The same, given. White space around a secret does not count.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if !text.starts_with("-----BEGIN") {
            return match text.len() {
                short if short < SHORTEST_SECRET => {
                    Err(KeyError::Format(format!("a secret of {short} bytes")))
                }
                _ => Ok(Self::of_secret(text.as_bytes())),
            };
        }
        let bad = |why: &str| KeyError::Format(why.to_owned());
        let (pem, _) = Pem::read(std::io::Cursor::new(text)).map_err(|_| bad("damaged PEM"))?;
        let pair = |pair: Result<KeyPair, ring::error::KeyRejected>| {
            pair.map(Kind::Pair).map_err(|e| bad(&e.to_string()))
        };
        let kind = match pem.label.as_str() {
            "PRIVATE KEY" => pair(KeyPair::from_pkcs8(&pem.contents))?,
            "RSA PRIVATE KEY" => pair(KeyPair::from_der(&pem.contents))?,
            "PUBLIC KEY" => {
                let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents)
                    .map_err(|_| bad("no public key"))?;
                Kind::Public(info.subject_public_key.data.to_vec())
            }
            other => return Err(KeyError::Format(format!("PEM of a {other}"))),
        };
        Ok(Self(Arc::new(kind)))
    }

    /// A secret of this process alone.
    pub fn random() -> Self {
        let mut secret = [0; SHORTEST_SECRET];
        rand::rng().fill_bytes(&mut secret);
        Self::of_secret(&secret)
    }

    fn of_secret(secret: &[u8]) -> Self {
        Self(Arc::new(Kind::Secret(hmac::Key::new(
            hmac::HMAC_SHA256,
            secret,
        ))))
    }

    fn algorithm(&self) -> &'static str {
        match *self.0 {
            Kind::Secret(_) => "HS256",
            Kind::Pair(_) | Kind::Public(_) => "RS256",
        }
    }

    /// Whether it is more than the public half.
    pub fn signs(&self) -> bool {
        !matches!(*self.0, Kind::Public(_))
    }

    /// A token that says this.
    pub fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(&json!({"alg": self.algorithm(), "typ": "JWT"}));
        let text = format!("{head}.{}", part(claims));
        let signature = match &*self.0 {
            Kind::Secret(key) => hmac::sign(key, text.as_bytes()).as_ref().to_vec(),
            Kind::Pair(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .map_err(|_| KeyError::Sign)?;
                signature
            }
            Kind::Public(_) => return Err(KeyError::Public),
        };
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says that this key has signed and that has not expired `now`, in seconds since
    /// 1970; or why it is not good.
    pub fn claims(&self, token: &str, now: u64) -> Result<Value, &'static str> {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part.trim_end_matches('='));
        let document = |part: &str| -> Option<Value> {
            let value: Value = serde_json::from_slice(&decode(part).ok()?).ok()?;
            value.is_object().then_some(value)
        };
        let (signed, signature) = token.rsplit_once('.').ok_or("the token is none")?;
        let (head, body) = signed.split_once('.').ok_or("the token is none")?;
        let head = document(head).ok_or("the token is none")?;
        let claims = document(body).ok_or("the token is none")?;
        if head["alg"] != self.algorithm() {
            return Err("the token is signed by another algorithm");
        }
        let signature = decode(signature).map_err(|_| "the signature is none")?;
        let rsa = |public: &[u8]| {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
                .verify(signed.as_bytes(), &signature)
        };
        match &*self.0 {
            Kind::Secret(key) => hmac::verify(key, signed.as_bytes(), &signature),
            Kind::Pair(pair) => rsa(pair.public_key().as_ref()),
            Kind::Public(public) => rsa(public),
        }
        .map_err(|_| "the signature is another key's")?;
        match &claims["exp"] {
            Value::Null => Ok(claims),
            exp if exp.as_f64().is_some_and(|exp| exp > now as f64) => Ok(claims),
            _ => Err("the token has expired"),
        }
    }

    /// Who has logged in at DC/OS with the token in this `Authorization`; such tokens always end.
    pub fn dcos_user(&self, authorization: Option<&[u8]>) -> Option<String> {
        let token = std::str::from_utf8(authorization?).ok()?;
        let token = token.strip_prefix("token=")?;
        let claims = self.claims(token.trim(), now()).ok()?;
        claims.get("exp")?;
        Some(claims["uid"].as_str()?.to_owned())
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(token: &str) -> String {
        format!("token={token}")
    }

    #[test]
    fn a_token_says_who_it_is_as_long_as_it_lives() {
        let key = Key::parse(&"s".repeat(40)).unwrap();
        let token = key.sign(&json!({"uid": "k", "exp": 1000})).unwrap();
        assert_eq!(key.claims(&token, 999).unwrap()["uid"], "k");
        assert_eq!(key.claims(&token, 1000), Err("the token has expired"));
        let other = Key::random();
        assert_eq!(
            other.claims(&token, 1),
            Err("the signature is another key's")
        );
        let good = key.sign(&json!({"uid": "k", "exp": now() + 60})).unwrap();
        let user = |text: &str| key.dcos_user(Some(text.as_bytes()));
        assert_eq!(user(&header(&good)).as_deref(), Some("k"));
        // DC/OS takes no other scheme.
        assert_eq!(user(&format!("Bearer {good}")), None);
        assert_eq!(user(&header(&token)), None);
        let endless = key.sign(&json!({"uid": "k"})).unwrap();
        assert_eq!(user(&header(&endless)), None);
        assert_eq!(key.dcos_user(None), None);
    }

    #[test]
    fn what_is_no_token_is_none_and_no_algorithm_is_taken_from_it() {
        let key = Key::random();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let unsigned = format!(
            "{}.{}.",
            part(json!({"alg": "none"})),
            part(json!({"uid": "k"}))
        );
        for bad in ["", ".", "a.b", "a.b.c", "e30.e30.e30", "..", &unsigned] {
            assert!(key.claims(bad, 0).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_showing_it() {
        for bad in [
            "geheim",
            "-----BEGIN PUBLIC KEY-----\nZ2VoZWlt\n-----END PUBLIC KEY-----\n",
            "-----BEGIN geheim",
            "-----BEGIN PRIVATE KEY-----\nZ2VoZWlt\n-----END PRIVATE KEY-----\n",
        ] {
            let error = Key::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
        let key = Key::parse(&"geheim".repeat(9)).unwrap();
        assert!(!format!("{key:?}").contains("geheim"));
    }

    #[test]
    fn rsa_signs_with_the_private_half_and_is_checked_with_the_public_one() {
        let openssl = |args: &[&str]| {
            let output = std::process::Command::new("openssl").args(args).output();
            let output = output.expect("openssl, which `scripts/setup check` installs");
            String::from_utf8(output.stdout).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("private.pem");
        let private = openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ]);
        std::fs::write(&file, &private).unwrap();
        let public = openssl(&["rsa", "-pubout", "-in", file.to_str().unwrap()]);
        let (private, public) = (Key::parse(&private).unwrap(), Key::parse(&public).unwrap());
        let token = private.sign(&json!({"uid": "k", "exp": 10})).unwrap();
        assert_eq!(public.claims(&token, 1).unwrap()["uid"], "k");
        assert_eq!(private.claims(&token, 1).unwrap()["uid"], "k");
        assert!(matches!(public.sign(&json!({})), Err(KeyError::Public)));
        assert!(Key::random().claims(&token, 1).is_err());
    }
}
