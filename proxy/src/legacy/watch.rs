//! Watches: each event converted as it comes.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::http::upstream::Body;
use crate::http::{Forward, boxed};
use crate::v1beta1::{self, MAX_OBJECT, Resource, status};

/// Events that wait for a slow client; the API server waits with them.
const PENDING: usize = 16;
/// Bytes of an event.
const MAX_EVENT: usize = MAX_OBJECT + 4096;

type Item = Result<Frame<Bytes>, Infallible>;

/// An answer that goes on as long as the API server's does.
pub fn answer(resource: Resource, events: Incoming, forward: &Forward) -> Response<Body> {
    let (to_client, from_us) = mpsc::channel(PENDING);
    let end = forward.end.clone();
    forward.tasks.spawn(async move {
        tokio::select! {
            () = end.cancelled() => {}
            // The client is gone, though nothing comes that would show it.
            () = to_client.closed() => {}
            () = convert(resource, events, &to_client) => {}
        }
    });
    let mut answer = Response::new(boxed(StreamBody::new(ReceiverStream::new(from_us))));
    *answer.status_mut() = StatusCode::OK;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

async fn convert(resource: Resource, mut events: Incoming, to_client: &mpsc::Sender<Item>) {
    let mut lines = Lines::default();
    while let Some(frame) = events.frame().await {
        let Ok(frame) = frame else { return };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if lines.push(&data).is_err() {
            let event = error_event("an event has too many bytes for v1beta1");
            let _ = to_client.send(Ok(line(&event))).await;
            return;
        }
        while let Some(text) = lines.next() {
            let (event, last) = match event(resource, &text) {
                Ok(Some(event)) => (event, false),
                Ok(None) => continue,
                Err(why) => (error_event(&why), true),
            };
            if to_client.send(Ok(line(&event))).await.is_err() || last {
                return;
            }
        }
    }
}

fn line(event: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{event}\n")))
}

fn error_event(why: &str) -> Value {
    json!({"type": "ERROR", "object": status::failure(500, "InternalError", why)})
}

/// An event of v1 as v1beta1; bookmarks were none.
fn event(resource: Resource, text: &[u8]) -> Result<Option<Value>, String> {
    let event: Value = serde_json::from_slice(text)
        .map_err(|error| format!("the API server's event is no JSON: {error}"))?;
    let kind = event["type"].as_str().unwrap_or_default();
    let object = match kind {
        "ADDED" | "MODIFIED" | "DELETED" => {
            let object = v1beta1::from_v1(resource, &event["object"]).map_err(|e| e.to_string())?;
            v1beta1::with_kind(resource, object)
        }
        "ERROR" => status::from_v1(&event["object"]),
        _ => return Ok(None),
    };
    Ok(Some(json!({"type": kind, "object": object})))
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Lines {
    bytes: BytesMut,
    /// Bytes that are known to hold no end of a line.
    searched: usize,
}

impl Lines {
    /// More bytes; an error when a line gets too long.
    fn push(&mut self, more: &[u8]) -> Result<(), ()> {
        self.bytes.extend_from_slice(more);
        if self.bytes.len() > MAX_EVENT && !self.bytes.contains(&b'\n') {
            return Err(());
        }
        Ok(())
    }

    /// The next whole line that is not empty.
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let end = self.bytes[self.searched..].iter().position(|b| *b == b'\n');
            let Some(end) = end else {
                self.searched = self.bytes.len();
                return None;
            };
            let line = self.bytes.split_to(self.searched + end + 1).freeze();
            self.searched = 0;
            if line.len() > 1 {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_however_the_bytes_are_cut() {
        let text = b"one\n\ntwo\nthree";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut out = Vec::new();
            for chunk in text.chunks(size) {
                lines.push(chunk).unwrap();
                while let Some(line) = lines.next() {
                    out.push(line);
                }
            }
            assert_eq!(out, ["one\n", "two\n"].map(Bytes::from), "chunks of {size}");
        }
        let mut lines = Lines::default();
        assert!(lines.push(&vec![b'x'; MAX_EVENT + 1]).is_err());
    }

    #[test]
    fn events_keep_their_type_and_bookmarks_are_left_out() {
        let added = json!({"type": "ADDED", "object": {"metadata": {"name": "php"}, "spec": {"containers": []}}});
        let out = event(Resource::Pods, added.to_string().as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!(out["type"], "ADDED");
        assert_eq!(out["object"]["kind"], "Pod");
        assert_eq!(out["object"]["id"], "php");
        let bookmark = json!({"type": "BOOKMARK", "object": {}});
        assert_eq!(
            event(Resource::Pods, bookmark.to_string().as_bytes()),
            Ok(None)
        );
        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"}});
        let out = event(Resource::Pods, gone.to_string().as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!(out["object"]["apiVersion"], "v1beta1");
        assert_eq!(out["object"]["code"], 410);
        assert!(event(Resource::Pods, b"nonsense").is_err());
    }
}
