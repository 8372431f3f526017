//! Who may speak with the master: HTTP basic authentication against a file of credentials, tokens
//! of DC/OS, and the access control lists for roles and users, with Mesos' flags, realms and words.
//!
//! Not authenticated are agents (`/internal/agent/..`): who can reach those endpoints is a
//! matter of the network, as with Mesos' own libprocess messages without
//! `--authenticate_agents`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use serde::Deserialize;

use crate::jwt;

/// Why the master cannot be protected as it is told to. Not worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The credentials cannot be read.
    #[error("--credentials={}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// They are not what they should be. The text shows nothing of them.
    #[error(
        "--credentials={}: {why}; expected JSON {{\"credentials\": [{{\"principal\": .., \
         \"secret\": ..}}]}} or lines of principal and secret",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The access control lists cannot be read.
    #[error("--acls: {0}")]
    Acls(String),
}

/// Whom requests must come from.
#[derive(Clone, Default)]
pub struct Authentication {
    secrets: BTreeMap<String, String>,
    /// What signs DC/OS' tokens, where they are taken: their user is the principal.
    pub tokens: Option<jwt::Key>,
    /// `--authenticate_http_frameworks`.
    pub frameworks: bool,
    /// `--authenticate_http_readonly`.
    pub readonly: bool,
    /// `--authenticate_http_readwrite`.
    pub readwrite: bool,
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authentication")
            .field("principals", &self.secrets.keys())
            .field("tokens", &self.tokens)
            .field("frameworks", &self.frameworks)
            .field("readonly", &self.readonly)
            .field("readwrite", &self.readwrite)
            .finish()
    }
}

/// What a request is about, for authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Realm {
    /// The scheduler API.
    Scheduler,
    /// Documents.
    Readonly,
    /// The operator API, and what changes something.
    Readwrite,
}

impl Realm {
    /// As the answer names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "mesos-master-scheduler",
            Self::Readonly => "mesos-master-readonly",
            Self::Readwrite => "mesos-master-readwrite",
        }
    }

    /// The realm of an address; none for what anybody may see.
    pub fn of(path: &str, method: &str) -> Option<Self> {
        match path {
            "/api/v1/scheduler" => Some(Self::Scheduler),
            "/api/v1" => Some(Self::Readwrite),
            "/health" | "/version" | "/redirect" | "/help" => None,
            _ if path.starts_with("/internal/") => None,
            "/teardown" | "/reserve" | "/unreserve" | "/create-volumes" | "/destroy-volumes"
            | "/machine/up" | "/machine/down" => Some(Self::Readwrite),
            _ if method == "GET" || method == "HEAD" => Some(Self::Readonly),
            _ => Some(Self::Readwrite),
        }
    }
}

#[derive(Deserialize)]
struct File {
    credentials: Vec<Credential>,
}

#[derive(Deserialize)]
struct Credential {
    principal: String,
    secret: String,
}

impl Authentication {
    /// Reads credentials.
    pub fn load(path: &Path) -> Result<Self, AuthError> {
        let text = std::fs::read_to_string(path).map_err(|source| AuthError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|why| AuthError::Format {
            path: path.to_owned(),
            why,
        })
    }

    /// Reads credentials from a text: JSON, or lines of a principal and a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut secrets = BTreeMap::new();
        if text.trim_start().starts_with('{') {
            let file: File = serde_json::from_str(text)
                .map_err(|e| format!("line {}: no such JSON", e.line()))?;
            for credential in file.credentials {
                secrets.insert(credential.principal, credential.secret);
            }
        } else {
            for (number, line) in text.lines().enumerate() {
                let words: Vec<&str> = line.split_whitespace().collect();
                match words[..] {
                    [] => {}
                    [principal, secret] => {
                        secrets.insert(principal.to_owned(), secret.to_owned());
                    }
                    _ => return Err(format!("line {} has not two words", number + 1)),
                }
            }
        }
        if secrets.is_empty() {
            return Err("nobody is in it".to_owned());
        }
        Ok(Self {
            secrets,
            ..Self::default()
        })
    }

    /// Whether requests of this realm must say who they are from.
    pub const fn guards(&self, realm: Realm) -> bool {
        match realm {
            Realm::Scheduler => self.frameworks,
            Realm::Readonly => self.readonly,
            Realm::Readwrite => self.readwrite,
        }
    }

    /// What is asked of whoever does not say who they are. DC/OS' scheme is that of its admin
    /// router.
    pub fn challenge(&self, realm: Realm) -> String {
        match self.tokens {
            Some(_) => "acsjwt".to_owned(),
            None => format!("Basic realm=\"{}\"", realm.name()),
        }
    }

    /// Who sent this; nobody without the right secret or a good token.
    pub fn principal(&self, headers: &HeaderMap) -> Option<String> {
        let header = headers.get(header::AUTHORIZATION).map(|h| h.as_bytes());
        let user = self.tokens.as_ref().and_then(|key| key.dcos_user(header));
        user.or_else(|| self.by_password(headers).map(str::to_owned))
    }

    fn by_password(&self, headers: &HeaderMap) -> Option<&str> {
        let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let encoded = header.strip_prefix("Basic ")?;
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .ok()?;
        let pair = String::from_utf8(decoded).ok()?;
        let (principal, secret) = pair.split_once(':')?;
        let (known, wanted) = self.secrets.get_key_value(principal)?;
        // The time does not tell where the first difference is.
        let differs = wanted
            .bytes()
            .zip(secret.bytes())
            .fold(0, |d, (a, b)| d | (a ^ b));
        (wanted.len() == secret.len() && differs == 0).then_some(known)
    }
}

/// Access control lists: the first rule that names the principal and the object decides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acls {
    /// What holds where no rule decides.
    #[serde(default = "yes")]
    pub permissive: bool,
    /// Who may register in which roles.
    #[serde(default)]
    pub register_frameworks: Vec<RegisterFramework>,
    /// Who may run tasks as which users.
    #[serde(default)]
    pub run_tasks: Vec<RunTask>,
}

const fn yes() -> bool {
    true
}

impl Default for Acls {
    /// Everything is allowed.
    fn default() -> Self {
        Self {
            permissive: true,
            register_frameworks: Vec::new(),
            run_tasks: Vec::new(),
        }
    }
}

/// A rule for roles.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterFramework {
    principals: Entity,
    roles: Entity,
}

/// A rule for users.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTask {
    principals: Entity,
    users: Entity,
}

/// Some, all, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity {
    #[serde(default)]
    r#type: Kind,
    #[serde(default)]
    values: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    #[default]
    Some,
    Any,
    None,
}

impl Entity {
    /// Whether a rule with this subject or object is about this name.
    fn matches(&self, name: &str) -> bool {
        self.r#type != Kind::Some || self.values.contains(name)
    }

    /// Whether a rule with this object, being about this name, allows it.
    fn allows(&self, name: &str) -> bool {
        match self.r#type {
            Kind::Any => true,
            Kind::None => false,
            Kind::Some => self.values.contains(name),
        }
    }
}

impl Acls {
    /// Reads the value of `--acls`: JSON.
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        serde_json::from_str(text).map_err(|e| AuthError::Acls(e.to_string()))
    }

    /// By the first rule that is about both, else as `permissive` says.
    fn decide<'a>(
        &self,
        rules: impl Iterator<Item = (&'a Entity, &'a Entity)>,
        principal: Option<&str>,
        object: &str,
    ) -> bool {
        for (principals, objects) in rules {
            let subject = match principal {
                Some(principal) => principals.matches(principal),
                None => principals.r#type != Kind::Some,
            };
            if subject && objects.matches(object) {
                return objects.allows(object);
            }
        }
        self.permissive
    }

    /// Whether a framework of this principal may have this role.
    pub fn may_register(&self, principal: Option<&str>, role: &str) -> bool {
        let rules = self.register_frameworks.iter();
        self.decide(rules.map(|r| (&r.principals, &r.roles)), principal, role)
    }

    /// Whether this principal may run tasks as this user.
    pub fn may_run(&self, principal: Option<&str>, user: &str) -> bool {
        let rules = self.run_tasks.iter();
        self.decide(rules.map(|r| (&r.principals, &r.users)), principal, user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> HeaderMap {
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        let mut headers = HeaderMap::new();
        let value = format!("Basic {encoded}").parse().unwrap();
        headers.insert(header::AUTHORIZATION, value);
        headers
    }

    #[test]
    fn principals_are_known_by_their_secrets() {
        for text in [
            "golden pw\nother x:y\n",
            r#"{"credentials": [{"principal": "golden", "secret": "pw"}, {"principal": "other", "secret": "x:y"}]}"#,
        ] {
            let authentication = Authentication::parse(text).unwrap();
            let principal = |pair| authentication.principal(&basic(pair));
            assert_eq!(principal("golden:pw").as_deref(), Some("golden"));
            assert_eq!(principal("other:x:y").as_deref(), Some("other"));
            for wrong in ["golden:p", "golden:pww", "none:pw", "golden", ""] {
                assert_eq!(authentication.principal(&basic(wrong)), None, "{wrong}");
            }
            assert_eq!(authentication.principal(&HeaderMap::new()), None);
            assert!(!format!("{authentication:?}").contains("pw"));
        }
        for text in ["", "one", "{}", "{", "a b c"] {
            let error = Authentication::parse(text).unwrap_err();
            assert!(!error.is_empty());
        }
    }

    #[test]
    fn a_token_of_dcos_names_the_principal() {
        let key = jwt::Key::random();
        let claims = serde_json::json!({"uid": "kubernetes", "exp": jwt::now() + 60});
        let header = format!("token={}", key.sign(&claims).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, header.parse().unwrap());
        let with = |tokens| Authentication {
            tokens,
            ..Authentication::default()
        };
        let principal = with(Some(key)).principal(&headers);
        assert_eq!(principal.as_deref(), Some("kubernetes"));
        let others = with(Some(jwt::Key::random()));
        assert_eq!(others.principal(&headers), None);
        assert_eq!(others.challenge(Realm::Scheduler), "acsjwt");
        assert_eq!(with(None).principal(&headers), None);
    }

    #[test]
    fn the_first_rule_that_is_about_it_decides() {
        let acls = Acls::parse(
            r#"{"permissive": true, "register_frameworks": [
                {"principals": {"values": ["golden"]}, "roles": {"values": ["r1", "r2"]}},
                {"principals": {"values": ["golden"]}, "roles": {"type": "NONE"}}]}"#,
        )
        .unwrap();
        assert!(acls.may_register(Some("golden"), "r1"));
        assert!(!acls.may_register(Some("golden"), "r9"));
        assert!(acls.may_register(Some("other"), "r9"));
        assert!(acls.may_run(Some("golden"), "root"));
        let strict = Acls::parse(r#"{"permissive": false}"#).unwrap();
        assert!(!strict.may_run(Some("golden"), "root"));
        assert!(Acls::default().may_register(None, "r"));
    }
}
