//! The fetcher: what a command's URIs name is in its sandbox before the command starts.
//!
//! `file`, `http` and `https`; archives (by their name) are unpacked beside themselves unless
//! told otherwise; `executable` sets the mode; `output_file` renames; `cache` keeps a copy for
//! other containers, fetched once however many ask at the same time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use mesos::pb::command_info::Uri;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::sandbox::User;

/// A download that receives nothing for this long is given up (Mesos' default of
/// `--fetcher_stall_timeout`).
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes that the cache keeps (Mesos' default of `--fetcher_cache_size`, 2 GB).
const CACHE_BYTES: u64 = 2 << 30;

/// Why something could not be fetched. The container fails; its framework decides what then.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URI itself is not acceptable. Never worth a retry.
    #[error("cannot fetch '{uri}': {why}")]
    Refused {
        /// The URI, without any password in it.
        uri: String,
        /// Why.
        why: String,
    },
    /// The server or the network. May be worth a retry.
    #[error("failed to fetch '{uri}': {source}")]
    Http {
        /// The URI, without any password in it.
        uri: String,
        /// What happened.
        source: reqwest::Error,
    },
    /// The file system. Worth a retry only once its cause is gone.
    #[error("failed to {attempt} {path} for '{uri}': {source}", path = path.display())]
    Io {
        /// The URI.
        uri: String,
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Fetches for all containers of an agent.
#[derive(Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    cache_dir: PathBuf,
    /// One lock per cached URI, so that it is fetched once.
    cached: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// `--frameworks_home`: relative file URIs start here.
    home: Option<PathBuf>,
}

impl Fetcher {
    /// A fetcher whose cache is in `cache_dir`, which it empties: the cache belongs to one life
    /// of the agent.
    pub fn new(cache_dir: PathBuf, home: Option<PathBuf>) -> Result<Self, FetchError> {
        let nothing = String::new();
        let client = crate::client::builder()
            .connect_timeout(STALL_TIMEOUT)
            .read_timeout(STALL_TIMEOUT)
            .build()
            .map_err(|source| FetchError::Http {
                uri: nothing.clone(),
                source,
            })?;
        let made = match fs::remove_dir_all(&cache_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&cache_dir),
        };
        made.map_err(|source| FetchError::Io {
            uri: nothing,
            attempt: "empty the cache",
            path: cache_dir.clone(),
            source,
        })?;
        Ok(Self {
            client,
            cache_dir,
            cached: Mutex::default(),
            home,
        })
    }

    /// Fetches all URIs of a command into a sandbox, one after another as they are listed.
    pub async fn fetch(
        &self,
        uris: &[Uri],
        sandbox: &Path,
        user: Option<&User>,
    ) -> Result<(), FetchError> {
        for uri in uris {
            self.fetch_one(uri, sandbox, user).await?;
        }
        Ok(())
    }

    async fn fetch_one(
        &self,
        uri: &Uri,
        sandbox: &Path,
        user: Option<&User>,
    ) -> Result<(), FetchError> {
        let name = uri.value.trim();
        let io = |attempt, path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::Io {
                uri: without_password(name),
                attempt,
                path,
                source,
            }
        };
        let file_name = target_name(uri).map_err(|why| FetchError::Refused {
            uri: without_password(name),
            why,
        })?;
        let target = sandbox.join(&file_name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io("make directory", parent))?;
        }
        if uri.cache() && Source::of(name, self.home.as_deref())?.is_remote() {
            let cached = self.cached(name).await?;
            fs::copy(&cached, &target).map_err(io("copy", &target))?;
        } else {
            self.download(name, &target).await?;
        }
        if uri.executable() {
            set_mode(&target, 0o755).map_err(io("make executable", &target))?;
        } else if uri.extract() {
            let (from, into) = (target.clone(), sandbox.to_owned());
            // Unpacking is work for the processor, not for the reactor.
            tokio::task::spawn_blocking(move || extract(&from, &into))
                .await
                .unwrap_or_else(|panic| Err(io::Error::other(panic)))
                .map_err(io("unpack", &target))?;
        }
        if let Some(user) = user {
            own(sandbox, user.uid, user.gid).map_err(io("chown", sandbox))?;
        }
        Ok(())
    }

    async fn cached(&self, uri: &str) -> Result<PathBuf, FetchError> {
        let path = self
            .cache_dir
            .join(format!("{:x}", Sha256::digest(uri.as_bytes())));
        let lock = {
            let mut cached = self
                .cached
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(cached.entry(uri.to_owned()).or_default())
        };
        let _one_at_a_time = lock.lock().await;
        if !path.exists() {
            // Mesos asks for the size first, to make room; servers that count requests see it.
            let size = self.size(uri).await;
            self.make_room(size.unwrap_or(0));
            let partial = path.with_extension("partial");
            self.download(uri, &partial).await?;
            fs::rename(&partial, &path).map_err(|source| FetchError::Io {
                uri: without_password(uri),
                attempt: "keep",
                path: path.clone(),
                source,
            })?;
        }
        Ok(path)
    }

    async fn size(&self, uri: &str) -> Option<u64> {
        let response = self.client.head(uri).send().await.ok()?;
        response
            .headers()
            .get("content-length")?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// Forgets the oldest cached files until `size` more bytes fit. Files that are being copied
    /// stay readable: their name goes, not they.
    fn make_room(&self, size: u64) {
        let Ok(entries) = fs::read_dir(&self.cache_dir) else {
            return;
        };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|e| {
                let meta = e.metadata().ok()?;
                Some((meta.modified().ok()?, meta.len(), e.path()))
            })
            .collect();
        files.sort();
        let mut used: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if used.saturating_add(size) <= CACHE_BYTES {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                used -= len;
            }
        }
    }

    async fn download(&self, uri: &str, target: &Path) -> Result<(), FetchError> {
        let io = |attempt, path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::Io {
                uri: without_password(uri),
                attempt,
                path,
                source,
            }
        };
        match Source::of(uri, self.home.as_deref())? {
            Source::File(path) => {
                tokio::fs::copy(&path, target)
                    .await
                    .map_err(io("copy", &path))?;
                set_mode(target, 0o644).map_err(io("set the mode of", target))
            }
            Source::Remote => {
                let http = |source: reqwest::Error| FetchError::Http {
                    uri: without_password(uri),
                    source: source.without_url(),
                };
                let response = self
                    .client
                    .get(uri)
                    .send()
                    .await
                    .and_then(reqwest::Response::error_for_status)
                    .map_err(http)?;
                let mut body = response.bytes_stream();
                let mut file = tokio::fs::File::create(target)
                    .await
                    .map_err(io("create", target))?;
                while let Some(chunk) = body.next().await {
                    file.write_all(&chunk.map_err(http)?)
                        .await
                        .map_err(io("write", target))?;
                }
                file.flush().await.map_err(io("write", target))
            }
        }
    }
}

enum Source {
    File(PathBuf),
    Remote,
}

impl Source {
    fn of(uri: &str, home: Option<&Path>) -> Result<Self, FetchError> {
        let refused = |why: String| FetchError::Refused {
            uri: without_password(uri),
            why,
        };
        let Some((scheme, rest)) = uri.split_once("://") else {
            let path = Path::new(uri);
            if path.is_absolute() {
                return Ok(Self::File(path.to_owned()));
            }
            return match home {
                Some(home) => Ok(Self::File(home.join(path))),
                None => Err(refused(
                    "a relative path was given but no --frameworks_home".to_owned(),
                )),
            };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Ok(Self::Remote),
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(refused("file URIs need an absolute path".to_owned()));
                }
                Ok(Self::File(path.into()))
            }
            other => Err(refused(format!(
                "scheme `{other}` is not supported; file, http and https are"
            ))),
        }
    }

    const fn is_remote(&self) -> bool {
        matches!(self, Self::Remote)
    }
}

/// The name in the sandbox: `output_file`, else the last part of the URI's path.
fn target_name(uri: &Uri) -> Result<PathBuf, String> {
    if let Some(output) = uri.output_file.as_deref().filter(|o| !o.is_empty()) {
        let path = Path::new(output);
        if path.components().all(|c| matches!(c, Component::Normal(_))) {
            return Ok(path.to_owned());
        }
        return Err(format!(
            "output_file `{output}` must be a relative path within the sandbox"
        ));
    }
    let value = uri.value.trim();
    let path = value.split_once("://").map_or(value, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let name = match path.rsplit_once('/') {
        Some((_, name)) => name,
        None if value.contains("://") => "",
        None => path,
    };
    match name {
        "" | "." | ".." => Err("it names no file".to_owned()),
        name => Ok(name.into()),
    }
}

/// Whether Mesos would unpack a file of this name, and how.
fn extract(archive: &Path, sandbox: &Path) -> io::Result<()> {
    let name = archive
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|s| name.ends_with(s));
    if ends(&[".tar"]) {
        return unpack(tar::Archive::new(File::open(archive)?), sandbox);
    }
    if ends(&[".tar.gz", ".tgz"]) {
        let file = flate2::read::MultiGzDecoder::new(File::open(archive)?);
        return unpack(tar::Archive::new(file), sandbox);
    }
    if ends(&[".gz"]) {
        let plain = archive.with_extension("");
        let mut from = flate2::read::MultiGzDecoder::new(File::open(archive)?);
        io::copy(&mut from, &mut File::create(plain)?)?;
        return Ok(());
    }
    // Formats for which the machine's own tools are needed, as in Mesos.
    let tool: (&str, &[&str]) = if ends(&[".tbz2", ".tar.bz2", ".txz", ".tar.xz"]) {
        ("tar", &["-x", "-C", ".", "-f"])
    } else if ends(&[".zip"]) {
        ("unzip", &["-o", "-q", "-d", "."])
    } else {
        return Ok(());
    };
    let status = std::process::Command::new(tool.0)
        .args(tool.1)
        .arg(archive)
        .current_dir(sandbox)
        .stdin(std::process::Stdio::null())
        .status()
        .map_err(|e| io::Error::new(e.kind(), format!("`{}`: {e}", tool.0)))?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "`{}` ended with {status}",
        tool.0
    )))
}

fn unpack<R: io::Read>(mut archive: tar::Archive<R>, sandbox: &Path) -> io::Result<()> {
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    // `unpack` refuses members that would land outside.
    archive.unpack(sandbox)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn own(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

/// A URI as it may be shown: what is between `//` and `@` is left out.
fn without_password(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn uri(value: &str) -> Uri {
        Uri {
            value: value.to_owned(),
            ..Default::default()
        }
    }

    fn fetcher() -> (tempfile::TempDir, Fetcher) {
        let dir = tempfile::tempdir().unwrap();
        let fetcher = Fetcher::new(dir.path().join("cache"), None).unwrap();
        fs::create_dir(dir.path().join("sandbox")).unwrap();
        (dir, fetcher)
    }

    #[test]
    fn the_name_in_the_sandbox_is_that_of_the_uri_unless_given() {
        assert_eq!(
            target_name(&uri("http://h/a/b.tgz?x=1/2")),
            Ok("b.tgz".into())
        );
        assert_eq!(target_name(&uri("/a/b")), Ok("b".into()));
        assert!(target_name(&uri("http://host")).is_err());
        assert!(target_name(&uri("http://host/..")).is_err());
        let named = |name: &str| {
            target_name(&Uri {
                output_file: Some(name.into()),
                ..uri("/a/b")
            })
        };
        assert_eq!(named("sub/c"), Ok("sub/c".into()));
        assert!(named("../c").is_err());
        assert!(named("/etc/passwd").is_err());
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("http://u:p@h/x@y"), "http://h/x@y");
        assert_eq!(without_password("http://h/x@y"), "http://h/x@y");
    }

    #[tokio::test]
    async fn a_file_is_copied_and_made_executable_and_an_archive_is_unpacked_and_kept() {
        let (dir, fetcher) = fetcher();
        let sandbox = dir.path().join("sandbox");
        fs::write(dir.path().join("run.sh"), "#!/bin/sh\n").unwrap();
        let archive = dir.path().join("bundle.tar.gz");
        let gz = flate2::write::GzEncoder::new(
            File::create(&archive).unwrap(),
            flate2::Compression::fast(),
        );
        let mut tar = tar::Builder::new(gz);
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        tar.append_data(&mut header, "inner/a.txt", &b"hi"[..])
            .unwrap();
        tar.into_inner().unwrap().finish().unwrap().flush().unwrap();

        let script = Uri {
            executable: Some(true),
            ..uri(&format!("file://{}/run.sh", dir.path().display()))
        };
        let bundle = uri(&archive.display().to_string());
        let packed = Uri {
            extract: Some(false),
            output_file: Some("sub/kept.tgz".into()),
            ..bundle.clone()
        };
        fetcher
            .fetch(&[script, bundle, packed], &sandbox, None)
            .await
            .unwrap();
        let mode = fs::metadata(sandbox.join("run.sh"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(fs::read(sandbox.join("inner/a.txt")).unwrap(), b"hi");
        assert!(sandbox.join("bundle.tar.gz").exists());
        assert!(sandbox.join("sub/kept.tgz").exists());
    }

    #[tokio::test]
    async fn what_cannot_be_fetched_is_named() {
        let (dir, fetcher) = fetcher();
        let sandbox = dir.path().join("sandbox");
        for (value, part) in [
            ("ftp://u:secret@h/x", "scheme `ftp` is not supported"),
            ("file:///no/such/file", "/no/such/file"),
            ("relative/file", "--frameworks_home"),
        ] {
            let error = fetcher
                .fetch(&[uri(value)], &sandbox, None)
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
