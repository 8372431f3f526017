//! This machine's side, `localhost:8080`: the door that the first Kubernetes had, with a lock.
//!
//! Everybody on the machine may use it, so it acts with a limited identity of its own: the
//! namespace `default`, no privileged pods, no host paths or namespaces. Who it is and what it may
//! do is decided by the API servers (`packaging::local_user`); here every credential of a client
//! is taken off and ours put on. Requests of foreign web pages are refused ([`guard`]).
//!
//! `/api/v1beta1` is converted ([`objects`], [`watch`]); everything else is passed on.

pub mod guard;
pub mod objects;
pub mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::http::upstream::Body;
use crate::http::{Forward, boxed, headers, status};
use crate::metrics::{Refusal, Side};
use crate::tls::read_token;
use crate::v1beta1::request::is_v1beta1;

/// This machine's side; clones are the same one.
#[derive(Clone)]
pub struct Legacy {
    forward: Forward,
    /// The identity's token; none: its certificate is in the client.
    token: Option<PathBuf>,
    /// Where it listens.
    port: u16,
}

impl Legacy {
    /// With a client that has the identity's certificate, or with its token.
    pub fn new(forward: Forward, token: Option<PathBuf>, port: u16) -> Self {
        Self {
            forward,
            token,
            port,
        }
    }

    /// Answers a request.
    pub async fn serve(self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let answer = self.answer(request, peer).await;
        self.forward.count(Side::Local, &answer);
        answer
    }

    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let authority = request.uri().authority().map(|a| a.as_str().to_owned());
        if let Err(why) = guard::check(request.headers(), authority.as_deref(), self.port) {
            self.forward.metrics.refuse(Side::Local, Refusal::Foreign);
            tracing::warn!(%peer, %why, "request refused");
            return status(StatusCode::FORBIDDEN, "Forbidden", &why.to_string());
        }
        let old = is_v1beta1(request.uri().path());
        // No Origin and no browser's marks further on: what they are for has been done.
        for name in ["origin", "referer"] {
            request.headers_mut().remove(name);
        }
        if let Err(answer) = self.identify(request.headers_mut()) {
            return *answer;
        }
        if old {
            objects::answer(&self.forward, request.map(boxed)).await
        } else {
            self.forward.forward(request.map(boxed)).await
        }
    }

    /// Takes every credential off and puts ours on.
    fn identify(&self, headers: &mut HeaderMap) -> Result<(), Box<Response<Body>>> {
        headers::drop_bearer(headers);
        let Some(path) = &self.token else {
            return Ok(());
        };
        let value = read_token(path)
            .map_err(|error| error.to_string())
            .and_then(|token| {
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|error| error.to_string())?;
                value.set_sensitive(true);
                Ok(value)
            });
        match value {
            Ok(value) => {
                headers.insert(header::AUTHORIZATION, value);
                Ok(())
            }
            Err(error) => {
                tracing::error!(path = %path.display(), error, "the limited identity's token");
                Err(Box::new(status(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "InternalError",
                    "the front door cannot read the token of its limited identity; its log says why",
                )))
            }
        }
    }
}
