//! The list of repositories, and what they hold: fetched when it is asked for, and again a minute
//! later.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::http::StatusCode;
use packaging::cosmos::Package;
use packaging::universe::repository::FORMATS;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::CALL_DEADLINE;
use super::error::Failure;
use super::packages::Packages;

/// How long what was fetched is good.
const KEEP: Duration = Duration::from_secs(60);
/// Largest repository, bytes.
const LARGEST: usize = 64 << 20;
/// Name of the list's file.
const FILE: &str = "repositories.json";

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repository {
    pub name: String,
    pub uri: String,
}

/// The repositories.
#[derive(Debug)]
pub(crate) struct Repositories {
    http: reqwest::Client,
    file: PathBuf,
    user_agent: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    list: Vec<Repository>,
    fetched: Option<(Instant, Packages)>,
}

impl Repositories {
    /// Reads the list, which is empty at first.
    pub fn open(http: reqwest::Client, dir: &Path, release: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let file = dir.join(FILE);
        let list = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} is damaged; remove it to begin without repositories",
                    file.display()
                )
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
        };
        Ok(Self {
            http,
            file,
            user_agent: format!("cosmos/{} dcos/{release}", env!("CARGO_PKG_VERSION")),
            inner: Mutex::new(Inner {
                list,
                fetched: None,
            }),
        })
    }

    /// The list.
    pub async fn list(&self) -> Vec<Repository> {
        self.inner.lock().await.list.clone()
    }

    /// Adds a repository, at the end or at a place. What it holds is fetched first.
    pub async fn add(
        &self,
        repository: Repository,
        index: Option<usize>,
    ) -> Result<Vec<Repository>, Failure> {
        if !(repository.uri.starts_with("http://") || repository.uri.starts_with("https://")) {
            return Err(Failure::new(
                "UnsupportedRepositoryUri",
                format!(
                    "Repository URI [{}] uses an unsupported scheme. Only http and https are supported",
                    repository.uri
                ),
            ));
        }
        self.fetch(&repository).await?;
        let mut inner = self.inner.lock().await;
        let taken = |r: &&Repository| r.name == repository.name || r.uri == repository.uri;
        if inner.list.iter().find(taken).is_some() {
            return Err(Failure::new(
                "RepositoryAlreadyPresent",
                format!(
                    "Repository name [{}] or URI [{}] is already present in the list",
                    repository.name, repository.uri
                ),
            )
            .status(StatusCode::CONFLICT)
            .data(json!(repository)));
        }
        let end = inner.list.len();
        let at = index.unwrap_or(end);
        if at > end {
            return Err(Failure::new(
                "RepositoryAddIndexOutOfBounds",
                format!("Index out of range: {at}"),
            ));
        }
        inner.list.insert(at, repository);
        self.changed(&mut inner)
    }

    /// Removes a repository by its name or address.
    pub async fn remove(
        &self,
        name: Option<&str>,
        uri: Option<&str>,
    ) -> Result<Vec<Repository>, Failure> {
        if name.is_none() && uri.is_none() {
            return Err(Failure::new(
                "RepoNameOrUriMissing",
                "Must specify either the name or URI of the repository",
            ));
        }
        let mut inner = self.inner.lock().await;
        let before = inner.list.len();
        let meant =
            |r: &Repository| name.is_none_or(|n| n == r.name) && uri.is_none_or(|u| u == r.uri);
        inner.list.retain(|r| !meant(r));
        if inner.list.len() == before {
            return Err(Failure::new(
                "RepositoryNotPresent",
                format!(
                    "Repository [{}] is not present in the list",
                    name.or(uri).unwrap_or_default()
                ),
            ));
        }
        self.changed(&mut inner)
    }

    fn changed(&self, inner: &mut Inner) -> Result<Vec<Repository>, Failure> {
        inner.fetched = None;
        let write = || -> std::io::Result<()> {
            let half = self.file.with_extension("part");
            std::fs::write(&half, serde_json::to_vec_pretty(&inner.list)?)?;
            std::fs::rename(&half, &self.file)
        };
        write().map_err(|e| {
            Failure::new("exception", format!("write {}: {e}", self.file.display()))
                .status(StatusCode::INTERNAL_SERVER_ERROR)
        })?;
        Ok(inner.list.clone())
    }

    /// The packages of all repositories.
    pub async fn packages(&self) -> Result<Packages, Failure> {
        let mut inner = self.inner.lock().await;
        if let Some((at, packages)) = &inner.fetched
            && at.elapsed() < KEEP
        {
            return Ok(packages.clone());
        }
        let mut found = Vec::new();
        for repository in &inner.list {
            found.push((repository.uri.clone(), self.fetch(repository).await?));
        }
        let packages = Packages::new(found);
        inner.fetched = Some((Instant::now(), packages.clone()));
        Ok(packages)
    }

    async fn fetch(&self, repository: &Repository) -> Result<Vec<Package>, Failure> {
        let failed = |reason: String| {
            Failure::new(
                "UniverseClientHttpError",
                format!(
                    "Unable to fetch the repository [{}] at [{}]: {reason}",
                    repository.name, repository.uri
                ),
            )
        };
        let accept = FORMATS.map(|f| f.media_type()).join(",");
        let answer = self
            .http
            .get(&repository.uri)
            .header("accept", accept)
            .header("user-agent", &self.user_agent)
            .timeout(CALL_DEADLINE)
            .send()
            .await
            .map_err(|e| failed(e.without_url().to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(format!("it answers {}", answer.status())));
        }
        let kind = answer.headers().get("content-type");
        let kind = kind
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .replace("; ", ";");
        if !FORMATS.iter().any(|f| f.media_type() == kind) {
            return Err(Failure::unsupported(
                &FORMATS.map(|f| f.media_type()).join(", "),
                &kind,
            ));
        }
        let bytes = answer
            .bytes()
            .await
            .map_err(|e| failed(e.without_url().to_string()))?;
        if bytes.len() > LARGEST {
            return Err(failed(format!(
                "it has {} bytes, where {LARGEST} are read",
                bytes.len()
            )));
        }
        let mut value: Value = serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?;
        let Value::Array(packages) = value["packages"].take() else {
            return Err(failed("it has no list of packages".to_owned()));
        };
        packages
            .into_iter()
            .map(|p| Package::from_value(p).map_err(|e| failed(e.to_string())))
            .collect()
    }
}
