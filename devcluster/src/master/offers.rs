//! Offers: made from what the allocator proposes, returned, rescinded.

use std::collections::BTreeMap;

use mesos::pb;

use super::event::Answer;
use super::state::{MasterState, Offer, Pending, Timer};
use super::{validate, view};
use crate::ids::{AgentId, FrameworkId, OfferId};

impl MasterState {
    /// Runs the allocator where this event asked for it, and sends the offers.
    pub(super) fn allocate_pending(&mut self) {
        let candidates = std::mem::take(&mut self.pending);
        let allocations = match &candidates {
            Pending::None => return,
            Pending::Some(agents) => self.allocator.allocate(self.now, Some(agents)),
            Pending::All => self.allocator.allocate(self.now, None),
        };
        let mut events: BTreeMap<FrameworkId, Vec<pb::Offer>> = BTreeMap::new();
        for allocation in allocations {
            let connected = self
                .frameworks
                .get(&allocation.framework)
                .is_some_and(|f| f.connected());
            if !connected || !self.agents.contains_key(&allocation.agent) {
                self.allocator.recover(
                    self.now,
                    &allocation.framework,
                    &allocation.agent,
                    &allocation.resources,
                    None,
                );
                continue;
            }
            if !self.satisfies_constraints(
                &allocation.framework,
                &allocation.role,
                &allocation.agent,
            ) {
                // Kept from this framework until it changes its mind; others get their turn.
                self.allocator.recover(
                    self.now,
                    &allocation.framework,
                    &allocation.agent,
                    &allocation.resources,
                    Some(CONSTRAINT_RECHECK_SECONDS),
                );
                continue;
            }
            let id = OfferId::from(format!("{}-O{}", self.info.id, self.next_offer));
            self.next_offer += 1;
            let deadline = self.settings.offer_timeout.map(|t| self.now + t);
            if let Some(at) = deadline {
                self.timers.insert((at, Timer::Offer(id.clone())));
            }
            if let Some(framework) = self.frameworks.get_mut(&allocation.framework) {
                framework.offers.insert(id.clone());
            }
            if let Some(agent) = self.agents.get_mut(&allocation.agent) {
                agent.offers.insert(id.clone());
            }
            let offer = Offer {
                framework: allocation.framework.clone(),
                agent: allocation.agent,
                role: allocation.role,
                resources: allocation.resources,
                deadline,
            };
            let message = view::offer(self, &id, &offer);
            self.offers.insert(id, offer);
            events
                .entry(allocation.framework)
                .or_default()
                .push(message);
        }
        for (framework, offers) in events {
            let event = pb::scheduler::Event {
                r#type: Some(pb::scheduler::event::Type::Offers as i32),
                offers: Some(pb::scheduler::event::Offers { offers }),
                ..Default::default()
            };
            self.tell_scheduler(&framework, event);
        }
        self.send_inverse_offers(&candidates);
    }

    fn satisfies_constraints(&self, id: &FrameworkId, role: &str, agent: &AgentId) -> bool {
        let constraints = self
            .frameworks
            .get(id)
            .and_then(|f| f.offer_constraints.as_ref())
            .and_then(|c| c.role_constraints.get(role));
        match (constraints, self.agents.get(agent)) {
            (Some(constraints), Some(agent)) => validate::satisfied(constraints, &agent.info),
            _ => true,
        }
    }

    /// Takes an offer out of the books, without giving its resources back.
    pub(super) fn take_offer(&mut self, id: &OfferId) -> Option<Offer> {
        let offer = self.offers.remove(id)?;
        if let Some(framework) = self.frameworks.get_mut(&offer.framework) {
            framework.offers.remove(id);
        }
        if let Some(agent) = self.agents.get_mut(&offer.agent) {
            agent.offers.remove(id);
        }
        Some(offer)
    }

    /// An offer comes back and its resources are free again.
    pub(super) fn discard_offer(&mut self, id: &OfferId, refuse_seconds: Option<f64>) {
        if let Some(offer) = self.take_offer(id) {
            self.allocator.recover(
                self.now,
                &offer.framework,
                &offer.agent,
                &offer.resources,
                refuse_seconds,
            );
        }
    }

    /// A framework declines one of its offers.
    pub(super) fn return_offer(&mut self, framework: &FrameworkId, id: &OfferId, refuse: f64) {
        match self.offers.get(id) {
            Some(offer) if offer.framework == *framework => self.discard_offer(id, Some(refuse)),
            _ => tracing::debug!(%framework, offer = %id, "a decline is ignored: no such offer"),
        }
    }

    /// Takes an offer back and tells its framework.
    pub(super) fn rescind(&mut self, id: &OfferId) {
        let Some(offer) = self.offers.get(id) else {
            return;
        };
        let framework = offer.framework.clone();
        self.discard_offer(id, None);
        let event = pb::scheduler::Event {
            r#type: Some(pb::scheduler::event::Type::Rescind as i32),
            rescind: Some(pb::scheduler::event::Rescind {
                offer_id: id.to_pb(),
            }),
            ..Default::default()
        };
        self.tell_scheduler(&framework, event);
    }

    /// All offers of a framework are void; it is not told (it is gone, or has to know).
    pub(super) fn drop_offers_of(&mut self, id: &FrameworkId) {
        let offers: Vec<_> = match self.frameworks.get(id) {
            Some(framework) => framework.offers.iter().cloned().collect(),
            None => return,
        };
        for offer in offers {
            self.discard_offer(&offer, None);
        }
    }

    /// All offers of an agent are void; their frameworks are told.
    pub(super) fn rescind_offers_of(&mut self, id: &AgentId) {
        let offers: Vec<_> = match self.agents.get(id) {
            Some(agent) => agent.offers.iter().cloned().collect(),
            None => return,
        };
        for offer in offers {
            self.rescind(&offer);
        }
    }

    /// Whether the offers of an ACCEPT can be used together; an error in Mesos' words.
    pub(super) fn check_offers(
        &self,
        framework: &FrameworkId,
        ids: &[OfferId],
    ) -> Result<(), String> {
        if ids.is_empty() {
            return Err("No offers specified".to_owned());
        }
        for (i, id) in ids.iter().enumerate() {
            if ids[..i].contains(id) {
                return Err(format!("Duplicate offer {id} in offer list"));
            }
        }
        let mut offers = Vec::with_capacity(ids.len());
        for id in ids {
            match self.offers.get(id) {
                Some(offer) => offers.push((id, offer)),
                None => return Err(format!("Offer {id} is no longer valid")),
            }
        }
        for (id, offer) in &offers {
            if offer.framework != *framework {
                return Err(format!(
                    "Offer {id} has invalid framework {} while framework {framework} is expected",
                    offer.framework
                ));
            }
        }
        let (_, first) = offers[0];
        for (id, offer) in &offers {
            if offer.role != first.role {
                // The quotation marks are as unbalanced as Mesos' own.
                return Err(format!(
                    "Aggregated offers must be allocated to the same role. Offer {id} uses role \
                     '{} but another is using role '{}",
                    offer.role, first.role
                ));
            }
        }
        for (id, offer) in &offers {
            if offer.agent != first.agent {
                return Err(format!(
                    "Aggregated offers must belong to one single agent. Offer {id} uses agent {} \
                     and agent {}",
                    offer.agent, first.agent
                ));
            }
        }
        Ok(())
    }

    /// An operation that is not implemented is refused where the framework asked to hear of it.
    pub(super) fn refuse_operation(
        &mut self,
        framework: &FrameworkId,
        agent: Option<&AgentId>,
        operation: &pb::offer::Operation,
        why: String,
    ) -> Answer {
        tracing::warn!(%framework, operation = operation.r#type().as_str_name(), why,
            "an operation is refused");
        if let Some(id) = &operation.id {
            let status = pb::OperationStatus {
                operation_id: Some(id.clone()),
                state: pb::OperationState::OperationError as i32,
                message: Some(why),
                agent_id: agent.map(AgentId::to_pb),
                ..Default::default()
            };
            self.operation_status(framework, status);
        }
        Answer::Accepted
    }
}

/// How long an agent that breaks a framework's constraints is not proposed to it again. Its
/// attributes change only when it registers anew, which lifts nothing, so this is also how
/// late such a change is seen.
const CONSTRAINT_RECHECK_SECONDS: f64 = 60.0;
