//! The roll-out of the nodes' revision in a simulation: the operator's orders, and what must not
//! happen while they hold.

use std::collections::BTreeSet;
use std::time::Duration;

use packaging::install::rolling::Order;

use super::{Action, Simulation};
use crate::core::Event;
use crate::core::ids::AgentId;

/// What is wanted, and what the framework knows of it.
#[derive(Debug, Default)]
pub(super) struct Rolling {
    /// As it is stored.
    pub order: Order,
    /// As this framework has heard it.
    pub heard: Order,
    /// Whom this framework has asked while it was allowed to.
    pub begun: BTreeSet<AgentId>,
    orders: u32,
    revisions: u32,
}

impl Simulation {
    /// An operator pauses the roll-out, or lets it go on.
    pub fn order(&mut self, pause: bool) {
        self.rolling.orders += 1;
        self.rolling.order = Order {
            id: format!("order-{}", self.rolling.orders),
            paused_since: pause.then(|| "now".to_owned()),
        };
        let action = Action::Hear {
            incarnation: self.world.incarnation,
            connection: None,
            event: Box::new(Event::Rollout(self.rolling.order.clone())),
        };
        // As long as the framework may take to look.
        let after = self.world.millis(1..2000);
        self.world.at(after, action);
    }

    /// The framework is started again and wants another revision of its nodes.
    pub fn upgrade(&mut self) {
        self.rolling.revisions += 1;
        self.config.revision = Some(format!("r{}", self.rolling.revisions));
        self.mesos.revision = format!("r{}", self.rolling.revisions);
        self.framework = None;
        self.world.connected = false;
        self.world.incarnation += 1;
        self.world.at(Duration::from_millis(100), Action::Start);
    }

    /// How many nodes that are Ready have the wanted revision, and how many there are.
    pub fn rolled_out(&self) -> (usize, usize) {
        self.mesos.rolled_out()
    }

    pub(super) fn another_revision(&mut self) {
        let rolls = self.config.revision.is_some();
        if rolls && self.world.chance(self.world.faults.revision) {
            self.rolling.revisions += 1;
            self.config.revision = Some(format!("r{}", self.rolling.revisions));
        }
        let revision = self.config.revision.clone();
        self.mesos.revision = revision.unwrap_or_default();
    }

    /// The framework asks an agent's node.
    pub(super) fn revises(&mut self, agent: AgentId) {
        if self.rolling.heard.paused_since.is_none() {
            self.rolling.begun.insert(agent);
        } else if !self.rolling.begun.contains(&agent) {
            self.world
                .violation(format!("the node of {agent} was taken during a pause"));
        }
    }

    pub(super) fn not_rolled_out(&self) -> Vec<String> {
        if self.config.revision.is_none() {
            return Vec::new();
        }
        match self.mesos.rolled_out() {
            (there, all) if there == all => Vec::new(),
            (there, all) => vec![format!(
                "{there} of {all} nodes have the wanted revision: {:?}",
                self.framework.as_ref().map(|f| f.rollout_progress())
            )],
        }
    }
}
