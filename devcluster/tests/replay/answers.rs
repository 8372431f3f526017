//! Requests that are sent again, and their answers.

use std::collections::VecDeque;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request};
use bytes::Bytes;
use mesos::codec::Encoding;
use mesos::pb;
use serde_json::Value;

use crate::compare;
use crate::player::{Connection, Player, is_agents};
use crate::stream::{Stream, decode};

impl Player {
    pub(crate) fn request(&mut self, entry: &Value, conn: &str) {
        let method: Method = entry["method"].as_str().unwrap().parse().unwrap();
        let path = self.ids.translate(entry["path"].as_str().unwrap());
        let mut request = Request::builder().method(method).uri(path);
        let mut encoding = Encoding::Json;
        for (name, value) in entry["headers"].as_object().unwrap() {
            let value = self.ids.translate(value.as_str().unwrap());
            if name.eq_ignore_ascii_case("content-type") {
                encoding = Encoding::from_media_type(&value).unwrap_or_default();
            }
            request = request.header(name, HeaderValue::from_str(&value).unwrap());
        }
        let body = match (entry.get("json"), entry.get("text")) {
            (Some(json), _) => {
                let json = self.ids.translate_json(json);
                if encoding == Encoding::Protobuf {
                    protobuf(entry["path"].as_str().unwrap(), &json)
                } else {
                    json.to_string().into_bytes()
                }
            }
            // The recorder wrote bytes that are no text as Python does.
            (None, Some(text)) if text == "b'\\xff\\xff\\xff'" => vec![0xff; 3],
            (None, Some(text)) => self.ids.translate(text.as_str().unwrap()).into_bytes(),
            (None, None) => Vec::new(),
        };
        // A connection carries one request at a time; a client that asks anew has closed the
        // stream that it had.
        if conn == "client" {
            self.last_stream.remove(conn);
        }
        let request = request.body(Bytes::from(body)).unwrap();
        let response = match &mut self.node {
            Some(node) if is_agents(conn) => node.request(request.map(Body::from)),
            _ => Some(self.master.request([127, 0, 0, 1].into(), request)),
        };
        self.responses
            .entry(conn.to_owned())
            .or_default()
            .extend(response);
        self.requests.insert(conn.to_owned(), entry.clone());
        self.pump();
    }

    pub(crate) fn head(&mut self, entry: &Value, conn: &str) {
        let Some(response) = self.responses.get_mut(conn).and_then(VecDeque::pop_front) else {
            return self.differs(entry, "a response without a request");
        };
        self.report.answers += 1;
        let recorded = entry["status"].as_u64().unwrap();
        if u64::from(response.status().as_u16()) != recorded {
            let text = format!("recorded status {recorded}, here {}", response.status());
            self.differs(entry, &text);
        }
        for name in ["Content-Type", "Allow", "Location", "Mesos-Stream-Id"] {
            let recorded = entry["headers"].get(name).and_then(Value::as_str);
            let actual = response
                .headers()
                .get(name)
                .map(|v| v.to_str().unwrap().to_owned());
            match (recorded, actual) {
                (Some(a), Some(b)) if name == "Mesos-Stream-Id" => self.ids.learn(a, &b),
                (Some(a), Some(b)) if self.ids.translate(a) == b => {}
                (None, None) => {}
                (a, b) => self.differs(entry, &format!("{name}: recorded {a:?}, here {b:?}")),
            }
        }
        let stream = Stream::new(response);
        let streaming = entry["headers"].get("Transfer-Encoding").is_some();
        if streaming && conn != "client" {
            let connection = Connection {
                stream,
                waiting: VecDeque::new(),
                heartbeats: 0,
                recorded_heartbeats: 0,
            };
            self.connections.insert(conn.to_owned(), connection);
        } else {
            self.last_stream.insert(conn.to_owned(), stream);
        }
    }

    pub(crate) fn body(&mut self, entry: &Value, conn: &str, _t: f64) {
        let Some(mut stream) = self.last_stream.remove(conn) else {
            // The body of a refused subscription is an event stream.
            return;
        };
        let path = self.requests[conn]["path"].as_str().unwrap().to_owned();
        let recorded_text = entry.get("text").and_then(Value::as_str);
        if let Some(recorded) = recorded_text
            && recorded.contains("{\"type\":")
        {
            // The recorder closes the connection after that.
            self.frames(entry, recorded, &mut stream);
            return;
        }
        let actual = stream.rest();
        if let Some(recorded) = recorded_text {
            let recorded = self.ids.translate(recorded);
            let actual = String::from_utf8_lossy(&actual);
            if recorded != actual {
                let text = format!("recorded body {recorded:?}, here {actual:?}");
                self.differs(entry, &text);
            }
            return;
        }
        // Flags, build and metrics are another program's.
        let call = self.requests[conn]
            .pointer("/json/type")
            .and_then(Value::as_str);
        let differs = matches!(call, Some("GET_FLAGS" | "GET_VERSION" | "GET_METRICS"));
        let legacy = [
            "/slaves",
            "/frameworks",
            "/tasks",
            "/roles",
            "/state-summary",
            "/state",
        ];
        let end = path.split('?').next().unwrap_or_default();
        if !path.contains("/api/v1") && !legacy.iter().any(|l| end.ends_with(l)) || differs {
            return;
        }
        let mut actual: Value = serde_json::from_slice(&actual).unwrap();
        let mut recorded = self.ids.translate_json(&entry["json"]);
        for document in [&mut actual, &mut recorded] {
            if let Some(members) = document.as_object_mut() {
                for other in ["flags", "build_date", "build_time", "build_user", "git_tag"] {
                    members.remove(other);
                }
            }
        }
        self.compare(entry, Encoding::Json, &recorded, &actual);
    }

    pub(crate) fn compare(
        &mut self,
        entry: &Value,
        encoding: Encoding,
        recorded: &Value,
        actual: &Value,
    ) {
        let strip = |v: &Value| {
            let mut out = match encoding {
                Encoding::Json => compare::normal(v),
                Encoding::Protobuf => compare::normal(&compare::without_defaults(v)),
            };
            if self.any_order {
                compare::sort_resources(&mut out);
            }
            out
        };
        if let Some(text) = compare::difference(&strip(recorded), &strip(actual)) {
            self.differs(entry, &format!("{}: {text}", recorded["type"]));
        }
    }

    /// Records of a stream that the recorder wrote down as text.
    pub(crate) fn frames(&mut self, entry: &Value, recorded: &str, stream: &mut Stream) {
        let (text, eof) = match recorded.strip_suffix("<EOF>") {
            Some(text) => (text, true),
            None => (recorded, false),
        };
        let mut rest = text;
        while let Some((length, after)) = rest.split_once('\n') {
            let length: usize = length.parse().unwrap();
            let Some(record) = after.get(..length) else {
                break;
            };
            rest = &after[length..];
            let recorded: Value = serde_json::from_str(record).unwrap();
            let mut actual = stream
                .next_frame()
                .map(|f| decode("client", stream.encoding, &f));
            // Whether the first HEARTBEAT or the offers come first is a matter of luck.
            if recorded["type"] != "HEARTBEAT" {
                while actual.as_ref().is_some_and(|a| a["type"] == "HEARTBEAT") {
                    actual = stream
                        .next_frame()
                        .map(|f| decode("client", stream.encoding, &f));
                }
            } else if actual.as_ref().is_none_or(|a| a["type"] != "HEARTBEAT") {
                continue;
            }
            self.report.events += 1;
            match actual {
                Some(actual) => {
                    self.learn(&recorded, &actual);
                    let recorded = self.ids.translate_json(&recorded);
                    self.compare(entry, stream.encoding, &recorded, &actual);
                }
                None => self.differs(entry, &format!("did not come: {recorded}")),
            }
        }
        if eof && !stream.ended() {
            self.differs(entry, "the stream goes on");
        }
    }
}

fn protobuf(path: &str, json: &Value) -> Vec<u8> {
    if path.ends_with("executor") {
        let call: pb::executor::Call = mesos::codec::from_json(json).unwrap();
        Encoding::Protobuf.encode(&call)
    } else if path.ends_with("scheduler") {
        let call: pb::scheduler::Call = mesos::codec::from_json(json).unwrap();
        Encoding::Protobuf.encode(&call)
    } else {
        let call: pb::master::Call = mesos::codec::from_json(json).unwrap();
        Encoding::Protobuf.encode(&call)
    }
}
