//! A recording: what is in it, and what can be told from it about those who were not recorded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use devcluster::clock::{Clock, ManualClock};
use devcluster::master::auth::{Acls, Authentication};
use devcluster::master::{Master, MasterConfig};
use serde_json::Value;

/// Something that a recorded agent or executor did, in the words of the recording.
pub enum Deed {
    Report(Value),
    Exit(Value),
    Say(Value),
    /// An agent finds the restarted master.
    Return(Value),
}

pub fn arg<'a>(entry: &'a Value, name: &str) -> Option<&'a str> {
    let prefix = format!("--{name}=");
    entry["args"]
        .as_array()?
        .iter()
        .find_map(|a| a.as_str()?.strip_prefix(&prefix))
}

pub fn duration(text: &str) -> Duration {
    let seconds = text.strip_suffix("secs").expect("flags are in seconds");
    Duration::from_secs_f64(seconds.parse().unwrap())
}

/// Those of the recorded masters; the file itself was not recorded.
const CREDENTIALS: &str = "golden s3cret\nother pw\n";

/// Starts a master as the recorded one was started.
pub fn start_master(entry: &Value, work_dir: &Path, clock: &ManualClock, seed: u64) -> Master {
    let ip: IpAddr = arg(entry, "ip").unwrap().parse().unwrap();
    let port: u16 = arg(entry, "port").unwrap().parse().unwrap();
    let mut config = MasterConfig::new((ip, port).into(), work_dir);
    config.clock = Clock::Manual(clock.clone());
    config.hostname = arg(entry, "hostname").map(str::to_owned);
    config.cluster = arg(entry, "cluster").map(str::to_owned);
    config.domain = arg(entry, "domain")
        .map(|json| mesos::codec::from_json(&serde_json::from_str(json).unwrap()).unwrap());
    // The recorded master's rounds are 1.002 s apart: its timers start when a round ends.
    config.settings.allocator.interval = Duration::from_millis(1002);
    config.settings.allocator.seed = seed;
    config.settings.offer_timeout = arg(entry, "offer_timeout").map(duration);
    if let Some(timeout) = arg(entry, "agent_ping_timeout") {
        config.settings.agent_ping_timeout = duration(timeout);
    }
    if let Some(count) = arg(entry, "max_agent_ping_timeouts") {
        config.settings.max_agent_ping_timeouts = count.parse().unwrap();
    }
    let given = |flag: &str| {
        let flag = format!("--{flag}");
        let args = entry["args"].as_array();
        args.is_some_and(|args| args.iter().any(|a| *a == flag.as_str()))
    };
    if arg(entry, "credentials").is_some() {
        let mut authentication = Authentication::parse(CREDENTIALS).unwrap();
        authentication.frameworks = given("authenticate_http_frameworks");
        authentication.readonly = given("authenticate_http_readonly");
        authentication.readwrite = given("authenticate_http_readwrite");
        config.authentication = authentication;
    }
    if let Some(acls) = arg(entry, "acls") {
        config.settings.acls = Acls::parse(acls).unwrap();
    }
    Master::new(config, (ip, port).into()).unwrap()
}

/// A call that the recorded client sent just before it closed its stream was answered after
/// that: here it is sent after it.
pub fn reordered(entries: Vec<Value>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::with_capacity(entries.len());
    for entry in entries {
        let closes = entry["text"]
            .as_str()
            .is_some_and(|t| t.starts_with("client closes TCP"));
        if closes {
            let open = out.iter().rposition(|e| e["dir"] == "request");
            if let Some(i) = open
                && !out[i..]
                    .iter()
                    .any(|e| e["dir"] == "response-head" && e["conn"] == out[i]["conn"])
            {
                let request = out.remove(i);
                out.push(entry);
                out.push(request);
                continue;
            }
        }
        out.push(entry);
    }
    out
}

/// What agents and executors did in the recording, and when, by the events that it caused.
pub fn deeds(entries: &[Value]) -> Vec<(f64, Deed)> {
    let updates = |e: &&Value| {
        e["dir"] == "event"
            && e["conn"].as_str().unwrap().starts_with("scheduler")
            && e.pointer("/json/update/status/uuid").is_some()
    };
    // Time stamps count from 1970; the fastest update tells when the recording began.
    let stamp = |e: &Value| {
        e.pointer("/json/update/status/timestamp")
            .unwrap()
            .as_f64()
            .unwrap()
    };
    let began = entries
        .iter()
        .filter(updates)
        .map(|e| e["t"].as_f64().unwrap() - stamp(e))
        .fold(f64::INFINITY, f64::min);
    let mut out: Vec<(f64, Deed)> = Vec::new();
    let mut seen = HashMap::new();
    let mut floor = 0.0;
    for entry in entries {
        let t = entry["t"].as_f64().unwrap();
        if updates(&entry) {
            let uuid = entry
                .pointer("/json/update/status/uuid")
                .unwrap()
                .to_string();
            let conn = entry["conn"].to_string();
            if let Some((before, last)) = seen.insert(uuid, (conn.clone(), t)) {
                // Sent again, since nobody acknowledged it for a while. To a new scheduler or
                // master the agent sends it without being told here.
                if before == conn && t > last + 5.0 {
                    out.push((t, Deed::Report(entry.clone())));
                }
            } else {
                let agents =
                    entry.pointer("/json/update/status/source") == Some(&"SOURCE_AGENT".into());
                let at = stamp(entry) + began;
                out.push((
                    if agents { at.max(floor) } else { at },
                    Deed::Report(entry.clone()),
                ));
            }
        } else if entry.pointer("/json/failure/executor_id").is_some() {
            out.push((t, Deed::Exit(entry.clone())));
            // The updates that it brings come after it, though their stamps may be older.
            floor = t + 1e-6;
        } else if entry["dir"] == "event" && entry["json"]["type"] == "AGENT_ADDED" {
            // What the agent has on it was told a little before. Agents that are there already
            // take no notice.
            out.push((t - 0.003, Deed::Return(entry.clone())));
        } else if entry["dir"] == "event"
            && entry["json"]["type"] == "MESSAGE"
            && entry["conn"].as_str().unwrap().starts_with("scheduler")
        {
            out.push((t, Deed::Say(entry.clone())));
        }
    }
    out.sort_by(|a, b| a.0.total_cmp(&b.0));
    out
}

/// When in a second the recorded allocator had its rounds: offers that no call brought about.
pub fn phase(entries: &[Value]) -> f64 {
    let mut last_call = f64::NEG_INFINITY;
    for entry in entries {
        let t = entry["t"].as_f64().unwrap();
        let kind = entry.pointer("/json/type").and_then(Value::as_str);
        match (entry["dir"].as_str(), kind) {
            (Some("request"), Some("SUBSCRIBE" | "REVIVE")) => last_call = t,
            (Some("event"), Some("OFFERS")) if t > last_call + 0.05 => {
                // Rounds are 1.002 s apart, so go back to the first.
                let rounds = (t / 1.002).floor();
                return t - rounds * 1.002;
            }
            _ => {}
        }
    }
    0.0
}
