//! DC/OS' secret store, by the service account: `/secrets/v1/secret/default/<path>`.
//!
//! DC/OS lets apps use a secret whose folder their id begins with. So what the control plane's apps
//! get lies below `<name>-cp/`, and what this app alone reads below `<name>/`:
//!
//! | secret | what |
//! |---|---|
//! | `<name>-cp/pki-<component>` | a component's keys |
//! | `<name>/k8sm-state` | the record of the installation and all keys |
//! | `<name>/k8sm-kubeconfig` | the administrators' kubeconfig |

use std::path::{Path, PathBuf};
use std::time::Duration;

use packaging::install::plan::group;
use packaging::marathon::pki_secret;
use packaging::pki::Component;
use packaging::pki::plan::MOST_MEMBERS;
use reqwest::Method;
use serde_json::{Value, json};

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Largest secret, bytes: DC/OS takes a mebibyte with what it adds itself.
const LARGEST: usize = 1000 << 10;

/// Why the secret store is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
    /// The token that is kept good. Worth a retry.
    #[error("read the service account's token from {path}: {source}", path = .path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The account has no permission. A retry helps once it has.
    #[error(
        "{attempt}: the service account {account} is not allowed to; grant it this, it is tried again:\n{}",
        grants(account, service)
    )]
    Forbidden {
        /// What was tried.
        attempt: String,
        /// Who.
        account: String,
        /// Of which service.
        service: String,
    },
    /// It does not answer. Worth a retry.
    #[error("{attempt}: the secret store at {base} does not answer: {reason}")]
    Unreachable {
        /// What was tried.
        attempt: String,
        /// Where.
        base: String,
        /// Why not.
        reason: String,
    },
    /// It answers something else than it should. Worth a retry: a store that is sealed says so.
    #[error("{attempt}: the secret store answers {status}{said}")]
    Refused {
        /// What was tried.
        attempt: String,
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// More than a secret can hold.
    #[error("{path} would have {size} bytes, where a secret of DC/OS has at most {LARGEST}")]
    Large {
        /// Which.
        path: String,
        /// Its size.
        size: usize,
    },
    /// It is still there.
    #[error("the secret {0} was deleted, and is there all the same: somebody else writes it")]
    StillThere(String),
}

/// What the account of a service needs, as one enters it.
pub(crate) fn grants(account: &str, service: &str) -> String {
    [service.to_owned(), folder(service)]
        .map(|folder| {
            format!(
                "  dcos security org users grant {account} dcos:secrets:default:/{folder}/* full"
            )
        })
        .join("\n")
}

/// The folder of what the control plane's apps get.
pub(crate) fn folder(service: &str) -> String {
    group(service).trim_start_matches('/').to_owned()
}

/// The secret with the state.
pub(crate) fn state(service: &str) -> String {
    format!("{service}/k8sm-state")
}

/// The secret with the administrators' kubeconfig.
pub(crate) fn kubeconfig(service: &str) -> String {
    format!("{service}/k8sm-kubeconfig")
}

/// All secrets that a service can have, the state last.
fn all(service: &str) -> Vec<String> {
    let folder = folder(service);
    let keys = Component::all(MOST_MEMBERS).into_iter();
    // The framework's keys are taken out of the state.
    keys.filter(|component| *component != Component::Framework)
        .map(|component| pki_secret(&folder, service, component))
        .chain([kubeconfig(service), state(service)])
        .collect()
}

/// The store.
#[derive(Clone)]
pub(crate) struct Store {
    http: reqwest::Client,
    base: String,
    account: String,
    service: String,
    /// The file with a token that somebody keeps good.
    token: PathBuf,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("base", &self.base)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The store of this DC/OS, for a service account whose token is in a file.
    pub fn new(
        dcos: String,
        account: String,
        token: PathBuf,
        ca: Option<&Path>,
        service: &str,
    ) -> Result<Self, Error> {
        Ok(Self {
            http: crate::http::public_client(ca, dcos.starts_with("https:"), DEADLINE)?,
            base: dcos,
            account,
            service: service.to_owned(),
            token,
        })
    }

    /// A secret; `None` when there is none.
    pub async fn get(&self, path: &str) -> Result<Option<String>, Error> {
        let attempt = format!("read the secret {path}");
        match self.send(&attempt, Method::GET, path, None).await? {
            (200, body) => match body["value"].as_str() {
                Some(value) => Ok(Some(value.to_owned())),
                None => Err(refused(attempt, 200, &json!("no value"))),
            },
            (404, _) => Ok(None),
            (status, body) => Err(refused(attempt, status, &body)),
        }
    }

    /// Stores a secret; says whether that changed it.
    pub async fn put(&self, path: &str, value: &str) -> Result<bool, Error> {
        if value.len() > LARGEST {
            return Err(Error::Large {
                path: path.to_owned(),
                size: value.len(),
            });
        }
        let before = self.get(path).await?;
        if before.as_deref() == Some(value) {
            return Ok(false);
        }
        let body = json!({"value": value});
        let attempt = format!("store the secret {path}");
        // Whoever creates or deletes it at the same moment is met by the next attempt.
        let method = match before {
            None => Method::PUT,
            Some(_) => Method::PATCH,
        };
        match self.send(&attempt, method, path, Some(&body)).await? {
            (200..=204, _) => Ok(true),
            (status, body) => Err(refused(attempt, status, &body)),
        }
    }

    /// Deletes a secret, and looks whether it is gone.
    async fn delete(&self, path: &str) -> Result<(), Error> {
        if self.get(path).await?.is_none() {
            return Ok(());
        }
        let attempt = format!("delete the secret {path}");
        match self.send(&attempt, Method::DELETE, path, None).await? {
            (200..=204 | 404, _) => {}
            (status, body) => return Err(refused(attempt, status, &body)),
        }
        match self.get(path).await? {
            None => Ok(()),
            Some(_) => Err(Error::StillThere(path.to_owned())),
        }
    }

    /// Deletes everything of the service, the state last: as long as it is there, the rest is known
    /// to be.
    pub async fn clear(&self) -> Result<(), Error> {
        for path in all(&self.service) {
            self.delete(&path).await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        attempt: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Error> {
        let url = format!("{}/secrets/v1/secret/default/{path}", self.base);
        let token = tokio::fs::read_to_string(&self.token).await;
        let token = token.map_err(|source| Error::Token {
            path: self.token.clone(),
            source,
        })?;
        let mut request = self
            .http
            .request(method, url)
            .header("authorization", format!("token={}", token.trim()))
            .header("accept", "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |e: reqwest::Error| Error::Unreachable {
            attempt: attempt.to_owned(),
            base: self.base.clone(),
            reason: crate::error::chain(&e.without_url()),
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        if status == 403 {
            return Err(Error::Forbidden {
                attempt: attempt.to_owned(),
                account: self.account.clone(),
                service: self.service.clone(),
            });
        }
        let bytes = answer.bytes().await.map_err(unreachable)?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

/// What it says of itself is shown, never a value.
fn refused(attempt: String, status: u16, body: &Value) -> Error {
    let text = body["message"].as_str().or(body["description"].as_str());
    let said = match text.or(body.as_str()) {
        Some(text) => format!(": {text}"),
        None if status == 401 => ": the token is not valid any more".to_owned(),
        None => String::new(),
    };
    Error::Refused {
        attempt,
        status,
        said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_lies_where_dcos_lets_its_reader_have_it() {
        // An app's id without its slash begins with the secret's folder.
        let may = |app: &str, secret: &str| {
            let folder = secret.rsplit_once('/').map_or("", |(folder, _)| folder);
            app == format!("/{folder}") || app.starts_with(&format!("/{folder}/"))
        };
        for secret in all("k") {
            let own = !secret.contains("/pki-");
            assert_eq!(may("/k", &secret), own, "{secret}");
            assert_eq!(may("/k-cp/etcd-0", &secret), !own, "{secret}");
            assert!(
                !may("/other", &secret) && !may("/k-cpu/x", &secret),
                "{secret}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_said_as_it_is_entered() {
        let error = Error::Forbidden {
            attempt: "store the secret k/k8sm-state".to_owned(),
            account: "robot".to_owned(),
            service: "k".to_owned(),
        };
        insta::assert_snapshot!(error.to_string(), @r"
        store the secret k/k8sm-state: the service account robot is not allowed to; grant it this, it is tried again:
          dcos security org users grant robot dcos:secrets:default:/k/* full
          dcos security org users grant robot dcos:secrets:default:/k-cp/* full
        ");
    }
}
