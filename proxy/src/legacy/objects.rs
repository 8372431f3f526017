//! Requests of v1beta1: read, converted, asked of the API servers as v1, and converted back.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::{Value, json};

use super::watch;
use crate::http::upstream::Body;
use crate::http::{Forward, boxed};
use crate::v1beta1::merge::merge;
use crate::v1beta1::request::{Asked, Request as Wish, RequestError, parse};
use crate::v1beta1::types::DeleteOptions;
use crate::v1beta1::{self, MAX_OBJECT, Refused, Resource, VERSION, status as statuses};

/// Bytes of an answer. A list of 5,000 pods has some 50 MB; longer ones are v1's.
const MAX_ANSWER: usize = 64 << 20;
/// Times that an update that names no version is tried when others write at the same time.
const UPDATES: usize = 5;

/// A converted answer.
struct Answer {
    code: StatusCode,
    body: Value,
}

/// What ends a request early: an answer too.
enum Stop {
    /// Ours.
    Ours(StatusCode, &'static str, String),
    /// The API server's `Status`.
    Theirs(StatusCode, Value),
    /// No answer from any server.
    Whole(Box<Response<Body>>),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Ours(StatusCode::BAD_REQUEST, "BadRequest", refused.to_string())
    }
}

/// Answers a request whose head has the identity on.
pub async fn answer(forward: &Forward, request: Request<Body>) -> Response<Body> {
    match handle(forward, request).await {
        Ok(answer) => answer,
        Err(Stop::Ours(code, reason, message)) => {
            json_body(code, &statuses::failure(code.as_u16(), reason, &message))
        }
        Err(Stop::Theirs(code, status)) => json_body(code, &statuses::from_v1(&status)),
        Err(Stop::Whole(answer)) => *answer,
    }
}

async fn handle(forward: &Forward, request: Request<Body>) -> Result<Response<Body>, Stop> {
    let wish = parse(request.uri().path(), request.uri().query()).map_err(|error| match error {
        RequestError::NotFound(why) => Stop::Ours(StatusCode::NOT_FOUND, "NotFound", why),
        RequestError::Bad(refused) => refused.into(),
    })?;
    if request.headers().contains_key(header::UPGRADE) {
        return Err(Stop::Ours(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "v1beta1 is served over plain HTTP only, watches too; WebSockets are under /api/v1"
                .to_owned(),
        ));
    }
    let client = Client {
        forward,
        headers: kept(request.headers()),
    };
    let asked = match wish {
        Wish::Discovery => return Ok(json_body(StatusCode::OK, &discovery())),
        Wish::Objects(asked) => asked,
    };
    let named = asked.name.clone();
    let answer = match (request.method(), named) {
        (&Method::GET, _) if asked.watch => {
            let stream = client.get_stream(&asked.v1_target()).await?;
            return Ok(watch::answer(asked.resource, stream.into_body(), forward));
        }
        (&Method::GET, None) => client.list(&asked).await?,
        (&Method::GET, Some(_)) => client.get(&asked).await?,
        (&Method::POST, None) => client.create(&asked, body(request).await?).await?,
        (&Method::PUT, Some(name)) => client.update(&asked, &name, body(request).await?).await?,
        (&Method::DELETE, Some(name)) => client.delete(&asked, &name, body(request).await?).await?,
        (method, _) => {
            return Err(Stop::Ours(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                format!(
                    "{method} {}: there are GET and POST for all objects of a kind, GET, PUT and DELETE for one",
                    request.uri().path()
                ),
            ));
        }
    };
    Ok(json_body(answer.code, &answer.body))
}

fn discovery() -> Value {
    let names: Vec<&str> = Resource::ALL.into_iter().map(Resource::name).collect();
    json!({"apiVersion": VERSION, "resources": names})
}

/// What goes on to the API server of a client's head: who we are, and the client's name.
fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for name in [header::AUTHORIZATION, header::USER_AGENT] {
        if let Some(value) = headers.get(&name) {
            out.insert(name, value.clone());
        }
    }
    out.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    out
}

/// A request's body, of whatever type curl says it is.
async fn body(request: Request<Body>) -> Result<Bytes, Stop> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.map(|v| String::from_utf8_lossy(v.as_bytes()).to_ascii_lowercase());
    let kind = kind.as_deref().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let accepted = [
        "",
        "application/json",
        // curl's own for -d; the body is JSON nevertheless.
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/json",
    ];
    if !accepted.contains(&kind) {
        return Err(Stop::Ours(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!("v1beta1 objects are JSON, not {kind}"),
        ));
    }
    match Limited::new(request.into_body(), MAX_OBJECT)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Stop::Ours(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            format!("the object cannot be read, or has more than {MAX_OBJECT} bytes: {error}"),
        )),
    }
}

/// An answer for people and programs: indented, as curl's users saw it.
fn json_body(code: StatusCode, value: &Value) -> Response<Body> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    let mut answer = Response::new(boxed(Full::new(Bytes::from(text))));
    *answer.status_mut() = code;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

struct Client<'a> {
    forward: &'a Forward,
    headers: HeaderMap,
}

impl Client<'_> {
    async fn send(
        &self,
        method: Method,
        target: &str,
        object: Option<&Value>,
    ) -> Result<Response<hyper::body::Incoming>, Stop> {
        let text = object.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .body(boxed(Full::new(Bytes::from(text))))
            .map_err(|error| Refused::at("", error.to_string()))?;
        *request.headers_mut() = self.headers.clone();
        if object.is_some() {
            request.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        let answer = self.forward.send(request).await.map_err(Stop::Whole)?;
        Ok(answer)
    }

    /// Sends and reads the whole answer; one that is not a success is an error.
    async fn ask(
        &self,
        method: Method,
        target: &str,
        object: Option<&Value>,
    ) -> Result<(StatusCode, Value), Stop> {
        let answer = self.send(method, target, object).await?;
        let (code, value) = read(answer).await?;
        if code.is_success() {
            Ok((code, value))
        } else {
            Err(Stop::Theirs(code, value))
        }
    }

    /// The same for an answer that goes on.
    async fn get_stream(&self, target: &str) -> Result<Response<hyper::body::Incoming>, Stop> {
        let answer = self.send(Method::GET, target, None).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (code, value) = read(answer).await?;
        Err(Stop::Theirs(code, value))
    }

    async fn list(&self, asked: &Asked) -> Result<Answer, Stop> {
        let (code, list) = self.ask(Method::GET, &asked.v1_target(), None).await?;
        let body = v1beta1::list_from_v1(asked.resource, &list).map_err(unreadable)?;
        Ok(Answer { code, body })
    }

    async fn get(&self, asked: &Asked) -> Result<Answer, Stop> {
        let (code, object) = self.ask(Method::GET, &asked.v1_target(), None).await?;
        converted(asked.resource, code, &object)
    }

    async fn create(&self, asked: &Asked, text: Bytes) -> Result<Answer, Stop> {
        let object = to_v1(asked, &text)?;
        let target = asked.v1_collection();
        let (code, created) = self.ask(Method::POST, &target, Some(&object)).await?;
        converted(asked.resource, code, &created)
    }

    async fn update(&self, asked: &Asked, name: &str, text: Bytes) -> Result<Answer, Stop> {
        let wanted = to_v1(asked, &text)?;
        let own = wanted["metadata"]["name"].as_str().unwrap_or_default();
        if own != name {
            return Err(Refused::at("id", format!("{own:?}, but the path says {name:?}")).into());
        }
        let version = wanted["metadata"]["resourceVersion"].clone();
        let target = asked.v1_object(name);
        let mut attempt = 1;
        loop {
            let (_, current) = self.ask(Method::GET, &target, None).await?;
            let object = merged(asked, &wanted, &current)?;
            match self.ask(Method::PUT, &target, Some(&object)).await {
                Ok((code, object)) => return converted(asked.resource, code, &object),
                // The client asked for no version in particular, so it is not in conflict.
                Err(Stop::Theirs(StatusCode::CONFLICT, _))
                    if version.is_null() && attempt < UPDATES =>
                {
                    attempt += 1;
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    async fn delete(&self, asked: &Asked, name: &str, text: Bytes) -> Result<Answer, Stop> {
        let options: DeleteOptions = if text.is_empty() {
            DeleteOptions::default()
        } else {
            serde_json::from_slice(&text)
                .map_err(|error| Refused::at("", format!("the options of DELETE: {error}")))?
        };
        let options = options.grace_period_seconds.map(|seconds| {
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": seconds})
        });
        let target = asked.v1_object(name);
        self.ask(Method::DELETE, &target, options.as_ref()).await?;
        Ok(Answer {
            code: StatusCode::OK,
            body: statuses::deleted(asked.resource.name(), name),
        })
    }
}

/// A client's object as v1, with the kind that the API server wants to read.
fn to_v1(asked: &Asked, text: &[u8]) -> Result<Value, Stop> {
    let mut object = v1beta1::to_v1(asked.resource, text, asked.namespace.as_deref())?;
    object["kind"] = json!(asked.resource.v1_kind());
    object["apiVersion"] = json!("v1");
    Ok(object)
}

/// The object that an update makes of the current one.
fn merged(asked: &Asked, wanted: &Value, current: &Value) -> Result<Value, Stop> {
    let seen = v1beta1::from_v1(asked.resource, current).map_err(unreadable)?;
    let seen = to_v1(asked, seen.to_string().as_bytes()).map_err(|stop| match stop {
        Stop::Ours(_, _, why) => Stop::Ours(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("the object that is there cannot be updated by v1beta1, use v1: {why}"),
        ),
        other => other,
    })?;
    let mut wanted = wanted.clone();
    keep_assigned(&seen, &mut wanted);
    let mut object = merge(&seen, &wanted, current);
    if wanted["metadata"]["resourceVersion"].is_null() {
        object["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    }
    Ok(object)
}

/// What the server assigned and cannot be changed: a client that does not say it does not mean to
/// take it away.
fn keep_assigned(seen: &Value, wanted: &mut Value) {
    for (part, field) in [
        ("metadata", "uid"),
        ("metadata", "namespace"),
        ("spec", "nodeName"),
        ("spec", "serviceAccountName"),
        ("spec", "clusterIP"),
        ("spec", "podCIDR"),
    ] {
        if wanted[part].is_object() && wanted[part][field].is_null() && !seen[part][field].is_null()
        {
            wanted[part][field] = seen[part][field].clone();
        }
    }
    // A status is the server's own.
    if let (Some(wanted), Some(status)) = (wanted.as_object_mut(), seen.get("status")) {
        wanted.insert("status".to_owned(), status.clone());
    }
}

fn converted(resource: Resource, code: StatusCode, object: &Value) -> Result<Answer, Stop> {
    let body = v1beta1::from_v1(resource, object).map_err(unreadable)?;
    Ok(Answer {
        code,
        body: v1beta1::with_kind(resource, body),
    })
}

fn unreadable(refused: Refused) -> Stop {
    Stop::Ours(StatusCode::BAD_GATEWAY, "BadGateway", refused.to_string())
}

async fn read(answer: Response<hyper::body::Incoming>) -> Result<(StatusCode, Value), Stop> {
    let code = answer.status();
    let bad = |why: String| Stop::Ours(StatusCode::BAD_GATEWAY, "BadGateway", why);
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| bad(format!("the API server's answer cannot be read: {error}")))?;
    let text = body.to_bytes();
    let value = serde_json::from_slice(&text).or_else(|error| {
        if code.is_success() {
            Err(bad(format!("the API server's answer is no JSON: {error}")))
        } else {
            // A refusal in words, for instance of somebody in between.
            Ok(json!({
                "status": "Failure",
                "message": String::from_utf8_lossy(&text).trim(),
                "code": code.as_u16(),
            }))
        }
    })?;
    Ok((code, value))
}
