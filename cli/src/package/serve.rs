//! `k8sm package serve`: a repository as Cosmos wants it, and what it refers to.
//!
//! | path | what |
//! |---|---|
//! | `/repo` | the repository, in the newest format that `Accept` names; packages that the DC/OS in `User-Agent` cannot run are left out |
//! | `/icons/<name>` | the icons |
//! | `/artifacts/<sha256>/<name>` | the programs |

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use packaging::cosmos::Package;
use packaging::universe::repository::{FORMATS, dcos_release, negotiate};
use packaging::universe::source::SOURCES;
use tokio::net::TcpListener;

use super::args::Serve;
use super::{Error, built, checked};
use crate::serving::Server;

/// Runs the command.
pub(super) async fn run(args: &Serve) -> Result<(), Error> {
    let listen = args.listen;
    let failed = |source| Error::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let url = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None if address.ip().is_unspecified() => {
            return Err(Error::Usage(
                "say with --url at which address DC/OS and the agents reach this server, or --listen on one address"
                    .to_owned(),
            ));
        }
        None => format!("http://{address}"),
    };
    let files = built(&args.from, &url)?;
    checked(&files)?;
    let router = router(files.package(args.from.release)?, &args.from.artifacts)?;
    let server = Server::on(listener, router, "the package").map_err(failed)?;
    eprintln!("dcos package repo add --index=0 k8sm {url}/repo");
    server.wait().await;
    Ok(())
}

fn router(package: Package, artifacts: &Path) -> Result<Router, Error> {
    Ok(Router::new()
        .route("/repo", get(repository))
        .route("/icons/{name}", get(icon))
        .with_state(Arc::new(package))
        .nest("/artifacts", crate::artifacts::router(artifacts)?))
}

fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

async fn repository(State(package): State<Arc<Package>>, headers: HeaderMap) -> Response {
    let Some(format) = negotiate(text(&headers, &header::ACCEPT)) else {
        let types = FORMATS.map(|f| f.media_type()).join("\n");
        let text = format!("this repository comes as one of\n{types}\n");
        return (StatusCode::NOT_ACCEPTABLE, text).into_response();
    };
    let release = text(&headers, &header::USER_AGENT).and_then(dcos_release);
    let fits = release.is_none_or(|release| package.runs_on(release));
    let body = format.repository(fits.then_some(&*package)).to_string();
    let kind = (header::CONTENT_TYPE, format.media_type());
    let vary = (
        header::VARY,
        "Accept, Accept-Encoding, User-Agent".to_owned(),
    );
    let gzip = text(&headers, &header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
    if !gzip {
        return ([kind, vary], body).into_response();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    match encoder
        .write_all(body.as_bytes())
        .and_then(|()| encoder.finish())
    {
        Ok(packed) => {
            let encoding = (header::CONTENT_ENCODING, "gzip".to_owned());
            ([kind, vary, encoding], packed).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn accepts_gzip(accept: &str) -> bool {
    accept.split(',').any(|part| {
        let mut parts = part.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        matches!(name, "gzip" | "x-gzip" | "*") && !refused
    })
}

async fn icon(UrlPath(name): UrlPath<String>) -> Response {
    match SOURCES.icons.iter().find(|(icon, _)| *icon == name) {
        Some((_, content)) => ([(header::CONTENT_TYPE, "image/png")], *content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::super::build::tests::{artifacts, from};
    use super::*;

    async fn server(dir: &Path) -> Server {
        artifacts(dir);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let files = built(&from(dir), &format!("http://{address}")).unwrap();
        let router = router(files.package(7).unwrap(), dir).unwrap();
        Server::on(listener, router, "the package").unwrap()
    }

    #[tokio::test]
    async fn cosmos_gets_the_repository_and_agents_the_programs() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path()).await;
        let client = crate::http::client(None, Duration::from_secs(10)).unwrap();
        let url = format!("http://{}/repo", server.address());
        let cosmos = FORMATS.map(|f| f.media_type()).join(",");
        let answer = client
            .get(&url)
            .header("accept", &cosmos)
            .header("accept-encoding", "gzip")
            .header("user-agent", "cosmos/0.6.3 dcos/2.1")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        assert_eq!(
            answer.headers()["content-type"],
            "application/vnd.dcos.universe.repo+json;charset=utf-8;version=v5"
        );
        let mut text = String::new();
        let packed = answer.bytes().await.unwrap();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*packed), &mut text)
            .unwrap();
        let repository: Value = serde_json::from_str(&text).unwrap();
        let package = &repository["packages"][0];
        assert_eq!(package["name"], "kubernetes");
        let program = package["resource"]["assets"]["uris"]["k8sm"]
            .as_str()
            .unwrap();
        let got = client
            .get(program)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(got, "the program k8sm");
        let icon = package["resource"]["images"]["icon-small"]
            .as_str()
            .unwrap();
        assert_eq!(client.get(icon).send().await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn an_older_dcos_sees_no_package_and_who_wants_another_type_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path()).await;
        let client = crate::http::client(None, Duration::from_secs(10)).unwrap();
        let url = format!("http://{}/repo", server.address());
        let get = |name: &'static str, value: String| {
            let request = client.get(&url).header(name, value);
            async move { request.send().await.unwrap() }
        };
        let old: Value = get("user-agent", "cosmos/0.5 dcos/1.13".to_owned())
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(old["packages"], serde_json::json!([]));
        let v4 = get("accept", FORMATS[1].media_type()).await;
        assert!(
            v4.headers()["content-type"]
                .to_str()
                .unwrap()
                .ends_with("version=v4")
        );
        let refused = get("accept", "text/html".to_owned()).await;
        assert_eq!(refused.status(), 406);
        assert!(refused.text().await.unwrap().contains("version=v3"));
    }

    #[test]
    fn encodings_are_negotiated() {
        for (accept, yes) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
        ] {
            assert_eq!(accepts_gzip(accept), yes, "{accept}");
        }
    }
}
