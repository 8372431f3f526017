//! One registry: its API, and who we are there.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::Error;
use super::auth::{Challenge, challenge};
use super::retry::retrying;
use crate::archive::LONGEST_DOCUMENT;
use crate::credentials::{Credentials, Login};
use crate::digest::{Digest, Hasher};
use crate::model::{Descriptor, media};
use crate::reference::DOCKER_HUB;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a call may take that moves little.
const CALL: Duration = Duration::from_secs(60);
/// How long a download may receive nothing.
const STALL: Duration = Duration::from_secs(60);
/// The slowest upload that is waited for, bytes per second.
const SLOWEST_UPLOAD: u64 = 64 << 10;
/// Bytes that are read at a time for an upload; as many pieces as [`PIECES`] wait.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;
/// Characters of an error's text that are shown.
const SHOWN: usize = 300;

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// HTTP without TLS. Registries on loopback are reached so in any case, as Docker does.
    pub plain_http: bool,
    /// Certificates (PEM) of the authorities that sign the registry's certificate, in the place of
    /// those of the operating system.
    pub authority: Option<Vec<u8>>,
    /// Who we are.
    pub credentials: Credentials,
}

/// One registry.
#[derive(Debug)]
pub struct Registry {
    host: String,
    base: Url,
    client: reqwest::Client,
    login: Option<Login>,
    /// The header for each scope, once it is known.
    headers: Mutex<HashMap<String, HeaderValue>>,
}

/// What a scope allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

impl Access {
    fn scope(self, repository: &str) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        };
        format!("repository:{repository}:{actions}")
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// A registry by its host and port: `registry.example.org:5000`.
    pub fn new(host: &str, options: &Options) -> Result<Self, Error> {
        let set_up = |why: String| Error::SetUp {
            registry: host.to_owned(),
            why,
        };
        // The name of images and the name of the server differ for this one.
        let server = match host {
            DOCKER_HUB => "registry-1.docker.io",
            other => other,
        };
        let scheme = match options.plain_http || is_loopback(server) && options.authority.is_none()
        {
            true => "http",
            false => "https",
        };
        let base = Url::parse(&format!("{scheme}://{server}/v2/"))
            .map_err(|e| set_up(format!("no host and port: {e}")))?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .user_agent(concat!("k8sm/", env!("CARGO_PKG_VERSION")));
        if is_loopback(server) {
            builder = builder.no_proxy();
        }
        if let Some(pem) = &options.authority {
            let roots = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|e| set_up(format!("certificates of authorities: {e}")))?;
            if roots.is_empty() {
                return Err(set_up("there is no certificate of an authority".to_owned()));
            }
            builder = builder.tls_certs_only(roots);
        } else if scheme == "http" {
            // A machine without any certificates is fine then.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            host: host.to_owned(),
            base,
            client: builder.build().map_err(|e| set_up(e.to_string()))?,
            login: options.credentials.of(host).cloned(),
            headers: Mutex::default(),
        })
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.base.join(path).map_err(|e| Error::SetUp {
            registry: self.host.clone(),
            why: format!("{path}: {e}"),
        })
    }

    fn known(&self, scope: &str) -> Option<HeaderValue> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.get(scope).cloned()
    }

    fn remember(&self, scope: &str, header: Option<HeaderValue>) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        match header {
            Some(header) => headers.insert(scope.to_owned(), header),
            None => headers.remove(scope),
        };
    }

    /// Sends a request, and once more when the registry wants to know who we are.
    async fn send(
        &self,
        attempt: &str,
        scope: &str,
        deadline: Duration,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Error> {
        for first in [true, false] {
            let mut request = request();
            if let Some(header) = self.known(scope) {
                request = request.header(AUTHORIZATION, header);
            }
            let response = within(attempt, deadline, request.send()).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let asked: Vec<String> = response
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|v| v.to_str().ok().map(str::to_owned))
                .collect();
            self.remember(scope, None);
            if !first {
                break;
            }
            self.introduce(attempt, scope, &asked).await?;
        }
        let why = match &self.login {
            Some(login) => format!("the registry does not let `{}` do this", login.user()),
            None => "the registry wants to know who we are".to_owned(),
        };
        Err(Error::Unauthorized {
            attempt: attempt.to_owned(),
            why,
        })
    }

    async fn introduce(&self, attempt: &str, scope: &str, asked: &[String]) -> Result<(), Error> {
        let refused = |why: String| Error::Unauthorized {
            attempt: attempt.to_owned(),
            why,
        };
        let Some(challenge) = asked.iter().find_map(|header| challenge(header)) else {
            return Err(refused(format!(
                "the registry asks for `{}`, which is not supported",
                asked.join(", ")
            )));
        };
        let header = match challenge {
            Challenge::Basic => {
                let login = self.login.as_ref();
                let login = login.ok_or_else(|| {
                    refused("the registry wants a user and a password".to_owned())
                })?;
                basic(login)
            }
            Challenge::Bearer {
                realm,
                service,
                scope: said,
            } => {
                let mut url = token_url(self.base.scheme(), &realm).map_err(&refused)?;
                let wanted = match said {
                    // What was asked for may be less than what is going to be done.
                    Some(said) if !said.starts_with("repository:") => said,
                    _ => scope.to_owned(),
                };
                url.query_pairs_mut()
                    .extend_pairs(service.iter().map(|s| ("service", s)))
                    .append_pair("scope", &wanted);
                let mut request = self.client.get(url);
                if let Some(login) = &self.login {
                    request = request.header(AUTHORIZATION, basic(login));
                }
                let attempt = format!("get a token for {}", self.host);
                let response = within(&attempt, CALL, request.send()).await?;
                let response = expect(&attempt, response, &[StatusCode::OK]).await?;
                let body = limited(&attempt, response).await?;
                let token: Token = serde_json::from_slice(&body).map_err(|_| Error::Content {
                    attempt: attempt.clone(),
                    why: "the answer of the token server is no token".to_owned(),
                })?;
                token
                    .token
                    .or(token.access_token)
                    .and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok())
                    .map(|mut header| {
                        header.set_sensitive(true);
                        header
                    })
                    .ok_or_else(|| refused("the token server gave no token".to_owned()))?
            }
        };
        self.remember(scope, Some(header));
        Ok(())
    }

    /// Reads a manifest: its bytes and its media type. Asked for by digest, it is checked.
    pub async fn manifest(
        &self,
        repository: &str,
        version: &str,
    ) -> Result<(Vec<u8>, String), Error> {
        let attempt = format!("read the manifest {}/{repository} {version}", self.host);
        let url = self.url(&format!("{repository}/manifests/{version}"))?;
        let accept = [
            media::DOCKER_MANIFEST,
            media::OCI_MANIFEST,
            media::DOCKER_LIST,
            media::OCI_INDEX,
        ]
        .join(", ");
        retrying(|| async {
            let request = || self.client.get(url.clone()).header(ACCEPT, &accept);
            let scope = Access::Pull.scope(repository);
            let response = self.send(&attempt, &scope, CALL, request).await?;
            let response = expect(&attempt, response, &[StatusCode::OK]).await?;
            let kind = response.headers().get(CONTENT_TYPE);
            let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
            let body = limited(&attempt, response).await?;
            if let Ok(digest) = version.parse::<Digest>()
                && Digest::of(&body) != digest
            {
                return Err(Error::Digest {
                    attempt: attempt.clone(),
                    size: body.len() as u64,
                    found: Digest::of(&body),
                });
            }
            Ok((body, kind))
        })
        .await
    }

    /// Whether a blob is there.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, Error> {
        let attempt = format!("look for blob {digest} in {}/{repository}", self.host);
        let url = self.url(&format!("{repository}/blobs/{digest}"))?;
        retrying(|| async {
            let request = || self.client.request(Method::HEAD, url.clone());
            let scope = Access::Push.scope(repository);
            let response = self.send(&attempt, &scope, CALL, request).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(false);
            }
            expect(&attempt, response, &[StatusCode::OK]).await?;
            Ok(true)
        })
        .await
    }

    /// Receives a blob into a file, which appears once it is complete and right.
    pub async fn pull_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        target: &Path,
    ) -> Result<(), Error> {
        let digest = &blob.digest;
        let attempt = format!("read blob {digest} of {}/{repository}", self.host);
        let url = self.url(&format!("{repository}/blobs/{digest}"))?;
        let partial = target.with_extension("partial");
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io {
                attempt: action,
                path,
                source,
            }
        };
        let received = retrying(|| async {
            let request = || self.client.get(url.clone());
            let scope = Access::Pull.scope(repository);
            let response = self.send(&attempt, &scope, CALL, request).await?;
            let response = expect(&attempt, response, &[StatusCode::OK]).await?;
            let mut file = tokio::fs::File::create(&partial)
                .await
                .map_err(io("write", &partial))?;
            let mut hasher = Hasher::default();
            let mut size = 0;
            let mut body = response.bytes_stream();
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|source| Error::Transport {
                    attempt: attempt.clone(),
                    source: source.without_url(),
                })?;
                size += piece.len() as u64;
                if size > blob.size {
                    return Err(Error::Content {
                        attempt: attempt.clone(),
                        why: format!("more than the {} bytes came that it has", blob.size),
                    });
                }
                hasher.update(&piece);
                file.write_all(&piece)
                    .await
                    .map_err(io("write", &partial))?;
            }
            file.flush().await.map_err(io("write", &partial))?;
            let (found, size) = hasher.finish();
            if found != *digest {
                return Err(Error::Digest {
                    attempt: attempt.clone(),
                    size,
                    found,
                });
            }
            Ok(())
        })
        .await;
        if received.is_err() {
            let _ = tokio::fs::remove_file(&partial).await;
        }
        received?;
        tokio::fs::rename(&partial, target)
            .await
            .map_err(io("rename", target))
    }

    /// Sends a blob that is not there. `open` begins to read it; it is called for each attempt.
    pub(super) async fn push_blob(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
        open: impl Fn() -> Result<Box<dyn Read + Send>, Error>,
    ) -> Result<(), Error> {
        let attempt = format!("send blob {digest} to {}/{repository}", self.host);
        let begin = self.url(&format!("{repository}/blobs/uploads/"))?;
        let scope = Access::Push.scope(repository);
        let deadline = CALL + Duration::from_secs(size / SLOWEST_UPLOAD);
        retrying(|| async {
            let request = || self.client.post(begin.clone()).header(CONTENT_LENGTH, 0);
            let response = self.send(&attempt, &scope, CALL, request).await?;
            let response = expect(&attempt, response, &[StatusCode::ACCEPTED]).await?;
            let mut place = self.location(&attempt, &response)?;
            place
                .query_pairs_mut()
                .append_pair("digest", digest.as_str());
            let mut request = self
                .client
                .put(place.clone())
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, size)
                .body(body(open()?));
            // The place may be on another server, which has no business with our password.
            if same_server(&place, &self.base)
                && let Some(header) = self.known(&scope)
            {
                request = request.header(AUTHORIZATION, header);
            }
            let response = within(&attempt, deadline, request.send()).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                // A token that ended meanwhile; the next attempt gets another one.
                self.remember(&scope, None);
                return Err(Error::Status {
                    attempt: attempt.clone(),
                    status: 503,
                    detail: ": the token is not valid any more".to_owned(),
                    retry_after: None,
                });
            }
            expect(&attempt, response, &[StatusCode::CREATED]).await?;
            Ok(())
        })
        .await
    }

    /// Names an image whose blobs are there.
    pub(super) async fn put_manifest(
        &self,
        repository: &str,
        version: &str,
        kind: &str,
        manifest: &[u8],
    ) -> Result<(), Error> {
        let attempt = format!("write the manifest {}/{repository} {version}", self.host);
        let url = self.url(&format!("{repository}/manifests/{version}"))?;
        retrying(|| async {
            let request = || {
                self.client
                    .put(url.clone())
                    .header(CONTENT_TYPE, kind)
                    .body(manifest.to_vec())
            };
            let scope = Access::Push.scope(repository);
            let response = self.send(&attempt, &scope, CALL, request).await?;
            expect(&attempt, response, &[StatusCode::CREATED, StatusCode::OK]).await?;
            Ok(())
        })
        .await
    }

    fn location(&self, attempt: &str, response: &Response) -> Result<Url, Error> {
        let said = response.headers().get(LOCATION);
        said.and_then(|v| v.to_str().ok())
            .and_then(|place| self.base.join(place).ok())
            .ok_or_else(|| Error::Content {
                attempt: attempt.to_owned(),
                why: "the registry does not say where to".to_owned(),
            })
    }
}

/// Where tokens are asked for. A password that is safe on its way to the registry stays so.
fn token_url(registry_scheme: &str, realm: &str) -> Result<Url, String> {
    let url =
        Url::parse(realm).map_err(|e| format!("the token server `{realm}` is no URL: {e}"))?;
    if registry_scheme == "https" && url.scheme() != "https" {
        return Err(format!("the token server {realm} is reached without TLS"));
    }
    Ok(url)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let ip = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

fn same_server(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host() == b.host()
        && a.port_or_known_default() == b.port_or_known_default()
}

fn basic(login: &Login) -> HeaderValue {
    use base64::Engine as _;
    let pair = format!("{}:{}", login.user(), login.password());
    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
    // Base64 has no byte that a header may not have.
    let mut header = HeaderValue::from_str(&format!("Basic {pair}"))
        .unwrap_or(HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    header
}

async fn within<T>(
    attempt: &str,
    deadline: Duration,
    work: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, Error> {
    match timeout(deadline, work).await {
        Err(_) => Err(Error::Deadline {
            attempt: attempt.to_owned(),
            seconds: deadline.as_secs(),
        }),
        Ok(Err(source)) => Err(Error::Transport {
            attempt: attempt.to_owned(),
            source: source.without_url(),
        }),
        Ok(Ok(done)) => Ok(done),
    }
}

async fn expect(
    attempt: &str,
    response: Response,
    wanted: &[StatusCode],
) -> Result<Response, Error> {
    let status = response.status();
    if wanted.contains(&status) {
        return Ok(response);
    }
    let attempt = attempt.to_owned();
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let body = limited(&attempt, response).await.unwrap_or_default();
    let said = message(&body);
    match status {
        StatusCode::NOT_FOUND => Err(Error::NotFound { attempt }),
        StatusCode::FORBIDDEN => Err(Error::Unauthorized {
            attempt,
            why: format!("the registry forbids it{said}"),
        }),
        status => Err(Error::Status {
            attempt,
            status: status.as_u16(),
            detail: said,
            retry_after,
        }),
    }
}

/// What a registry says about its error: the message of its document, else the text.
fn message(body: &[u8]) -> String {
    let document = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let said = document["errors"][0]["message"]
        .as_str()
        .map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let said: String = said.trim().chars().take(SHOWN).collect();
    match said.is_empty() {
        true => said,
        false => format!(": {said}"),
    }
}

/// The body of an answer that must be short.
async fn limited(attempt: &str, response: Response) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut body = response.bytes_stream();
    while let Some(piece) = within(attempt, STALL, async { body.next().await.transpose() }).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > LONGEST_DOCUMENT {
            return Err(Error::Content {
                attempt: attempt.to_owned(),
                why: format!("the answer is longer than {LONGEST_DOCUMENT} bytes"),
            });
        }
    }
    Ok(bytes)
}

/// A body that is read by a thread of its own while it is sent.
fn body(mut reader: Box<dyn Read + Send>) -> reqwest::Body {
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(PIECES);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let read = match reader.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            };
            piece.truncate(read);
            // Nobody listens any more: the upload was given up.
            if sender.blocking_send(Ok(piece)).is_err() {
                return;
            }
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    });
    reqwest::Body::wrap_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_on_loopback_needs_no_tls() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.org", "10.0.0.1:5000", "docker.io"] {
            assert!(!is_loopback(host), "{host}");
        }
        let options = Options::default();
        assert_eq!(
            Registry::new("127.0.0.1:5000", &options)
                .unwrap()
                .base
                .as_str(),
            "http://127.0.0.1:5000/v2/"
        );
    }

    #[test]
    fn a_token_server_without_tls_gets_no_password_of_a_registry_with_it() {
        assert!(token_url("https", "https://auth.example.org/token").is_ok());
        assert!(token_url("http", "http://auth.example.org/token").is_ok());
        let error = token_url("https", "http://auth.example.org/token").unwrap_err();
        assert!(error.contains("without TLS"), "{error}");
        assert!(token_url("http", "elsewhere").is_err());
    }

    #[test]
    fn an_error_document_is_said_in_its_own_words() {
        let body = br#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#;
        assert_eq!(message(body), ": quota exceeded");
        assert_eq!(message(b" oops \n"), ": oops");
        assert_eq!(message(b""), "");
    }
}
