//! Events of streams, compared with those that were recorded.

use std::time::Duration;

use devcluster::clock::Time;
use serde_json::{Value, json};

use crate::player::{Connection, PATIENCE, Player};
use crate::recording::Deed;
use crate::stream::decode;

impl Player {
    /// Learns what recorded ids are here.
    pub(crate) fn learn(&mut self, recorded: &Value, actual: &Value) {
        let operation = "/update_operation_status/status/uuid/value";
        if let (Some(Value::String(a)), Some(Value::String(b))) =
            (recorded.pointer(operation), actual.pointer(operation))
        {
            self.ids.learn(a, b);
        }
        // An agent draws those of its own updates and of its containers.
        for drawn in ["/update/status/uuid", "/subscribed/container_id/value"] {
            if let (Some(Value::String(a)), Some(Value::String(b))) =
                (recorded.pointer(drawn), actual.pointer(drawn))
                && a != b
            {
                self.ids.learn(a, b);
            }
        }
        let inverse = |event: &Value| {
            let offers = event.pointer("/inverse_offers/inverse_offers")?;
            Some(offers.as_array()?.clone())
        };
        let (a, b) = (inverse(recorded), inverse(actual));
        for (x, y) in a.into_iter().flatten().zip(b.into_iter().flatten()) {
            if let (Some(x), Some(y)) = (x["id"]["value"].as_str(), y["id"]["value"].as_str()) {
                self.ids.learn(x, y);
            }
        }
        let (Some(a), Some(b)) = (
            recorded.pointer("/offers/offers").and_then(Value::as_array),
            actual.pointer("/offers/offers").and_then(Value::as_array),
        ) else {
            return;
        };
        let (mut a, mut b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
        a.sort_by_key(|o| key(o));
        b.sort_by_key(|o| key(o));
        for (x, y) in a.iter().zip(&b) {
            if let (Some(x), Some(y)) = (x["id"]["value"].as_str(), y["id"]["value"].as_str()) {
                self.ids.learn(x, y);
            }
        }
    }

    pub(crate) fn event(&mut self, entry: &Value, conn: &str, t: f64) {
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
            if !heartbeat && let Some(event) = connection.take_waiting(conn, recorded) {
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
            // An executor's tasks come with the grant of its container.
            let master = self.master.clone();
            if conn.starts_with("executor")
                && self.node.as_mut().is_some_and(|node| node.grant(&master))
            {
                continue;
            }
            let deadline = self.next_deadline();
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
        let Some(mut actual) = actual else {
            return self.differs(entry, &format!("did not come: {recorded}"));
        };
        if let Some(rest) = split_offers(recorded, &mut actual)
            && let Some(connection) = self.connections.get_mut(conn)
        {
            connection.waiting.push_front(rest);
        }
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

    pub(crate) fn closed(&mut self, entry: &Value, conn: &str) {
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

/// Which offers come in one event is a matter of when the recorded allocator ran: those of `actual`
/// that `recorded` has not are taken out, and become an event of their own.
fn split_offers(recorded: &Value, actual: &mut Value) -> Option<Value> {
    let wanted = recorded.pointer("/offers/offers")?.as_array()?;
    let offers = actual.pointer_mut("/offers/offers")?.as_array_mut()?;
    if offers.len() <= wanted.len() {
        return None;
    }
    let (kept, rest): (Vec<Value>, Vec<Value>) = std::mem::take(offers)
        .into_iter()
        .partition(|offer| wanted.iter().any(|w| key(w) == key(offer)));
    *offers = kept;
    (!rest.is_empty()).then(|| json!({"type": "OFFERS", "offers": {"offers": rest}}))
}

impl Connection {
    /// The first event that waits, for a scheduler. An executor's acknowledgements come as
    /// soon as its agent has stored the updates, wherever that is among its other events: the
    /// first that is one, or is none, as recorded.
    fn take_waiting(&mut self, conn: &str, recorded: &Value) -> Option<Value> {
        let acknowledges = |event: &Value| event["type"] == "ACKNOWLEDGED";
        let fits =
            |e: &Value| !conn.starts_with("executor") || acknowledges(e) == acknowledges(recorded);
        let at = self.waiting.iter().position(fits)?;
        self.waiting.remove(at)
    }
}

fn key(offer: &Value) -> (String, String) {
    let text = |name: &str| offer[name].to_string();
    (text("hostname"), text("allocation_info"))
}
