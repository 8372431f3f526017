//! Who one is on which registry, as Docker's `config.json` says it, which Mesos agents
//! (`--docker_config`) and people have.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::reference::DOCKER_HUB;

/// The names under which `docker login` keeps Docker Hub.
const HUB_KEYS: [&str; 2] = ["https://index.docker.io/v1/", "index.docker.io"];

/// A user and a password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
}

impl Login {
    /// A user with a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Logins by registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
}

/// Why a file with credentials is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read credentials {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is none. What is in it is not quoted.
    #[error(
        "credentials {place} are not Docker's config.json (\"auths\" with \"auth\", or \"username\" and \"password\", by registry): line {line}"
    )]
    Format {
        /// Where they came from.
        place: String,
        /// Where in it.
        line: usize,
    },
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// One login.
    pub fn one(registry: &str, login: Login) -> Self {
        Self {
            logins: [(host_of(registry), login)].into(),
        }
    }

    /// Reads a `config.json`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of one. `place` is said in errors.
    pub fn parse(text: &str, place: &str) -> Result<Self, Error> {
        let config: Config = serde_json::from_str(text).map_err(|e| Error::Format {
            place: place.to_owned(),
            line: e.line(),
        })?;
        let login = |auth: Auth| {
            if let (Some(user), Some(password)) = (auth.username, auth.password) {
                return Some(Login { user, password });
            }
            let decoded = STANDARD.decode(auth.auth?.trim()).ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            let (user, password) = decoded.split_once(':')?;
            Some(Login::new(user, password.trim_end_matches('\0')))
        };
        let logins = config
            .auths
            .into_iter()
            // Logins that a helper program keeps are empty here.
            .filter_map(|(registry, auth)| Some((host_of(&registry), login(auth)?)))
            .collect();
        Ok(Self { logins })
    }

    /// Who one is on a registry, by its host and port.
    pub fn of(&self, registry: &str) -> Option<&Login> {
        self.logins.get(&host_of(registry))
    }
}

/// Host and port of what may be written as a URL.
fn host_of(registry: &str) -> String {
    if HUB_KEYS.contains(&registry) || registry == "registry-1.docker.io" {
        return DOCKER_HUB.to_owned();
    }
    let host = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry);
    host.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_by_host_however_the_registry_is_written() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"},
            "r.example.org:5000": {"username": "u", "password": "p:q"},
            "helper.example.org": {}}, "credsStore": "x"}"#;
        let read = Credentials::parse(text, "here").unwrap();
        assert_eq!(read.of("docker.io"), Some(&Login::new("a", "b")));
        assert_eq!(
            read.of("https://r.example.org:5000/v2/"),
            Some(&Login::new("u", "p:q"))
        );
        assert_eq!(read.of("helper.example.org"), None);
        assert_eq!(read.of("other.example.org"), None);
    }

    #[test]
    fn a_password_is_neither_shown_nor_quoted() {
        let login = Login::new("u", "hidden");
        assert!(!format!("{login:?}").contains("hidden"));
        let error = Credentials::parse("{\"auths\": \"hidden\"", "file").unwrap_err();
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
}
