//! Reads a recording and plays it: requests are sent, answers and events compared.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request};
use axum::response::Response;
use bytes::Bytes;
use devcluster::clock::{ManualClock, Time};
use devcluster::master::Master;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use mesos::codec::Encoding;
use mesos::pb;
use serde_json::Value;

use crate::agent::PlayedAgent;
use crate::compare::{self, Ids};
use crate::recording::{Deed, arg, deeds, phase, reordered, start_master};

/// How much later than recorded an event may come: rounds of the allocator are not in step.
const PATIENCE: Duration = Duration::from_millis(2500);

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

    pub fn ended(&mut self) -> bool {
        self.fill();
        self.body.is_none() && self.buffer.is_empty()
    }
}

/// A scheduler's or operator's connection.
struct Connection {
    stream: Stream,
    /// Events that came before a HEARTBEAT which was recorded before them.
    waiting: VecDeque<Value>,
    heartbeats: usize,
    recorded_heartbeats: usize,
}

#[derive(Default)]
pub struct Report {
    pub differences: Vec<String>,
    pub answers: usize,
    pub events: usize,
}

pub struct Player {
    entries: Vec<Value>,
    master: Master,
    /// The recorded ids of the masters that are still to be started.
    masters: VecDeque<String>,
    seed: u64,
    /// The master was killed and not started again yet.
    dead: bool,
    clock: ManualClock,
    /// The time that is 0 in the recording.
    base: Time,
    ids: Ids,
    connections: HashMap<String, Connection>,
    responses: HashMap<String, VecDeque<Response>>,
    last_stream: HashMap<String, Stream>,
    requests: HashMap<String, Value>,
    agents: BTreeMap<String, PlayedAgent>,
    deeds: VecDeque<(f64, Deed)>,
    /// The recorded framework of each connection.
    frameworks: HashMap<String, String>,
    report: Report,
    work_dir: tempfile::TempDir,
}

impl Player {
    pub fn new(scenario: &str, seed: u64) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../mesos/tests/fixtures/wire")
            .join(scenario)
            .join("exchange.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let start = entries
            .iter()
            .find(|e| e["text"] == "start master")
            .expect("the recording starts a master");
        let base = Time::from_secs(1_800_000_000);
        let clock = ManualClock::new(base + Duration::from_secs_f64(phase(&entries)));
        let work_dir = tempfile::tempdir().unwrap();
        let master = start_master(start, work_dir.path(), &clock, seed);
        let mut ids = Ids::default();
        let mut masters: VecDeque<String> = VecDeque::new();
        for entry in &entries {
            if let Some(id) = entry
                .pointer("/json/subscribed/master_info/id")
                .and_then(Value::as_str)
                && masters.back().is_none_or(|last| last != id)
            {
                masters.push_back(id.to_owned());
            }
        }
        let first = masters.pop_front().expect("somebody subscribes");
        ids.master(&first, &master.id());
        let deeds = deeds(&entries);
        let frameworks = entries
            .iter()
            .filter_map(|e| {
                let id = e.pointer("/json/subscribed/framework_id/value")?.as_str()?;
                Some((e["conn"].as_str()?.to_owned(), id.to_owned()))
            })
            .collect();
        Self {
            entries,
            master,
            masters,
            seed,
            dead: false,
            clock,
            base,
            ids,
            connections: HashMap::new(),
            responses: HashMap::new(),
            last_stream: HashMap::new(),
            requests: HashMap::new(),
            agents: BTreeMap::new(),
            deeds: deeds.into(),
            frameworks,
            report: Report::default(),
            work_dir,
        }
    }

    pub fn run(mut self) -> Report {
        for entry in reordered(std::mem::take(&mut self.entries)) {
            if entry["text"]
                .as_str()
                .is_some_and(|t| t.starts_with("recording ends"))
            {
                break;
            }
            let t = entry["t"].as_f64().unwrap();
            self.advance(self.base + Duration::from_secs_f64(t));
            self.step(&entry, t);
            self.pump();
        }
        for (name, connection) in &mut self.connections {
            for event in &connection.waiting {
                self.report
                    .differences
                    .push(format!("{name}: not recorded: {event}"));
            }
            while let Some(frame) = connection.stream.next_frame() {
                let event = decode(name, connection.stream.encoding, &frame);
                if event["type"] != "HEARTBEAT" {
                    self.report
                        .differences
                        .push(format!("{name}: not recorded: {event}"));
                }
            }
        }
        self.report
    }

    /// Time passes, and with it everything that is due.
    fn advance(&mut self, to: Time) {
        loop {
            let deadline = if self.dead {
                Time::NEVER
            } else {
                self.master.next_deadline()
            };
            let deed = match self.deeds.front() {
                Some((t, _)) => self.base + Duration::from_secs_f64(*t),
                None => Time::NEVER,
            };
            if deadline.min(deed) > to {
                break;
            }
            self.clock.set(deadline.min(deed));
            if deed <= deadline {
                if let Some((_, deed)) = self.deeds.pop_front() {
                    self.perform(&deed);
                }
            } else {
                self.master.tick();
            }
            self.pump();
        }
        self.clock.set(to);
    }

    fn pump(&mut self) {
        for agent in self.agents.values_mut() {
            agent.pump(&self.master);
        }
    }

    fn agent_of(&mut self, event: &Value, path: &str) -> Option<&mut PlayedAgent> {
        let id = event.pointer(path)?["value"].as_str()?.to_owned();
        self.agents
            .values_mut()
            .find(|a| a.id.as_ref().is_some_and(|a| a.value == id))
    }

    fn framework_of(&self, conn: &str) -> String {
        self.ids
            .translate(self.frameworks.get(conn).map_or("", String::as_str))
    }

    fn perform(&mut self, deed: &Deed) {
        let master = self.master.clone();
        let (Deed::Report(entry) | Deed::Exit(entry) | Deed::Say(entry) | Deed::Return(entry)) =
            deed;
        let framework = self.framework_of(entry["conn"].as_str().unwrap());
        let event = self.ids.translate_json(&entry["json"]);
        match deed {
            Deed::Report(_) => {
                let status: pb::TaskStatus =
                    mesos::codec::from_json(&event["update"]["status"]).unwrap();
                if let Some(agent) = self.agent_of(&event, "/update/status/agent_id") {
                    agent.report(&master, &framework, status);
                }
            }
            Deed::Exit(_) => {
                let failure: pb::scheduler::event::Failure =
                    mesos::codec::from_json(&event["failure"]).unwrap();
                if let Some(agent) = self.agent_of(&event, "/failure/agent_id") {
                    let executor = failure.executor_id.unwrap().value;
                    agent.executor_exits(&master, &framework, &executor, failure.status.unwrap());
                }
            }
            Deed::Return(_) => {
                let hostname = event
                    .pointer("/agent_added/agent/agent_info/hostname")
                    .unwrap();
                for agent in self.agents.values_mut() {
                    if *hostname == agent.subscribe.info.hostname && !agent.connected() {
                        agent.start(&master);
                    }
                }
            }
            Deed::Say(_) => {
                let message: pb::scheduler::event::Message =
                    mesos::codec::from_json(&event["message"]).unwrap();
                if let Some(agent) = self.agent_of(&event, "/message/agent_id") {
                    let executor = message.executor_id.value;
                    agent.executor_says(&master, &framework, &executor, message.data);
                }
            }
        }
    }

    fn differs(&mut self, entry: &Value, what: &str) {
        let text = format!(
            "{:8.3} {}: {what}",
            entry["t"].as_f64().unwrap(),
            entry["conn"]
        );
        self.report.differences.push(text);
    }

    fn step(&mut self, entry: &Value, t: f64) {
        let conn = entry["conn"].as_str().unwrap().to_owned();
        let dir = entry["dir"].as_str().unwrap();
        if dir == "note" {
            return self.note(entry);
        }
        if conn.starts_with("executor") {
            if dir == "event" {
                self.executor_heard(entry);
            }
            return;
        }
        // The agent's and the fetcher's HTTP are the agent's matter.
        if ["agent", "fetcher", "operator-agent", "outsider"]
            .iter()
            .any(|c| conn.starts_with(c))
        {
            return;
        }
        // To a master that is dead nothing was sent.
        if entry["text"]
            .as_str()
            .is_some_and(|t| t.contains("Connection refused"))
        {
            self.responses.remove(&conn);
            return;
        }
        match dir {
            "request" => self.request(entry, &conn),
            "response-head" => self.head(entry, &conn),
            "response-body" => self.body(entry, &conn, t),
            "event" => self.event(entry, &conn, t),
            "stream-closed" => self.closed(entry, &conn),
            other => panic!("unknown entry {other}"),
        }
    }

    fn note(&mut self, entry: &Value) {
        let text = entry["text"].as_str().unwrap();
        let master = self.master.clone();
        if let Some(name) = text.strip_prefix("start agent") {
            let args: Vec<String> = serde_json::from_value(entry["args"].clone()).unwrap();
            let peer = arg(entry, "ip").unwrap().parse().unwrap();
            let agent = self
                .agents
                .entry(name.to_owned())
                .or_insert_with(|| PlayedAgent::new(&args, peer));
            agent.start(&master);
        } else if text.starts_with("kill master") {
            self.dead = true;
            self.connections.clear();
            for agent in self.agents.values_mut() {
                agent.cut_off();
            }
        } else if text == "start master" {
            // The first one runs already.
            if self.agents.is_empty() {
                return;
            }
            self.dead = false;
            self.master = start_master(entry, self.work_dir.path(), &self.clock, self.seed);
            let recorded = self.masters.pop_front().expect("somebody subscribes");
            self.ids.master(&recorded, &self.master.id());
        } else if let Some(rest) = text.strip_prefix("kill agent") {
            let name = rest.split(' ').next().unwrap();
            let agent = self.agents.get_mut(name).unwrap();
            if rest.ends_with("SIGUSR1") {
                agent.unregister(&master);
            }
            agent.kill();
        } else if text.starts_with("agent process frozen") {
            for agent in self.agents.values_mut() {
                agent.frozen = true;
            }
        } else if let Some(conn) = text.strip_prefix("client closes TCP connection ") {
            self.connections.remove(conn);
        }
    }

    /// What a recorded executor was told, our agent must have been told by the master.
    fn executor_heard(&mut self, entry: &Value) {
        let json = &entry["json"];
        let kind = match json["type"].as_str().unwrap() {
            "LAUNCH" => "LAUNCH",
            "KILL" => "KILL",
            _ => return,
        };
        let task = match kind {
            "LAUNCH" => json.pointer("/launch/task/task_id/value"),
            _ => json.pointer("/kill/task_id/value"),
        };
        let task = task.unwrap().as_str().unwrap();
        let heard = self
            .agents
            .values()
            .any(|a| a.heard.iter().any(|(k, id)| *k == kind && id == task));
        if !heard {
            self.differs(entry, &format!("the agent was not told to {kind} {task}"));
        }
    }

    fn request(&mut self, entry: &Value, conn: &str) {
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
        let response = self.master.request([127, 0, 0, 1].into(), request);
        self.responses
            .entry(conn.to_owned())
            .or_default()
            .push_back(response);
        self.requests.insert(conn.to_owned(), entry.clone());
        self.pump();
    }

    fn head(&mut self, entry: &Value, conn: &str) {
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

    fn body(&mut self, entry: &Value, conn: &str, _t: f64) {
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
        stream.fill();
        let actual = std::mem::take(&mut stream.buffer);
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

    fn compare(&mut self, entry: &Value, encoding: Encoding, recorded: &Value, actual: &Value) {
        let strip = |v: &Value| match encoding {
            Encoding::Json => compare::normal(v),
            Encoding::Protobuf => compare::normal(&compare::without_defaults(v)),
        };
        if let Some(text) = compare::difference(&strip(recorded), &strip(actual)) {
            self.differs(entry, &format!("{}: {text}", recorded["type"]));
        }
    }

    /// Records of a stream that the recorder wrote down as text.
    fn frames(&mut self, entry: &Value, recorded: &str, stream: &mut Stream) {
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

    /// Learns what recorded ids are here.
    fn learn(&mut self, recorded: &Value, actual: &Value) {
        let operation = "/update_operation_status/status/uuid/value";
        if let (Some(Value::String(a)), Some(Value::String(b))) =
            (recorded.pointer(operation), actual.pointer(operation))
        {
            self.ids.learn(a, b);
        }
        let (Some(a), Some(b)) = (
            recorded.pointer("/offers/offers").and_then(Value::as_array),
            actual.pointer("/offers/offers").and_then(Value::as_array),
        ) else {
            return;
        };
        let key = |o: &Value| (o["hostname"].to_string(), o["allocation_info"].to_string());
        let (mut a, mut b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
        a.sort_by_key(|o| key(o));
        b.sort_by_key(|o| key(o));
        for (x, y) in a.iter().zip(&b) {
            if let (Some(x), Some(y)) = (x["id"]["value"].as_str(), y["id"]["value"].as_str()) {
                self.ids.learn(x, y);
            }
        }
    }

    fn event(&mut self, entry: &Value, conn: &str, t: f64) {
        let recorded = &entry["json"];
        let heartbeat = recorded["type"] == "HEARTBEAT";
        if let Some(connection) = self.connections.get_mut(conn)
            && heartbeat
        {
            connection.recorded_heartbeats += 1;
        }
        if recorded.pointer("/update/status/reason") == Some(&"REASON_AGENT_REREGISTERED".into()) {
            // A frozen agent has been thawed and finds that its master has given it up.
            let master = self.master.clone();
            for agent in self.agents.values_mut().filter(|a| a.frozen) {
                agent.frozen = false;
                agent.start(&master);
            }
        }
        let until = self.base + Duration::from_secs_f64(t) + PATIENCE;
        let actual = loop {
            let Some(connection) = self.connections.get_mut(conn) else {
                return self.differs(entry, "an event of a stream that is not open");
            };
            if heartbeat && connection.heartbeats >= connection.recorded_heartbeats {
                self.report.events += 1;
                return;
            }
            if !heartbeat && let Some(event) = connection.waiting.pop_front() {
                break Some(event);
            }
            if let Some(frame) = connection.stream.next_frame() {
                let event = decode(conn, connection.stream.encoding, &frame);
                if event["type"] == "HEARTBEAT" {
                    connection.heartbeats += 1;
                } else {
                    connection.waiting.push_back(event);
                }
                continue;
            }
            let deadline = self.master.next_deadline();
            // What was recorded after this event must not come before it, but time stamps of
            // updates are not that exact.
            let deed = match self.deeds.front() {
                Some((at, Deed::Report(_))) => self.base + Duration::from_secs_f64(*at),
                Some((at, _)) if *at <= t => self.base + Duration::from_secs_f64(*at),
                _ => Time::NEVER,
            };
            let next = deadline.min(deed);
            if next > until {
                break None;
            }
            if deadline < deed {
                // Later than recorded, then, and so is all that follows.
                self.base += deadline.since(self.base + Duration::from_secs_f64(t));
            }
            self.advance(next);
        };
        let Some(actual) = actual else {
            return self.differs(entry, &format!("did not come: {recorded}"));
        };
        self.report.events += 1;
        if let Some(id) = actual.pointer("/subscribed/framework_id/value") {
            let id = id.as_str().unwrap().to_owned();
            if let Some(recorded) = recorded.pointer("/subscribed/framework_id/value") {
                self.ids.learn(recorded.as_str().unwrap(), &id);
            }
        }
        self.learn(recorded, &actual);
        let recorded = self.ids.translate_json(recorded);
        let encoding = self.connections.get(conn).map(|c| c.stream.encoding);
        self.compare(entry, encoding.unwrap_or_default(), &recorded, &actual);
    }

    fn closed(&mut self, entry: &Value, conn: &str) {
        if entry["text"] != "EOF" {
            return;
        }
        let Some(mut connection) = self.connections.remove(conn) else {
            return self.differs(entry, "a stream that is not open ends");
        };
        while let Some(frame) = connection.stream.next_frame() {
            let event = decode(conn, connection.stream.encoding, &frame);
            if event["type"] != "HEARTBEAT" {
                self.differs(entry, &format!("not recorded: {event}"));
            }
        }
        if !connection.stream.ended() {
            self.differs(entry, "the stream goes on");
        }
    }
}

fn decode(conn: &str, encoding: Encoding, frame: &[u8]) -> Value {
    match encoding {
        Encoding::Json => serde_json::from_slice(frame).unwrap(),
        Encoding::Protobuf if conn.starts_with("operator") => {
            let event: pb::master::Event = encoding.decode(frame).unwrap();
            devcluster::http::json::print(&event)
        }
        Encoding::Protobuf => {
            let event: pb::scheduler::Event = encoding.decode(frame).unwrap();
            devcluster::http::json::print(&event)
        }
    }
}

fn protobuf(path: &str, json: &Value) -> Vec<u8> {
    if path.ends_with("scheduler") {
        let call: pb::scheduler::Call = mesos::codec::from_json(json).unwrap();
        Encoding::Protobuf.encode(&call)
    } else {
        let call: pb::master::Call = mesos::codec::from_json(json).unwrap();
        Encoding::Protobuf.encode(&call)
    }
}
