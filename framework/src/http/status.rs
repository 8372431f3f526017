//! What `/v1/health` shows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use packaging::install::rolling::Progress;
use serde::Serialize;

/// After so long without a beat the scheduling loop is said to hang. Calls of the API server
/// and of Mesos run beside the loop, so nothing in it takes longer than milliseconds.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It has started and waits for the API server or the election.
    #[default]
    Starting,
    /// Another instance leads.
    Standby,
    /// It leads.
    Leader,
}

/// The state of an instance, as far as operators may want to know it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// Where this instance stands.
    pub role: Role,
    /// Who leads, as far as is known.
    pub leader: Option<String>,
    /// The Mesos framework id.
    pub framework_id: Option<String>,
    /// The leading Mesos master, if connected.
    pub mesos_master: Option<String>,
    /// Whether there is a subscription with Mesos.
    pub connected: bool,
    /// Whether it is known which tasks exist.
    pub recovered: bool,
    /// Active agents.
    pub agents: usize,
    /// Offers held.
    pub offers: usize,
    /// Tasks that are not known to have ended.
    pub tasks: usize,
    /// Pods that wait, by state.
    pub pods: BTreeMap<&'static str, usize>,
    /// Nodes by phase.
    pub nodes: BTreeMap<&'static str, usize>,
    /// How far nodes are on their way to the wanted revision, and whether that is paused; once it is
    /// known which run.
    pub rollout: Option<Progress>,
    /// The last thing that went wrong and has not been mended, in a sentence.
    pub problem: Option<String>,
    /// What somebody should look at, although everything works.
    pub warning: Option<String>,
    /// Why the framework stopped for good and waits for an operator.
    pub ended: Option<String>,
    /// When the scheduling loop last came round. `None` before it has started.
    #[serde(skip)]
    pub beat: Option<Instant>,
}

impl Status {
    /// Why the loop is said to hang; `None` while it moves, and before it has started.
    pub fn hangs(&self) -> Option<String> {
        if self.ended.is_some() {
            return self.ended.clone();
        }
        let silent = self.beat?.elapsed();
        (silent > HANGS_AFTER).then(|| {
            format!(
                "the scheduling loop has not moved for {} s",
                silent.as_secs()
            )
        })
    }
}
