//! Bootstrap tokens: with one, a new node asks for its certificates, and with nothing else.
//!
//! A token is good for one node: the Node's annotation has its public part, and [`super::csr`]
//! approves only requests for that node. It expires after minutes and is deleted once the
//! certificates are there. The annotation is written before the Secret, so that no token is
//! forgotten; the framework may make and delete such Secrets, and read none.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use rand::TryRngCore;
use rand::rngs::OsRng;
use seam::names::{BOOTSTRAP_GROUP, BOOTSTRAP_NODE_LABEL, BOOTSTRAP_TOKEN, SYSTEM_NAMESPACE};

use super::api::{ApiError, call};

/// How long a token is good by default: an executor that needs longer to come up is retried
/// with a new one. The API server refuses expired tokens by itself.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// User name prefix that the API server gives to bearers of bootstrap tokens.
pub const USER_PREFIX: &str = "system:bootstrap:";

/// The public part of a token, six characters of `a-z0-9`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

impl TokenId {
    /// Takes an id that exists.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = text.len() == ID_LENGTH && text.bytes().all(|b| ALPHABET.contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user that the API server takes a bearer for.
    pub fn user(&self) -> String {
        format!("{USER_PREFIX}{}", self.0)
    }

    fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.0)
    }
}

/// A token. Its secret part shows in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: TokenId,
    secret: String,
}

/// The machine gives no random numbers. Nothing helps but another machine.
#[derive(Debug, thiserror::Error)]
#[error("make a bootstrap token: no random numbers: {0}")]
pub struct NoRandomness(#[from] rand::rand_core::OsError);

impl BootstrapToken {
    /// A new token.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self {
            id: TokenId(random_text(ID_LENGTH)?),
            secret: random_text(SECRET_LENGTH)?,
        })
    }

    /// Its public part.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// `<id>.<secret>`, for the node's configuration and nothing else.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id.0, self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootstrapToken({}.<hidden>)", self.id.0)
    }
}

fn random_text(length: usize) -> Result<String, NoRandomness> {
    // 252 is the largest multiple of 36 in a byte: greater ones would make some letters likelier.
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 32];
    while text.len() < length {
        OsRng.try_fill_bytes(&mut bytes)?;
        let fair = bytes.iter().filter(|b| **b < 252);
        let letters = fair.map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

/// The Secret of a token.
pub fn secret_for(token: &BootstrapToken, node: &str, expires: Timestamp) -> Secret {
    let expiration = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let data = [
        ("token-id", token.id.0.as_str()),
        ("token-secret", token.secret.as_str()),
        ("expiration", expiration.as_str()),
        ("usage-bootstrap-authentication", "true"),
        ("auth-extra-groups", BOOTSTRAP_GROUP),
        (
            "description",
            "For one start of one node; made and deleted by the k8sm-framework.",
        ),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(token.id.secret_name()),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            labels: Some([(BOOTSTRAP_NODE_LABEL.to_owned(), node.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("bootstrap.kubernetes.io/token".to_owned()),
        string_data: Some(data.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        ..Secret::default()
    }
}

/// Stores a new token for a node.
pub async fn create(
    client: &Client,
    token: &BootstrapToken,
    node: &str,
    expires: Timestamp,
) -> Result<(), ApiError> {
    let secret = secret_for(token, node, expires);
    let what = || format!("create the bootstrap token {} of node {node}", token.id.0);
    let params = PostParams::default();
    match call(what, secrets(client).create(&params, &secret)).await {
        // The answer to an earlier attempt was lost: the id has thirty random bits, so this is
        // no other token's.
        Ok(_) | Err(ApiError::Exists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes a token. One that is gone is no error.
pub async fn delete(client: &Client, id: &TokenId) -> Result<(), ApiError> {
    let what = || format!("delete the bootstrap token {}", id.0);
    let name = id.secret_name();
    match call(
        what,
        secrets(client).delete(&name, &DeleteParams::default()),
    )
    .await
    {
        Ok(_) | Err(ApiError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The token that was made for a node's current start, as its Node object has it.
pub fn token_of(node: &Node) -> Option<TokenId> {
    let annotations = node.metadata.annotations.as_ref()?;
    TokenId::parse(annotations.get(BOOTSTRAP_TOKEN)?)
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_kubernetes_form_and_hides_its_secret() {
        let token = BootstrapToken::generate().unwrap();
        let text = token.reveal();
        let (id, secret) = text.split_once('.').unwrap();
        assert_eq!(TokenId::parse(id).as_ref(), Some(token.id()));
        assert_eq!(secret.len(), 16);
        assert!(
            secret
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert!(!format!("{token:?}").contains(secret));
        assert_ne!(text, BootstrapToken::generate().unwrap().reveal());
    }

    #[test]
    fn the_secret_says_what_upstream_reads() {
        let token = BootstrapToken {
            id: TokenId("abc123".into()),
            secret: "0123456789abcdef".into(),
        };
        let secret = secret_for(&token, "n1", "2026-11-21T10:00:00.5Z".parse().unwrap());
        insta::assert_snapshot!(serde_json::to_string_pretty(&secret).unwrap());
    }

    #[test]
    fn a_node_tells_its_token() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"annotations": {BOOTSTRAP_TOKEN: "abc123"}},
        }))
        .unwrap();
        assert_eq!(token_of(&node), TokenId::parse("abc123"));
        assert_eq!(token_of(&Node::default()), None);
    }
}
