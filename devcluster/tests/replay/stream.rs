//! Response bodies, read without waiting.

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use mesos::codec::Encoding;
use mesos::pb;
use serde_json::Value;

/// A response body, read without waiting.
pub struct Stream {
    body: Option<Body>,
    buffer: Vec<u8>,
    pub encoding: Encoding,
}

impl Stream {
    pub fn new(response: Response) -> Self {
        let encoding = response
            .headers()
            .get("content-type")
            .and_then(|v| Encoding::from_media_type(v.to_str().ok()?));
        Self {
            body: Some(response.into_body()),
            buffer: Vec::new(),
            encoding: encoding.unwrap_or(Encoding::Protobuf),
        }
    }

    fn fill(&mut self) {
        while let Some(body) = &mut self.body {
            match body.frame().now_or_never() {
                Some(Some(frame)) => {
                    if let Ok(data) = frame.unwrap().into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(None) => self.body = None,
                None => return,
            }
        }
    }

    /// The next record that is there.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.fill();
        let line = self.buffer.iter().position(|b| *b == b'\n')?;
        let length: usize = std::str::from_utf8(&self.buffer[..line])
            .unwrap()
            .parse()
            .unwrap();
        let rest = self.buffer.split_off(line + 1);
        assert!(rest.len() >= length, "frames are sent whole");
        self.buffer = rest[length..].to_vec();
        Some(rest[..length].to_vec())
    }

    /// All that is there and was not read.
    pub fn rest(&mut self) -> Vec<u8> {
        self.fill();
        std::mem::take(&mut self.buffer)
    }

    pub fn ended(&mut self) -> bool {
        self.fill();
        self.body.is_none() && self.buffer.is_empty()
    }
}

/// A record of a connection's stream as JSON.
pub fn decode(conn: &str, encoding: Encoding, frame: &[u8]) -> Value {
    match encoding {
        Encoding::Json => serde_json::from_slice(frame).unwrap(),
        Encoding::Protobuf if conn.starts_with("operator") => {
            let event: pb::master::Event = encoding.decode(frame).unwrap();
            devcluster::http::json::print(&event)
        }
        Encoding::Protobuf if conn.starts_with("executor") => {
            // Without defaults that were not sent.
            let event: pb::executor::Event = encoding.decode(frame).unwrap();
            mesos::codec::to_json(&event)
        }
        Encoding::Protobuf => {
            let event: pb::scheduler::Event = encoding.decode(frame).unwrap();
            devcluster::http::json::print(&event)
        }
    }
}
