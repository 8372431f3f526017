//! Every recorded conversation of a real Mesos 1.12, read and written again by this crate:
//! nothing that Mesos said may be lost or changed, in either encoding.

mod support;

use std::path::PathBuf;

use mesos::codec::{self, Encoding};
use mesos::pb;
use mesos::recordio::{Decoder, RecordIoError};
use prost_reflect::ReflectMessage;
use serde_json::Value;
use support::{difference, scenarios};

const LIMIT: usize = 64 << 20;

/// A recorded stream: whose it is, and what is in it.
struct Recorded {
    name: String,
    conn: String,
    encoding: Encoding,
    bytes: Vec<u8>,
    expected: Vec<Value>,
}

fn streams() -> Vec<Recorded> {
    let mut streams = Vec::new();
    for scenario in scenarios() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&scenario.directory)
            .expect("readable")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|e| e == "recordio"))
            .collect();
        files.sort();
        for file in files {
            let name = file.file_name().expect("a name").to_string_lossy();
            let stem = name.trim_end_matches(".recordio");
            let (conn, encoding) = match stem.strip_suffix(".pb") {
                Some(conn) => (conn, Encoding::Protobuf),
                None => (stem, Encoding::Json),
            };
            streams.push(Recorded {
                name: format!("{}/{name}", scenario.name),
                conn: conn.to_owned(),
                encoding,
                bytes: std::fs::read(&file).expect("readable"),
                // The recorder named connections that speak protobuf in several ways.
                expected: [stem, &format!("{conn}-pb"), conn]
                    .into_iter()
                    .map(|conn| scenario.events(conn))
                    .find(|events| !events.is_empty())
                    .unwrap_or_default(),
            });
        }
    }
    streams
}

/// The records of a stream that arrives in chunks of this size, and whether it is cut off.
fn records(bytes: &[u8], chunk: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = Decoder::new(LIMIT);
    let mut records = Vec::new();
    for chunk in bytes.chunks(chunk) {
        decoder.push(chunk);
        while let Some(record) = decoder.next_frame().expect("Mesos writes RecordIO") {
            records.push(record.to_vec());
        }
    }
    match decoder.finish() {
        Ok(()) => (records, false),
        Err(RecordIoError::Truncated { .. }) => (records, true),
        Err(other) => panic!("{other}"),
    }
}

/// Reads a message, writes it in both encodings, and gives its JSON form.
fn round_trip<M>(name: &str, encoding: Encoding, bytes: &[u8]) -> Value
where
    M: ReflectMessage + prost::Message + Default + PartialEq,
{
    let message: M = encoding
        .decode(bytes)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    for through in [Encoding::Json, Encoding::Protobuf] {
        let again: M = through
            .decode(&through.encode(&message))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        match through {
            Encoding::Protobuf => assert!(again == message, "{name}: changed by {through:?}"),
            // The last bit of a double may change on its way through text.
            Encoding::Json => assert_eq!(
                difference(name, &codec::to_json(&again), &codec::to_json(&message)),
                None,
                "changed by {through:?}"
            ),
        }
    }
    if encoding == Encoding::Protobuf {
        assert_eq!(
            message.encoded_len(),
            bytes.len(),
            "{name}: fields that the message does not have"
        );
    }
    codec::to_json(&message)
}

fn event(recorded: &Recorded, bytes: &[u8]) -> Value {
    event_from(recorded, recorded.encoding, bytes)
}

fn event_from(recorded: &Recorded, encoding: Encoding, bytes: &[u8]) -> Value {
    let name = &recorded.name;
    if recorded.conn.starts_with("scheduler") {
        round_trip::<pb::scheduler::Event>(name, encoding, bytes)
    } else if recorded.conn.starts_with("executor") {
        round_trip::<pb::executor::Event>(name, encoding, bytes)
    } else {
        assert!(recorded.conn.starts_with("operator"), "{name}");
        round_trip::<pb::master::Event>(name, encoding, bytes)
    }
}

/// Takes away what the recorder's protobuf library did not know: it is not in the published
/// interface.
fn forget_checkpoint(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                if name == "agent_info"
                    && let Some(info) = inner.as_object_mut()
                {
                    info.remove("checkpoint");
                }
                forget_checkpoint(inner);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(forget_checkpoint),
        _ => {}
    }
}

#[test]
fn every_recorded_event_is_read_and_written_without_loss() {
    let mut events = 0;
    let mut different = Vec::new();
    let mut cut = Vec::new();
    let streams = streams();
    assert_eq!(streams.len(), 111, "recorded streams");
    for recorded in &streams {
        let (records, is_cut) = records(&recorded.bytes, usize::MAX);
        for chunk in [1, 7, 4096] {
            assert!(
                self::records(&recorded.bytes, chunk).0 == records,
                "{}: other records in chunks of {chunk}",
                recorded.name
            );
        }
        if is_cut {
            cut.push(recorded.name.clone());
        }
        for (index, record) in records.iter().enumerate() {
            let mut ours = event(recorded, record);
            let theirs: Value = match recorded.encoding {
                Encoding::Json => serde_json::from_slice(record).expect("JSON"),
                // As the recorder's own library prints protobuf.
                Encoding::Protobuf => {
                    forget_checkpoint(&mut ours);
                    let text = recorded.expected[index].to_string();
                    let mut theirs = event_from(recorded, Encoding::Json, text.as_bytes());
                    forget_checkpoint(&mut theirs);
                    theirs
                }
            };
            let place = format!("{}[{index}]", recorded.name);
            different.extend(difference(&place, &ours, &theirs));
            events += 1;
        }
    }
    assert_eq!(different, Vec::<String>::new());
    assert!(events > 1000, "only {events} events");
    assert!(
        cut.is_empty(),
        "recordings that end inside a record: {cut:?}"
    );
}

/// Members of recorded calls that Mesos ignored, so that we may lose them: the client tried
/// out what is not, or not any more, in the interface.
const IGNORED_BY_MESOS: &[&str] = &[
    ".subscribe.force: None and Some(Bool(true))",
    ".accept.operations[0].type: None and Some(String(\"NOPE\"))",
];

/// The message that a recorded request or answer is, by where it was sent.
fn call(name: &str, path: &str, conn: &str, encoding: Encoding, bytes: &[u8]) -> Option<Value> {
    if path.contains("/api/v1/scheduler") {
        Some(round_trip::<pb::scheduler::Call>(name, encoding, bytes))
    } else if path.contains("/api/v1/executor") {
        Some(round_trip::<pb::executor::Call>(name, encoding, bytes))
    } else if path.contains("/api/v1") && conn.contains("agent") {
        Some(round_trip::<pb::agent::Call>(name, encoding, bytes))
    } else if path.contains("/api/v1") {
        Some(round_trip::<pb::master::Call>(name, encoding, bytes))
    } else {
        None
    }
}

#[test]
fn every_call_that_mesos_accepted_is_written_as_it_was_recorded() {
    let mut calls = 0;
    let mut different = Vec::new();
    for scenario in scenarios() {
        for (request, ..) in scenario.accepted() {
            let Some(json) = request.json() else {
                continue;
            };
            let place = format!("{} {} {json}", scenario.name, request.path());
            let bytes = json.to_string().into_bytes();
            let conn = &request.conn;
            let Some(ours) = call(&place, request.path(), conn, Encoding::Json, &bytes) else {
                continue;
            };
            different.extend(
                difference(&place, &ours, json)
                    .filter(|text| !IGNORED_BY_MESOS.iter().any(|known| text.ends_with(known))),
            );
            calls += 1;
        }
    }
    assert_eq!(different, Vec::<String>::new());
    assert!(calls > 800, "only {calls} calls");
}

#[test]
fn every_answer_to_an_operator_is_read_and_written_without_loss() {
    let mut answers = 0;
    let mut different = Vec::new();
    for scenario in scenarios() {
        for (request, _, body) in scenario.accepted() {
            let Some(json) = body.as_ref().and_then(|body| body.json()) else {
                continue;
            };
            if !request.path().ends_with("/api/v1") {
                continue;
            }
            let place = format!("{} {}", scenario.name, request.line["json"]["type"]);
            let bytes = json.to_string().into_bytes();
            let ours = if request.conn.contains("agent") {
                round_trip::<pb::agent::Response>(&place, Encoding::Json, &bytes)
            } else {
                round_trip::<pb::master::Response>(&place, Encoding::Json, &bytes)
            };
            different.extend(difference(&place, &ours, json));
            answers += 1;
        }
    }
    assert_eq!(different, Vec::<String>::new());
    assert!(answers > 80, "only {answers} answers");
}
