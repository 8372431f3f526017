//! One HTTP client for all three APIs: TLS with a given authority, basic and bearer
//! authentication, event streams, and errors that say what was attempted.
//!
//! Redirects are not followed here, because who was reached matters to the callers:
//! they come back as [`Error::Redirect`].

mod config;
mod tls;

use std::time::Duration;

use ::http::StatusCode;
use ::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use bytes::Bytes;
use url::Url;

pub use config::{
    ClientConfig, ConfigError, Credentials, Identity, PemSource, Scheme, Secret, SecretSource,
};

use crate::codec::Encoding;
use crate::error::Error;
use crate::recordio::Decoder;

/// Header that names an event stream of a scheduler.
const STREAM_ID: &str = "mesos-stream-id";
/// Mesos' own texts are short; more of an error page helps nobody.
const MAX_ERROR_TEXT: usize = 1024;

/// Names one subscription of a scheduler; every call of the scheduler carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamId(HeaderValue);

impl StreamId {
    /// A stream id as the master wrote it, or `None` if it cannot be one.
    pub fn new(value: &str) -> Option<Self> {
        HeaderValue::from_str(value).ok().map(Self)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// An HTTP client. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    credentials: Credentials,
    call_timeout: Duration,
    max_answer_bytes: usize,
    scheme: Scheme,
}

/// What to send where.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is attempted, for errors: "SUBSCRIBE", "ACCEPT", ...
    pub attempt: &'static str,
    /// Where to.
    pub url: &'a Url,
    /// Media type of the body, and of the answer that is asked for.
    pub encoding: Encoding,
    /// The subscription that the call belongs to, schedulers only.
    pub stream_id: Option<&'a StreamId>,
}

impl Client {
    /// A client. Reads the certificate files of the configuration; secrets in files are read
    /// when they are used, so that they can be replaced.
    pub fn new(config: &ClientConfig) -> Result<Self, ConfigError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            // Mesos is reached directly; a proxy from the environment would get the secrets.
            .no_proxy()
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .tls_backend_preconfigured(tls::client_config(config)?);
        if let Some(path) = &config.unix_socket {
            builder = builder.unix_socket(path.as_path());
        }
        let inner = builder.build().map_err(|error| ConfigError::Build {
            reason: chain(&error),
        })?;
        Ok(Self {
            inner,
            credentials: config.credentials.clone(),
            call_timeout: config.call_timeout,
            max_answer_bytes: config.max_answer_bytes,
            scheme: config.scheme(),
        })
    }

    /// How a peer is reached that was named without a scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Sends a call and waits for its whole answer, for as long as the configuration allows.
    pub async fn post(&self, request: Request<'_>, body: Vec<u8>) -> Result<Answer, Error> {
        let work = async {
            let mut response = self.send(request, body).await?;
            let encoding = answer_encoding(response.headers());
            let body = read_limited(&mut response, self.max_answer_bytes)
                .await
                .map_err(|failure| failure.into_error(request, self.max_answer_bytes))?;
            Ok(Answer { encoding, body })
        };
        tokio::time::timeout(self.call_timeout, work)
            .await
            .unwrap_or_else(|_| Err(request.timed_out(self.call_timeout)))
    }

    /// Sends a call that is answered with an event stream and waits for the head of the answer,
    /// for as long as the configuration allows for a call.
    pub async fn open_stream(
        &self,
        request: Request<'_>,
        body: Vec<u8>,
        max_frame_bytes: usize,
    ) -> Result<EventStream, Error> {
        let response = tokio::time::timeout(self.call_timeout, self.send(request, body))
            .await
            .unwrap_or_else(|_| Err(request.timed_out(self.call_timeout)))?;
        let encoding = answer_encoding(response.headers())
            .ok_or_else(|| request.protocol("the answer is no event stream of Mesos"))?;
        let stream_id = response.headers().get(STREAM_ID).cloned().map(StreamId);
        Ok(EventStream {
            encoding,
            stream_id,
            attempt: request.attempt,
            url: redacted(request.url),
            decoder: Decoder::new(max_frame_bytes),
            response,
        })
    }

    async fn send(&self, request: Request<'_>, body: Vec<u8>) -> Result<reqwest::Response, Error> {
        let media_type = HeaderValue::from_static(request.encoding.media_type());
        let mut builder = self
            .inner
            .post(request.url.clone())
            .header(ACCEPT, media_type.clone())
            .header(CONTENT_TYPE, media_type)
            .body(body);
        if let Some(stream_id) = request.stream_id {
            builder = builder.header(STREAM_ID, stream_id.0.clone());
        }
        if let Some(authorization) = self.credentials.header().await? {
            builder = builder.header(::http::header::AUTHORIZATION, authorization);
        }
        let response = builder
            .send()
            .await
            .map_err(|error| request.transport(&error))?;
        check(request, response).await
    }
}

async fn check(
    request: Request<'_>,
    mut response: reqwest::Response,
) -> Result<reqwest::Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let location = response.headers().get(LOCATION);
    if let (true, Some(location)) = (
        status.is_redirection(),
        location.and_then(|l| l.to_str().ok()),
    ) {
        return Err(Error::Redirect {
            attempt: request.attempt,
            url: redacted(request.url),
            location: location.to_owned(),
        });
    }
    let text = match read_limited(&mut response, MAX_ERROR_TEXT).await {
        Ok(text) | Err(ReadFailure::TooLarge(text)) => String::from_utf8_lossy(&text).into_owned(),
        Err(ReadFailure::Broken(_)) => String::new(),
    };
    Err(Error::Status {
        attempt: request.attempt,
        url: redacted(request.url),
        status,
        text: text.trim().to_owned(),
    })
}

/// The whole answer to a call.
#[derive(Debug, Clone)]
pub struct Answer {
    /// How the body is written; `None` when it is empty or something else than a message.
    pub encoding: Option<Encoding>,
    /// The body, empty for 202.
    pub body: Bytes,
}

/// The answer to a SUBSCRIBE: events until one side ends it. Dropping it closes the connection.
#[derive(Debug)]
pub struct EventStream {
    encoding: Encoding,
    stream_id: Option<StreamId>,
    attempt: &'static str,
    url: String,
    decoder: Decoder,
    response: reqwest::Response,
}

impl EventStream {
    /// How the events are written.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The name of the subscription, schedulers only.
    pub fn stream_id(&self) -> Option<&StreamId> {
        self.stream_id.as_ref()
    }

    /// The next record. Never `Ok` at the end of the stream: that is [`Error::StreamEnded`].
    /// Nothing is lost when the future is dropped before it is done.
    pub async fn next_record(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some(record) = self.decoder.next_frame()? {
                return Ok(record);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.decoder.push(&chunk),
                Ok(None) => {
                    self.decoder.finish()?;
                    return Err(Error::StreamEnded {
                        url: self.url.clone(),
                    });
                }
                Err(error) => {
                    return Err(Error::Transport {
                        attempt: self.attempt,
                        url: self.url.clone(),
                        reason: chain(&error),
                    });
                }
            }
        }
    }

    /// The next record, decoded.
    pub async fn next<M>(&mut self) -> Result<M, Error>
    where
        M: prost_reflect::ReflectMessage + prost::Message + Default,
    {
        let record = self.next_record().await?;
        Ok(self.encoding.decode(&record)?)
    }
}

impl Request<'_> {
    fn transport(&self, error: &reqwest::Error) -> Error {
        Error::Transport {
            attempt: self.attempt,
            url: redacted(self.url),
            reason: chain(error),
        }
    }

    fn timed_out(&self, after: Duration) -> Error {
        Error::Timeout {
            attempt: self.attempt,
            url: redacted(self.url),
            after,
        }
    }

    pub(crate) fn protocol(&self, reason: &str) -> Error {
        Error::Protocol {
            attempt: self.attempt,
            url: redacted(self.url),
            reason: reason.to_owned(),
        }
    }
}

enum ReadFailure {
    TooLarge(Bytes),
    Broken(reqwest::Error),
}

impl ReadFailure {
    fn into_error(self, request: Request<'_>, limit: usize) -> Error {
        match self {
            Self::TooLarge(_) => request.protocol(&format!(
                "the answer is longer than the limit of {limit} bytes"
            )),
            Self::Broken(error) => request.transport(&error),
        }
    }
}

async fn read_limited(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Bytes, ReadFailure> {
    let mut body = bytes::BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(ReadFailure::Broken)? {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Err(ReadFailure::TooLarge(body.freeze()));
        }
    }
    Ok(body.freeze())
}

fn answer_encoding(headers: &HeaderMap) -> Option<Encoding> {
    let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    // Proxies add parameters that Mesos itself never sends.
    let media_type = media_type.split(';').next().unwrap_or(media_type).trim();
    Encoding::from_media_type(&media_type.to_ascii_lowercase())
}

/// A URL for messages: without user and password.
pub(crate) fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        // Many errors repeat their cause.
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

/// Whether a status means that the request reached a peer which refuses this client.
pub(crate) fn refuses_client(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN
}
