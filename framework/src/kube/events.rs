//! Kubernetes events: what users see at the end of `kubectl describe`.
//!
//! Publishing never waits and never fails; events are for people, and nothing depends on one.
//! [`Correlator`] decides, as upstream's clients do: an event that repeats counts up the one
//! that is there, many that differ only in their message are combined, and an object that
//! causes too many is limited (a burst of 25, then one in five minutes).

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use super::api::{ApiError, Retry, call};
use super::binding::PodRef;
use super::recent::Recent;

/// Objects and events that are remembered.
const REMEMBERED: usize = 4096;
/// Events that one object may cause at once, and how long each more takes (upstream's numbers).
const BURST: f64 = 25.0;
/// Seconds until one more event of the same object is let through.
const REFILL_SECONDS: f64 = 300.0;
/// So many different messages of one object and reason within [`SIMILAR_WINDOW`] are combined.
const SIMILAR: usize = 10;
/// Seconds after which a combined event may be split again.
const SIMILAR_WINDOW: i64 = 600;
/// Longest message in bytes: what the API allows for notes.
const MAX_MESSAGE: usize = 1024;
/// Events that wait to be written. More are dropped and counted.
const QUEUE: usize = 1024;
/// How often an event that could not be written is tried.
const ATTEMPTS: u32 = 4;

/// Whether an event is a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing is wrong.
    Normal,
    /// Something is.
    Warning,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A pod.
    Pod(PodRef),
    /// A node, by name and, where known, uid.
    Node {
        /// `metadata.name`.
        name: String,
        /// `metadata.uid`.
        uid: Option<String>,
    },
}

impl Subject {
    /// A Node object.
    pub fn node(node: &Node) -> Self {
        Self::Node {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone(),
        }
    }

    fn reference(&self) -> ObjectReference {
        let (kind, namespace, name, uid) = match self {
            Self::Pod(pod) => (
                "Pod",
                Some(pod.namespace.clone()),
                &pod.name,
                Some(pod.uid.clone()),
            ),
            // kubectl looks for a node's events under its uid and under its name.
            Self::Node { name, uid } => (
                "Node",
                None,
                name,
                uid.clone().or_else(|| Some(name.clone())),
            ),
        };
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            namespace,
            name: Some(name.clone()),
            uid,
            ..ObjectReference::default()
        }
    }

    fn namespace(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.namespace,
            // Where events of objects without a namespace live.
            Self::Node { .. } => "default",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.name,
            Self::Node { name, .. } => name,
        }
    }
}

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub subject: Subject,
    /// Whether it is a warning.
    pub kind: Kind,
    /// CamelCase: `Scheduled`, `FailedScheduling`, `NodeStarting`.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A new event.
    Create(Box<Event>),
    /// One that is there has repeated.
    Count {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// How often it has happened.
        count: i32,
        /// When it happened last.
        last: Timestamp,
        /// The event as a new one, should it be gone (events expire after an hour).
        again: Box<Event>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    subject: Subject,
    kind: Kind,
    reason: String,
    /// `None` for combined events.
    message: Option<String>,
}

#[derive(Debug)]
struct Seen {
    name: String,
    count: i32,
    first: Timestamp,
}

#[derive(Debug, Default)]
struct Similar {
    messages: HashSet<u64>,
    last: Option<Timestamp>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// Decides what becomes of an event. Pure: the time and the random part of names come from
/// the caller.
#[derive(Debug)]
pub struct Correlator {
    component: String,
    host: String,
    seen: Recent<Key, Seen>,
    similar: Recent<(Subject, String), Similar>,
    buckets: Recent<Subject, Bucket>,
}

impl Correlator {
    /// `component` is what `kubectl describe` shows under "From"; `host` names the instance.
    pub fn new(component: &str, host: &str) -> Self {
        Self {
            component: component.to_owned(),
            host: host.to_owned(),
            seen: Recent::new(REMEMBERED),
            similar: Recent::new(REMEMBERED),
            buckets: Recent::new(REMEMBERED),
        }
    }

    /// What to write for a note; `None` when its subject causes too many events.
    pub fn observe(&mut self, note: Note, now: Timestamp, random: u64) -> Option<Write> {
        if !self.take_token(&note.subject, now) {
            return None;
        }
        let message = cut(note.message, MAX_MESSAGE);
        let combined = self.is_one_of_many(&note.subject, &note.reason, &message, now);
        let key = Key {
            subject: note.subject,
            kind: note.kind,
            reason: note.reason,
            message: (!combined).then(|| message.clone()),
        };
        let message = if combined {
            cut(
                format!("(combined from similar events): {message}"),
                MAX_MESSAGE,
            )
        } else {
            message
        };
        let name = event_name(key.subject.name(), random);
        let fresh = || Seen {
            name,
            count: 0,
            first: now,
        };
        let seen = self.seen.entry(key.clone(), fresh);
        seen.count = seen.count.saturating_add(1);
        let (count, first, name) = (seen.count, seen.first, seen.name.clone());
        let event = Box::new(self.event(&key, message, name.clone(), count, first, now));
        if count == 1 {
            return Some(Write::Create(event));
        }
        Some(Write::Count {
            namespace: key.subject.namespace().to_owned(),
            name,
            count,
            last: now,
            again: event,
        })
    }

    fn take_token(&mut self, subject: &Subject, now: Timestamp) -> bool {
        let full = || Bucket {
            tokens: BURST,
            at: now,
        };
        let bucket = self.buckets.entry(subject.clone(), full);
        let passed = seconds_between(bucket.at, now);
        bucket.tokens = (bucket.tokens + passed / REFILL_SECONDS).min(BURST);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }

    fn is_one_of_many(
        &mut self,
        subject: &Subject,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> bool {
        let key = (subject.clone(), reason.to_owned());
        let similar = self.similar.entry(key, Similar::default);
        let quiet = similar
            .last
            .is_some_and(|last| now.as_second() - last.as_second() > SIMILAR_WINDOW);
        if quiet {
            similar.messages.clear();
        }
        similar.last = Some(now);
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let hash = hasher.finish();
        if similar.messages.len() < SIMILAR {
            similar.messages.insert(hash);
            return false;
        }
        !similar.messages.contains(&hash)
    }

    fn event(
        &self,
        key: &Key,
        message: String,
        name: String,
        count: i32,
        first: Timestamp,
        last: Timestamp,
    ) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(key.subject.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: key.subject.reference(),
            type_: Some(key.kind.as_str().to_owned()),
            reason: Some(key.reason.clone()),
            message: Some(message),
            count: Some(count),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(last)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "seconds between two events of one process"
)]
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    ((to.as_millisecond() - from.as_millisecond()).max(0) as f64) / 1_000.0
}

/// Event names are `<object>.<unique>`, and valid names themselves.
fn event_name(object: &str, random: u64) -> String {
    // 253 less the dot and sixteen digits.
    format!(
        "{}.{random:016x}",
        cut(object.to_owned(), 236).trim_end_matches(['.', '-'])
    )
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// Publishes events.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Publishes an event, or drops it when too many wait. Never blocks.
    pub fn publish(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A recorder and the notes that it publishes, for tests of callers.
    pub fn channel() -> (Self, mpsc::Receiver<Note>) {
        let (queue, notes) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { queue, dropped }, notes)
    }
}

/// Starts writing events. The task ends when all recorders are gone and everything is written.
pub fn spawn(
    client: Client,
    component: &str,
    host: &str,
) -> (Recorder, tokio::task::JoinHandle<()>) {
    let (recorder, mut notes) = Recorder::channel();
    let mut correlator = Correlator::new(component, host);
    let task = tokio::spawn(async move {
        while let Some(note) = notes.recv().await {
            if let Some(write) = correlator.observe(note, Timestamp::now(), rand::random()) {
                write_with_patience(&client, write).await;
            }
        }
    });
    (recorder, task)
}

async fn write_with_patience(client: &Client, write: Write) {
    for attempt in 1..=ATTEMPTS {
        let error = match try_write(client, &write).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if error.retry() != Retry::Later || attempt == ATTEMPTS {
            tracing::debug!(%error, "an event is lost");
            return;
        }
        let jitter = rand::random_range(0.5..1.5);
        tokio::time::sleep(Duration::from_secs(1 << attempt).mul_f64(jitter)).await;
    }
}

async fn try_write(client: &Client, write: &Write) -> Result<(), ApiError> {
    match write {
        Write::Create(event) => create(client, event).await,
        Write::Count {
            namespace,
            name,
            count,
            last,
            again,
        } => {
            let api: Api<Event> = Api::namespaced(client.clone(), namespace);
            let time = last.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let patch = json!({"count": count, "lastTimestamp": time, "message": again.message});
            let params = PatchParams::default();
            let patched = call(
                || format!("count the event {namespace}/{name}"),
                api.patch(name, &params, &Patch::Merge(&patch)),
            )
            .await;
            match patched {
                Ok(_) => Ok(()),
                Err(ApiError::NotFound { .. }) => create(client, again).await,
                Err(error) => Err(error),
            }
        }
    }
}

async fn create(client: &Client, event: &Event) -> Result<(), ApiError> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let what = || format!("create an event in namespace {namespace}");
    match call(what, api.create(&PostParams::default(), event)).await {
        // The answer to an earlier attempt was lost.
        Ok(_) | Err(ApiError::Exists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    fn note(message: &str) -> Note {
        Note {
            subject: Subject::Pod(PodRef {
                namespace: "ns".into(),
                name: "web-0".into(),
                uid: "u1".into(),
            }),
            kind: Kind::Warning,
            reason: "FailedScheduling".into(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_first_event_is_created_and_repetitions_are_counted() {
        let mut correlator = Correlator::new("default-scheduler", "agent-1");
        let Some(Write::Create(event)) = correlator.observe(note("0/1 nodes"), at(0), 0xbeef)
        else {
            panic!("not created");
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&event).unwrap());
        let Some(Write::Count {
            name, count, last, ..
        }) = correlator.observe(note("0/1 nodes"), at(5), 1)
        else {
            panic!("not counted");
        };
        assert_eq!(
            (name, count, last),
            ("web-0.000000000000beef".to_owned(), 2, at(5))
        );
        assert!(matches!(
            correlator.observe(note("0/2 nodes"), at(6), 2),
            Some(Write::Create(_))
        ));
    }

    #[test]
    fn many_messages_of_one_reason_are_combined() {
        let mut correlator = Correlator::new("default-scheduler", "agent-1");
        for number in 0..10 {
            let write = correlator.observe(note(&format!("message {number}")), at(number), 0);
            assert!(matches!(write, Some(Write::Create(_))), "{number}");
        }
        let Some(Write::Create(event)) = correlator.observe(note("message 10"), at(10), 0) else {
            panic!("not created");
        };
        assert_eq!(
            event.message.as_deref(),
            Some("(combined from similar events): message 10")
        );
        let Some(Write::Count { again, count, .. }) =
            correlator.observe(note("message 11"), at(11), 0)
        else {
            panic!("not counted");
        };
        assert_eq!(
            (again.message.as_deref(), count),
            (Some("(combined from similar events): message 11"), 2)
        );
    }

    #[test]
    fn an_object_that_causes_too_many_events_is_limited_and_recovers() {
        let mut correlator = Correlator::new("default-scheduler", "agent-1");
        let written = (0..100)
            .filter(|_| correlator.observe(note("same"), at(0), 0).is_some())
            .count();
        assert_eq!(written, 25);
        assert!(correlator.observe(note("same"), at(299), 0).is_none());
        assert!(correlator.observe(note("same"), at(301), 0).is_some());
        assert!(correlator.observe(note("same"), at(302), 0).is_none());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äöü".to_owned(), 3), "ä");
        assert_eq!(event_name(&"x".repeat(300), 1).len(), 253);
    }
}
