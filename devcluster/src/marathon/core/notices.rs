//! What listeners of `/v2/events` are told.

use serde_json::{Value, json};

use super::durable::Instance;
use super::{Core, Effect};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Its type, `deployment_success`.
    pub kind: &'static str,
    /// Its document, with `eventType` and `timestamp`.
    pub data: Value,
}

impl Notice {
    /// An event with this document; type and time are filled in when it is told.
    pub fn new(kind: &'static str, data: Value) -> Self {
        Self { kind, data }
    }
}

impl Core {
    pub(in crate::marathon) fn notify(&mut self, mut notice: Notice) {
        notice.data["eventType"] = notice.kind.into();
        notice.data["timestamp"] = json!(self.timestamp());
        self.effect(Effect::Notify(notice));
    }

    /// `instance_changed_event`; `condition` as Marathon names it.
    pub(super) fn notify_instance(&mut self, instance: &Instance, condition: &str) {
        let agent = instance.agent.as_ref();
        let data = json!({
            "instanceId": instance.id,
            "condition": condition,
            "goal": format!("{:?}", instance.goal),
            "runSpecId": instance.app,
            "agentId": agent.map(|a| &a.id),
            "host": agent.map(|a| &a.host),
            "runSpecVersion": instance.version,
        });
        self.notify(Notice::new("instance_changed_event", data));
    }
}
