//! Against a small registry in this process: authentication, repetition, checks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use packaging::image::{Compression, Writer};

use super::*;
use crate::archive::Archive;
use crate::credentials::{Credentials, Login};
use crate::reference::Reference;

/// What the registry does and has.
#[derive(Default)]
struct Server {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Every request, as `METHOD path`.
    seen: Vec<String>,
    /// So many requests fail before one succeeds.
    failing: u32,
    auth: Auth,
    /// Another content than the digest says.
    lying: bool,
}

#[derive(Default, PartialEq)]
enum Auth {
    #[default]
    None,
    Basic,
    Bearer {
        realm: String,
    },
}

type Shared = Arc<Mutex<Server>>;

/// `u:p` in base64.
const BASIC: &str = "Basic dTpw";

async fn answer(State(server): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let mut server = server.lock().unwrap();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    server.seen.push(format!("{} {path}", parts.method));
    let status = |code: u16| Response::builder().status(code);
    let empty = |code: u16| status(code).body(Body::empty()).unwrap();
    if server.failing > 0 {
        server.failing -= 1;
        return status(503)
            .header("retry-after", "0")
            .body("busy".into())
            .unwrap();
    }
    let said = headers.get("authorization").map(|v| v.to_str().unwrap());
    if path == "/token" {
        assert!(query.contains("service=reg"), "{query}");
        return match said {
            Some(BASIC) => {
                let scope = query
                    .split("scope=")
                    .nth(1)
                    .unwrap()
                    .replace("%3A", ":")
                    .replace("%2C", ",")
                    .replace("%2F", "/");
                Response::new(format!("{{\"token\": \"for-{}\"}}", scope.replace(' ', "")).into())
            }
            _ => empty(401),
        };
    }
    let allowed = match &server.auth {
        Auth::None => true,
        Auth::Basic => said == Some(BASIC),
        Auth::Bearer { .. } => {
            said.is_some_and(|s| s.starts_with("Bearer for-repository:k8sm/app:pull"))
        }
    };
    if !allowed {
        let asked = match &server.auth {
            Auth::Bearer { realm } => format!("Bearer realm=\"{realm}\",service=\"reg\""),
            _ => "Basic realm=\"x\"".to_owned(),
        };
        return status(401)
            .header("www-authenticate", asked)
            .body(Body::empty())
            .unwrap();
    }
    let rest = path.strip_prefix("/v2/k8sm/app/").unwrap_or_default();
    match (parts.method, rest.split_once('/').unwrap_or((rest, ""))) {
        (Method::HEAD, ("blobs", digest)) => empty(if server.blobs.contains_key(digest) {
            200
        } else {
            404
        }),
        (Method::GET, ("blobs", digest)) => match server.blobs.get(digest) {
            Some(blob) if server.lying => {
                Response::new(blob.iter().rev().copied().collect::<Vec<u8>>().into())
            }
            Some(blob) => Response::new(blob.clone().into()),
            None => empty(404),
        },
        (Method::POST, ("blobs", "uploads/")) => status(202)
            .header("location", "/v2/k8sm/app/blobs/uploads/1?state=x")
            .body(Body::empty())
            .unwrap(),
        (Method::PUT, ("blobs", "uploads/1")) => {
            let digest = query.split("digest=").nth(1).unwrap().replace("%3A", ":");
            assert_eq!(Digest::of(&body).as_str(), digest);
            server.blobs.insert(digest, body.to_vec());
            empty(201)
        }
        (Method::PUT, ("manifests", tag)) => {
            let kind = headers["content-type"].to_str().unwrap().to_owned();
            let digest = Digest::of(&body).to_string();
            server
                .manifests
                .insert(digest, (kind.clone(), body.to_vec()));
            server
                .manifests
                .insert(tag.to_owned(), (kind, body.to_vec()));
            empty(201)
        }
        (Method::GET, ("manifests", tag)) => match server.manifests.get(tag) {
            Some((kind, manifest)) => status(200)
                .header("content-type", kind)
                .body(Bytes::from(manifest.clone()).into())
                .unwrap(),
            None => status(404)
                .body(r#"{"errors":[{"message":"manifest unknown"}]}"#.into())
                .unwrap(),
        },
        _ => empty(405),
    }
}

struct World {
    server: Shared,
    host: String,
    dir: tempfile::TempDir,
    archive: Archive,
    name: Reference,
}

impl World {
    async fn new() -> Self {
        let server = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&server));
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, vec![7; 700_000]).unwrap();
        let name = format!("{host}/k8sm/app:1");
        let image = packaging::image::Image::of_program(&name, "app", program);
        let path = dir.path().join("app.tar");
        let file = std::fs::File::create(&path).unwrap();
        Writer::new(Compression::None).write(&image, file).unwrap();
        Self {
            server,
            host,
            archive: Archive::open(&path).unwrap(),
            name: name.parse().unwrap(),
            dir,
        }
    }

    fn registry(&self, login: Option<(&str, &str)>) -> Registry {
        let credentials = login.map(|(u, p)| Credentials::one(&self.host, Login::new(u, p)));
        let options = Options {
            credentials: credentials.unwrap_or_default(),
            ..Options::default()
        };
        Registry::new(&self.host, &options).unwrap()
    }

    async fn push(&self, registry: &Registry, format: Format) -> Result<Pushed, Error> {
        let image = self.archive.image(&self.name).unwrap();
        push(
            registry,
            &self.archive,
            &image,
            &self.name,
            format,
            |_, _| {},
        )
        .await
    }

    async fn pull(&self, registry: &Registry) -> Result<crate::Image, Error> {
        let found = resolve(registry, &self.name).await?;
        let dir = self.dir.path().join("layout");
        fetch(registry, &found, &dir, 1 << 30).await?;
        Ok(Archive::open(&dir)?.image(&self.name)?)
    }

    fn seen(&self, what: &str) -> usize {
        let server = self.server.lock().unwrap();
        server.seen.iter().filter(|s| s.starts_with(what)).count()
    }
}

#[tokio::test]
async fn an_image_comes_back_as_it_was_pushed_and_is_pushed_once() {
    let world = World::new().await;
    let registry = world.registry(None);
    let first = world.push(&registry, Format::Docker).await.unwrap();
    assert_eq!((first.sent, first.there), (2, 0));
    let again = world.push(&registry, Format::Docker).await.unwrap();
    assert_eq!((again.sent, again.there), (0, 2));
    assert_eq!(first.digest, again.digest);
    assert_eq!(world.seen("POST"), 2);
    let image = world.pull(&registry).await.unwrap();
    assert_eq!(image.id(), world.archive.image(&world.name).unwrap().id());
    let oci = world.push(&registry, Format::Oci).await.unwrap();
    let own = world.archive.image(&world.name).unwrap().manifest.unwrap();
    assert_eq!(oci.digest, Digest::of(&own));
}

#[tokio::test]
async fn users_are_known_by_password_or_by_token() {
    let world = World::new().await;
    let realm = format!("http://{}/token", world.host);
    for auth in [Auth::Basic, Auth::Bearer { realm }] {
        world.server.lock().unwrap().auth = auth;
        world
            .push(&world.registry(Some(("u", "p"))), Format::Docker)
            .await
            .unwrap();
        world.pull(&world.registry(Some(("u", "p")))).await.unwrap();
        let error = world
            .push(&world.registry(Some(("u", "secret"))), Format::Docker)
            .await;
        let error = error.unwrap_err();
        assert!(!error.retryable());
        let text = error.to_string();
        assert!(!text.contains("secret"), "{text}");
        let error = world.pull(&world.registry(None)).await.unwrap_err();
        assert!(!error.retryable(), "{error}");
    }
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again_and_the_rest_is_not() {
    let world = World::new().await;
    let registry = world.registry(None);
    world.server.lock().unwrap().failing = 2;
    world.push(&registry, Format::Docker).await.unwrap();
    world.server.lock().unwrap().failing = 1;
    world.pull(&registry).await.unwrap();
    let before = world.seen("GET");
    let other: Reference = format!("{}/k8sm/app:2", world.host).parse().unwrap();
    let error = resolve(&registry, &other).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(world.seen("GET"), before + 1);
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_never_kept() {
    let world = World::new().await;
    let registry = world.registry(None);
    world.push(&registry, Format::Docker).await.unwrap();
    world.server.lock().unwrap().lying = true;
    let error = world.pull(&registry).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    let blobs = world.dir.path().join("layout/blobs/sha256");
    let kept: Vec<_> = std::fs::read_dir(blobs).unwrap().flatten().collect();
    assert!(kept.is_empty(), "{kept:?}");
    let error = match resolve(&registry, &world.name).await {
        Ok(found) => fetch(&registry, &found, world.dir.path(), 1000)
            .await
            .unwrap_err(),
        Err(error) => error,
    };
    assert!(
        error.to_string().contains("larger than the 1000 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let registry = Registry::new(&host, &Options::default()).unwrap();
    let name: Reference = format!("{host}/a:1").parse().unwrap();
    let error = resolve(&registry, &name).await.unwrap_err();
    assert!(error.retryable());
    assert!(error.to_string().contains(&host), "{error}");
    assert!(Registry::new("no host", &Options::default()).is_err());
    let bad = Options {
        authority: Some(b"no pem".to_vec()),
        ..Options::default()
    };
    assert!(Registry::new("r.example.org", &bad).is_err());
}
