//! What the recorded agents did, done by the played ones.

use mesos::pb;
use serde_json::Value;

use crate::agent::PlayedAgent;
use crate::player::Player;
use crate::recording::Deed;

impl Player {
    pub(crate) fn agent_of(&mut self, event: &Value, path: &str) -> Option<&mut PlayedAgent> {
        let id = event.pointer(path)?["value"].as_str()?.to_owned();
        self.agents
            .values_mut()
            .find(|a| a.id.as_ref().is_some_and(|a| a.value == id))
    }

    pub(crate) fn framework_of(&self, conn: &str) -> String {
        self.ids
            .translate(self.frameworks.get(conn).map_or("", String::as_str))
    }

    pub(crate) fn perform(&mut self, deed: &Deed) {
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
                let (executor, status) =
                    (failure.executor_id.unwrap().value, failure.status.unwrap());
                if self.node.is_some() {
                    self.node_hears_of_end(entry, &executor, status);
                } else if let Some(agent) = self.agent_of(&event, "/failure/agent_id") {
                    agent.executor_exits(&master, &framework, &executor, status);
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
}
