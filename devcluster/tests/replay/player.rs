//! Reads a recording and plays it: requests are sent, answers and events compared.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use axum::response::Response;
use devcluster::clock::{ManualClock, Time};
use devcluster::master::Master;
use serde_json::Value;

use crate::agent::PlayedAgent;
use crate::compare::Ids;
use crate::node::Node;
use crate::recording::{Deed, arg, deeds, phase, reordered, start_master};
use crate::stream::{Stream, decode};

/// How much later than recorded an event may come: rounds of the allocator are not in step.
pub const PATIENCE: Duration = Duration::from_millis(2500);

/// A scheduler's or operator's connection.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    /// Events that came before a HEARTBEAT which was recorded before them.
    pub(crate) waiting: VecDeque<Value>,
    pub(crate) heartbeats: usize,
    pub(crate) recorded_heartbeats: usize,
}

#[derive(Default)]
pub struct Report {
    pub differences: Vec<String>,
    pub answers: usize,
    pub events: usize,
}

/// Whether a connection is one with an agent.
pub(crate) fn is_agents(conn: &str) -> bool {
    let agents = ["executor", "agent", "operator-agent", "outsider"];
    agents.iter().any(|c| conn.starts_with(c))
}

pub struct Player {
    pub(crate) entries: Vec<Value>,
    pub(crate) master: Master,
    /// The recorded ids of the masters that are still to be started.
    pub(crate) masters: VecDeque<String>,
    pub(crate) seed: u64,
    /// The master was killed and not started again yet.
    pub(crate) dead: bool,
    pub(crate) clock: ManualClock,
    /// The time that is 0 in the recording.
    pub(crate) base: Time,
    pub(crate) ids: Ids,
    pub(crate) connections: HashMap<String, Connection>,
    pub(crate) responses: HashMap<String, VecDeque<Response>>,
    pub(crate) last_stream: HashMap<String, Stream>,
    pub(crate) requests: HashMap<String, Value>,
    pub(crate) agents: BTreeMap<String, PlayedAgent>,
    /// The agent, if it is a real one.
    pub(crate) node: Option<Node>,
    pub(crate) deeds: VecDeque<(f64, Deed)>,
    /// The recorded framework of each connection.
    pub(crate) frameworks: HashMap<String, String>,
    pub(crate) report: Report,
    /// The order of resources does not count.
    pub(crate) any_order: bool,
    pub(crate) work_dir: tempfile::TempDir,
}

impl Player {
    pub fn new(scenario: &str, seed: u64, any_order: bool) -> Self {
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
            node: None,
            deeds: deeds.into(),
            frameworks,
            report: Report::default(),
            any_order,
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
    pub(crate) fn advance(&mut self, to: Time) {
        loop {
            let deadline = self.next_deadline();
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
            } else if let Some(node) = &mut self.node
                && node.deadline() <= deadline
            {
                node.tick(&self.master);
            } else {
                self.master.tick();
            }
            self.pump();
        }
        self.clock.set(to);
    }

    /// When master or agent have something to do by themselves.
    pub(crate) fn next_deadline(&self) -> Time {
        let master = if self.dead {
            Time::NEVER
        } else {
            self.master.next_deadline()
        };
        master.min(self.node.as_ref().map_or(Time::NEVER, Node::deadline))
    }

    pub(crate) fn pump(&mut self) {
        for agent in self.agents.values_mut() {
            agent.pump(&self.master);
        }
        if let Some(node) = &mut self.node {
            node.pump(&self.master);
        }
    }

    pub(crate) fn differs(&mut self, entry: &Value, what: &str) {
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
        if self.node.is_none() {
            if conn.starts_with("executor") && dir == "event" {
                self.executor_heard(entry);
            }
            if is_agents(&conn) {
                return;
            }
        }
        if conn == "fetcher" {
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
        if self.node_note(entry, text) {
            return;
        }
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
}
