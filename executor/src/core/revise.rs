//! Brings the node to another revision under its running pods: other programs, other options, or
//! another executor.
//!
//! ```text
//! (none) --Revise--> Fetching --Fetched: nothing differs--> (none), InPlace
//!   Fetching --failed--> (none), Failed
//!   Fetching --Fetched: the executor differs--> Replacing --exec--> (none), in the successor
//!     Replacing --exec failed--> (none), Failed
//!   Fetching --Fetched: the node differs--> Restarting --Ready--> (none), InPlace
//!     Restarting --NodeEvent::Failed--> RollingBack --Ready, Failed--> (none), Failed
//! ```
//!
//! The executor comes first, so that a payload is always started by the executor that belongs to
//! it. The successor begins anew when it is asked again, since its predecessor may not have
//! understood everything. The framework repeats its wish until it hears the outcome, so none of
//! this is lost for good.

use super::event::Effect;
use super::{Core, NodeState};
use seam::message::{RevisionState, ToFramework};
use seam::node::{NodeConfig, Revision};

/// A revision that is under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Revising {
    digest: String,
    pub(super) revision: Box<Revision>,
    pub(super) stage: Stage,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    /// Payload and program are being fetched.
    Fetching,
    /// The executor is about to replace itself.
    Replacing,
    /// The node half starts again, its components with it where they changed.
    Restarting {
        /// What the node was.
        before: Box<NodeConfig>,
    },
    /// That did not work, and the node becomes what it was.
    RollingBack {
        /// What did not work.
        why: String,
    },
}

/// What fetching has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The executor's program is another one than this, and lies beside it.
    pub program_differs: bool,
}

impl Core {
    /// The framework wants the node to be of that revision.
    pub(super) fn revise(
        &mut self,
        digest: String,
        revision: Box<Revision>,
        out: &mut Vec<Effect>,
    ) {
        // While it comes up or goes it is no time for that; the framework asks again.
        if self.state != NodeState::Up || self.ending.is_some() {
            return;
        }
        if let Some(under_way) = &self.revising {
            if digest == under_way.digest {
                out.push(tell(digest, RevisionState::Working));
            }
            // Another one has to wait for this one's end.
            return;
        }
        out.push(Effect::Fetch(revision.clone()));
        self.revising = Some(Revising {
            digest,
            revision,
            stage: Stage::Fetching,
        });
    }

    /// Everything is here, or cannot be had.
    pub(super) fn fetched(&mut self, outcome: Result<Fetched, String>, out: &mut Vec<Effect>) {
        let Some(revising) = self.revising.as_mut() else {
            return;
        };
        if revising.stage != Stage::Fetching {
            return;
        }
        match outcome {
            Err(message) => self.not_revised(message, out),
            Ok(Fetched {
                program_differs: true,
            }) => {
                out.push(tell(revising.digest.clone(), RevisionState::Working));
                revising.stage = Stage::Replacing;
                out.push(Effect::ReplaceExecutor);
            }
            Ok(Fetched {
                program_differs: false,
            }) => self.restart_for_revision(out),
        }
    }

    /// The executor could not replace itself.
    pub(super) fn not_replaced(&mut self, message: String, out: &mut Vec<Effect>) {
        let replacing = self
            .revising
            .as_ref()
            .is_some_and(|revising| revising.stage == Stage::Replacing);
        if replacing {
            self.not_revised(message, out);
        }
    }

    /// Starts the node half again where its part of the revision differs.
    fn restart_for_revision(&mut self, out: &mut Vec<Effect>) {
        let (Some(revising), Some(node)) = (self.revising.as_mut(), self.node.as_mut()) else {
            return;
        };
        let after = node.config.revised(&revising.revision);
        if after.revision().digest() == node.config.revision().digest() {
            // Only places have moved.
            node.config = after;
            self.revised(out);
            return;
        }
        out.push(tell(revising.digest.clone(), RevisionState::Working));
        let before = std::mem::replace(&mut node.config, after.clone());
        revising.stage = Stage::Restarting {
            before: Box::new(before),
        };
        // Until kubelet has spoken again no pod is started.
        self.node_ready = false;
        out.push(Effect::RestartNode(Box::new(after)));
    }

    /// The node half is Ready. Ends what was waiting for that.
    pub(super) fn ready_for_revision(&mut self, out: &mut Vec<Effect>) {
        match self.revising.as_mut().map(|revising| &mut revising.stage) {
            Some(Stage::Restarting { .. }) => self.revised(out),
            Some(Stage::RollingBack { why }) => {
                let why = std::mem::take(why);
                self.not_revised(why, out);
            }
            Some(Stage::Fetching | Stage::Replacing) | None => {}
        }
    }

    /// The node half could not be brought up. Returns whether that is dealt with here.
    pub(super) fn failed_for_revision(&mut self, told: &str, out: &mut Vec<Effect>) -> bool {
        let (Some(revising), Some(node)) = (self.revising.as_mut(), self.node.as_mut()) else {
            return false;
        };
        match &mut revising.stage {
            Stage::Restarting { before } => {
                node.config = (**before).clone();
                // Where the API servers are is the newer knowledge.
                let servers = &revising.revision.cluster.api_servers;
                node.config.cluster.api_servers.clone_from(servers);
                revising.stage = Stage::RollingBack {
                    why: told.to_owned(),
                };
                out.push(Effect::RestartNode(Box::new(node.config.clone())));
                true
            }
            // Nor does the former one work (any more): the ordinary way with its back-off.
            Stage::RollingBack { why } => {
                let message =
                    format!("{why}; and what it was before does not start either: {told}");
                self.not_revised(message, out);
                false
            }
            Stage::Fetching | Stage::Replacing => false,
        }
    }

    fn revised(&mut self, out: &mut Vec<Effect>) {
        if let Some(revising) = self.revising.take() {
            out.push(Effect::ForgetFormer);
            out.push(tell(revising.digest, RevisionState::InPlace));
        }
    }

    fn not_revised(&mut self, message: String, out: &mut Vec<Effect>) {
        if let Some(revising) = self.revising.take() {
            out.push(Effect::ForgetFormer);
            let state = RevisionState::Failed { message };
            out.push(tell(revising.digest, state));
        }
    }
}

fn tell(digest: String, state: RevisionState) -> Effect {
    Effect::Tell(ToFramework::Revision { digest, state })
}
