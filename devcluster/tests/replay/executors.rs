//! The same recordings with a real agent: the recorded executors call it, and all that it
//! answers and tells them is compared, as is what comes of it at the scheduler.

use serde_json::Value;

use crate::node::Node;
use crate::player::{Player, is_agents};
use crate::recording::{Deed, arg};
use crate::replay_players;

/// As a wait status.
const SIGKILL: i32 = 9;

fn replay(scenario: &str, known: &[&str]) {
    // With one agent it does not matter in which order the allocator visits them.
    replay_players(scenario, known, 1, |seed| {
        Player::new(scenario, seed, false).with_real_agent()
    });
}

#[test]
fn executors_in_json_and_protobuf_are_served_as_recorded() {
    replay("04a-executor-basic", &[]);
}

#[test]
fn calls_that_no_executor_should_make_are_answered_as_recorded() {
    replay("04d-executor-api-errors", &[]);
}

#[test]
fn executors_that_subscribe_again_are_served_as_recorded() {
    // In which order the recorded master rescinded two offers is that of a hash table.
    replay(
        "04e-executor-resubscribe",
        &["  22.816 \"scheduler\": \"RESCIND\""],
    );
}

#[test]
fn ends_of_executors_are_told_as_recorded() {
    // Fetching is the containers' matter, and they are the recording's here.
    replay(
        "04c-executor-exits",
        &["recorded \"REASON_CONTAINER_LAUNCH_FAILED\""],
    );
}

#[test]
fn executors_that_share_an_id_are_served_as_recorded() {
    replay("04b-executorinfo-mismatch", &[]);
}

#[test]
fn executors_whose_scheduler_does_not_come_back_are_shut_down_as_recorded() {
    // As without a real agent: the recorded client asked in the millisecond between the end of
    // its stream and the removal of its framework.
    replay("08c-failover-timeout", &["\"scheduler-zero\""]);
}

impl Player {
    /// With a real agent, and executors that call it as the recorded ones did.
    pub fn with_real_agent(mut self) -> Self {
        let start = |e: &&Value| {
            e["text"]
                .as_str()
                .is_some_and(|t| t.starts_with("start agent"))
        };
        let start = self.entries.iter().find(start).expect("an agent");
        let node = Node::new(start, self.work_dir.path(), &self.clock);
        for (flag, here) in node.directories() {
            self.ids
                .learn(arg(start, flag).unwrap(), here.to_str().unwrap());
        }
        self.node = Some(node);
        // What it reports is its own matter; the ends of its executors are not.
        self.deeds.retain(|(_, deed)| matches!(deed, Deed::Exit(_)));
        self
    }

    /// An executor has ended, as the scheduler was told: by force if the agent wanted it.
    pub(crate) fn node_hears_of_end(&mut self, entry: &Value, executor: &str, status: i32) {
        let Some(node) = &mut self.node else { return };
        let killed = node.was_killed(executor);
        node.noticed(executor, status);
        if killed != (status == SIGKILL) {
            self.differs(
                entry,
                &format!("status {status}, and here killed: {killed}"),
            );
        }
    }

    /// What happened to a real agent and the processes of its executors. Whether it is that.
    pub(crate) fn node_note(&mut self, entry: &Value, text: &str) -> bool {
        let master = self.master.clone();
        let Some(node) = &mut self.node else {
            return false;
        };
        let conn = entry["conn"].as_str().unwrap();
        let executor = conn.trim_start_matches("executor-").trim_end_matches(".pb");
        if text.starts_with("start agent") {
            node.start(&master);
        } else if text.starts_with("kill agent") {
            node.kill();
            self.connections.retain(|conn, _| !is_agents(conn));
        } else if text.starts_with("executor process started") {
            let pid = entry["ids"][3].as_u64().unwrap();
            node.launched(executor, u32::try_from(pid).unwrap());
        } else if text == "executor closes its subscribe connection" {
            self.connections.remove(conn);
        } else if text.starts_with("executor kills itself") {
            node.kills_itself(executor);
        } else if let Some(status) = text.strip_prefix("executor exits with ") {
            // The agent notices when the scheduler hears of it, if it does.
            let told = |(_, deed): &(f64, Deed)| {
                let Deed::Exit(entry) = deed else {
                    return false;
                };
                entry.pointer("/json/failure/executor_id/value") == Some(&executor.into())
            };
            if !self.deeds.iter().any(told) {
                node.exited(executor, status.parse::<i32>().unwrap() << 8);
            }
        } else {
            return false;
        }
        true
    }
}
