//! Maintenance of machines: the schedule, machines that drain and machines that are down, inverse
//! offers.
//!
//! An operator plans outages of machines, which are named by host name and address and need not
//! have an agent. From then on offers of their agents carry the outage, and frameworks that hold
//! something there get inverse offers: once, and again after each answer as soon as the answer's
//! filter ends. Mesos only asks; nothing is done to a task before the operator says that a machine
//! is DOWN, and then its agents are shut down, and may not come back before it is UP again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesos::pb;
use mesos::pb::allocator::InverseOfferStatus;
use mesos::pb::allocator::inverse_offer_status::Status;
use mesos::pb::maintenance::{ClusterStatus, Schedule, cluster_status};
use serde::{Deserialize, Serialize};

use super::event::Answer;
use super::loss::Loss;
use super::state::{Agent, MasterState, Pending, Timer};
use super::view;
use crate::allocator::refuse_duration;
use crate::clock::Time;
use crate::ids::{AgentId, FrameworkId, OfferId};

/// A machine as schedules name it. Host names compare without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Machine {
    /// In lower case; may be empty.
    hostname: String,
    /// May be empty, but not both.
    ip: String,
}

/// Where a machine of the schedule is; one that is UP is in no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Its outage is planned.
    Draining,
    /// Its outage is under way.
    Down,
}

/// An inverse offer that is not answered.
#[derive(Debug)]
pub(super) struct Outstanding {
    framework: FrameworkId,
    agent: AgentId,
    unavailability: pb::Unavailability,
    deadline: Option<Time>,
}

/// What is known of inverse offers. All of it is void after a restart, as in Mesos.
#[derive(Debug, Default)]
pub(super) struct InverseOffers {
    outstanding: BTreeMap<OfferId, Outstanding>,
    /// Until when a framework is not asked for an agent's resources again.
    filters: BTreeMap<(AgentId, FrameworkId), Time>,
    /// The last answers.
    statuses: BTreeMap<AgentId, BTreeMap<FrameworkId, InverseOfferStatus>>,
}

impl Machine {
    fn of(id: &pb::MachineId) -> Self {
        Self {
            hostname: id.hostname().to_lowercase(),
            ip: id.ip().to_owned(),
        }
    }

    /// The machine of an agent.
    pub(super) fn of_agent(hostname: &str, ip: &str) -> Self {
        Self {
            hostname: hostname.to_lowercase(),
            ip: ip.to_owned(),
        }
    }

    /// As Mesos names it in errors.
    pub(super) fn shown(id: &pb::MachineId) -> String {
        crate::http::json::print(id).to_string()
    }
}

fn check_machine(id: &pb::MachineId) -> Result<(), String> {
    if id.hostname().is_empty() && id.ip().is_empty() {
        return Err("Both 'hostname' and 'ip' for a machine are empty".to_owned());
    }
    if !id.ip().is_empty() && id.ip().parse::<std::net::Ipv4Addr>().is_err() {
        return Err(format!("Failed to parse the IP: {}", id.ip()));
    }
    Ok(())
}

/// Checks a list of machines that are named once each.
fn check_machines<'a>(
    ids: impl IntoIterator<Item = &'a pb::MachineId>,
    seen: &mut BTreeSet<Machine>,
) -> Result<(), String> {
    for id in ids {
        check_machine(id)?;
        if !seen.insert(Machine::of(id)) {
            return Err(format!(
                "Machine '{}' appears more than once in the schedule",
                Machine::shown(id)
            ));
        }
    }
    Ok(())
}

/// Checks a schedule. Machines that are down must stay in it.
fn check_schedule(schedule: &Schedule, down: &BTreeMap<Machine, Mode>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for window in &schedule.windows {
        if window.machine_ids.is_empty() {
            return Err("List of machines in the maintenance window is empty".to_owned());
        }
        let duration = window.unavailability.duration.as_ref();
        if duration.is_some_and(|duration| duration.nanoseconds < 0) {
            return Err("Unavailability 'duration' is negative".to_owned());
        }
        check_machines(&window.machine_ids, &mut seen)?;
    }
    for (machine, mode) in down {
        if *mode == Mode::Down && !seen.contains(machine) {
            return Err(format!(
                "Machine '{}' is deactivated and cannot be removed from the schedule",
                Machine::shown(&pb::MachineId {
                    hostname: Some(machine.hostname.clone()),
                    ip: Some(machine.ip.clone()),
                })
            ));
        }
    }
    Ok(())
}

impl Agent {
    fn machine(&self) -> Machine {
        Machine::of_agent(&self.info.hostname, &self.ip)
    }
}

impl MasterState {
    /// When the agent's machine will not be there.
    pub(super) fn unavailability_of(&self, agent: &Agent) -> Option<&pb::Unavailability> {
        let machine = agent.machine();
        let windows = &self.registry.schedule.windows;
        let window = windows
            .iter()
            .find(|w| w.machine_ids.iter().any(|id| Machine::of(id) == machine))?;
        Some(&window.unavailability)
    }

    /// The machine of the schedule that an agent is on.
    pub(super) fn scheduled_machine(&self, agent: &Agent) -> Option<&pb::MachineId> {
        let machine = agent.machine();
        let windows = self.registry.schedule.windows.iter();
        windows
            .flat_map(|w| &w.machine_ids)
            .find(|id| Machine::of(id) == machine)
    }

    pub(super) fn is_down(&self, machine: &Machine) -> bool {
        self.registry.machines.get(machine) == Some(&Mode::Down)
    }

    fn agents_on(&self, machines: &BTreeSet<Machine>) -> Vec<AgentId> {
        self.agents
            .iter()
            .filter(|(_, agent)| machines.contains(&agent.machine()))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// UPDATE_MAINTENANCE_SCHEDULE: a whole new schedule.
    pub(super) fn update_schedule(&mut self, schedule: Schedule) -> Answer {
        if let Err(error) = check_schedule(&schedule, &self.registry.machines) {
            return Answer::bad_request(error);
        }
        let before = std::mem::take(&mut self.registry.machines);
        let machines = schedule.windows.iter().flat_map(|w| &w.machine_ids);
        self.registry.machines = machines
            .map(|id| {
                let machine = Machine::of(id);
                let mode = before.get(&machine).copied().unwrap_or(Mode::Draining);
                (machine, mode)
            })
            .collect();
        self.registry.schedule = schedule;
        self.save();
        // Mesos does this to every agent, also to those that no schedule has ever named; those
        // that are new in the schedule come last.
        let is_new = |state: &Self, id: &AgentId| {
            let machine = state.agents.get(id).map(Agent::machine);
            machine.is_some_and(|m| {
                !before.contains_key(&m) && state.registry.machines.contains_key(&m)
            })
        };
        let mut agents: Vec<AgentId> = self.agents.keys().cloned().collect();
        // In what order Mesos does it is a matter of a hash table.
        agents.sort_by_key(|id| (is_new(self, id), std::cmp::Reverse(id.clone())));
        for id in agents {
            self.rescind_offers_of(&id);
            self.rescind_inverse_offers_of(&id);
            self.inverse.filters.retain(|(agent, _), _| *agent != id);
            if self
                .agents
                .get(&id)
                .is_some_and(|agent| self.unavailability_of(agent).is_none())
            {
                self.inverse.statuses.remove(&id);
            }
            self.allocate_agent(&id);
        }
        Answer::Ok
    }

    /// START_MAINTENANCE: machines go down.
    pub(super) fn machines_down(&mut self, ids: &[pb::MachineId]) -> Answer {
        let machines = match self.machines_in(ids, Mode::Draining, "DRAINING", "down") {
            Ok(machines) => machines,
            Err(error) => return Answer::bad_request(error),
        };
        for machine in &machines {
            self.registry.machines.insert(machine.clone(), Mode::Down);
        }
        self.save();
        for id in self.agents_on(&machines) {
            let hostname = self.agents.get(&id).map(|a| a.info.hostname.clone());
            let message = format!(
                "Agent {} removed: {}",
                hostname.unwrap_or_default(),
                super::loss::MACHINE_DOWN
            );
            self.lose_agent(&id, Loss::Down, &message);
        }
        Answer::Ok
    }

    /// STOP_MAINTENANCE: machines are up again, and in no schedule any more.
    pub(super) fn machines_up(&mut self, ids: &[pb::MachineId]) -> Answer {
        let machines = match self.machines_in(ids, Mode::Down, "DOWN", "up") {
            Ok(machines) => machines,
            Err(error) => return Answer::bad_request(error),
        };
        self.registry.machines.retain(|m, _| !machines.contains(m));
        let windows = &mut self.registry.schedule.windows;
        for window in windows.iter_mut() {
            window
                .machine_ids
                .retain(|id| !machines.contains(&Machine::of(id)));
        }
        windows.retain(|window| !window.machine_ids.is_empty());
        self.save();
        Answer::Ok
    }

    /// Checks that all of these are in the schedule and in `mode`.
    fn machines_in(
        &self,
        ids: &[pb::MachineId],
        mode: Mode,
        name: &str,
        wanted: &str,
    ) -> Result<BTreeSet<Machine>, String> {
        if ids.is_empty() {
            return Err("List of machines is empty".to_owned());
        }
        let mut machines = BTreeSet::new();
        check_machines(ids, &mut machines)?;
        for id in ids {
            match self.registry.machines.get(&Machine::of(id)) {
                None => {
                    return Err(format!(
                        "Machine '{}' is not part of a maintenance schedule",
                        Machine::shown(id)
                    ));
                }
                Some(is) if *is != mode => {
                    return Err(format!(
                        "Machine '{}' is not in {name} mode and cannot be brought {wanted}",
                        Machine::shown(id)
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(machines)
    }

    /// GET_MAINTENANCE_STATUS.
    pub(super) fn maintenance_status(&self) -> ClusterStatus {
        let mut status = ClusterStatus::default();
        let scheduled = self.registry.schedule.windows.iter();
        for id in scheduled.flat_map(|w| &w.machine_ids) {
            let machine = Machine::of(id);
            if self.is_down(&machine) {
                status.down_machines.push(id.clone());
                continue;
            }
            let agents = self.agents_on(&BTreeSet::from([machine]));
            let statuses = agents
                .iter()
                .filter_map(|agent| self.inverse.statuses.get(agent))
                .flat_map(BTreeMap::values);
            status
                .draining_machines
                .push(cluster_status::DrainingMachine {
                    id: id.clone(),
                    statuses: statuses.cloned().collect(),
                });
        }
        status
    }

    /// Asks the frameworks that hold something of these agents for it, where an outage is planned.
    pub(super) fn send_inverse_offers(&mut self, candidates: &Pending) {
        if self.registry.schedule.windows.is_empty() {
            return;
        }
        let is_candidate = |id: &AgentId| match candidates {
            Pending::None => false,
            Pending::Some(ids) => ids.contains(id),
            Pending::All => true,
        };
        let now = self.now;
        self.inverse.filters.retain(|_, until| *until > now);
        let mut wanted: Vec<(FrameworkId, AgentId, pb::Unavailability)> = Vec::new();
        for (id, agent) in self
            .agents
            .iter()
            .filter(|(id, a)| a.active() && is_candidate(id))
        {
            let Some(unavailability) = self.unavailability_of(agent) else {
                continue;
            };
            for framework in self.holders(agent) {
                let connected = self
                    .frameworks
                    .get(&framework)
                    .is_some_and(|f| f.connected());
                let asked = self.inverse.outstanding.values();
                let asked = asked
                    .filter(|o| o.agent == *id && o.framework == framework)
                    .count();
                let filtered = self
                    .inverse
                    .filters
                    .contains_key(&(id.clone(), framework.clone()));
                if connected && asked == 0 && !filtered {
                    wanted.push((framework, id.clone(), *unavailability));
                }
            }
        }
        let mut events: BTreeMap<FrameworkId, Vec<pb::InverseOffer>> = BTreeMap::new();
        for (framework, agent, unavailability) in wanted {
            let id = OfferId::from(format!("{}-O{}", self.info.id, self.next_offer));
            self.next_offer += 1;
            let deadline = self.settings.offer_timeout.map(|t| self.now + t);
            if let Some(at) = deadline {
                self.timers.insert((at, Timer::InverseOffer(id.clone())));
            }
            let outstanding = Outstanding {
                framework: framework.clone(),
                agent,
                unavailability,
                deadline,
            };
            let offer = self.inverse_offer(&id, &outstanding);
            self.inverse.outstanding.insert(id, outstanding);
            events.entry(framework).or_default().push(offer);
        }
        for (framework, inverse_offers) in events {
            let event = pb::scheduler::Event {
                r#type: Some(pb::scheduler::event::Type::InverseOffers as i32),
                inverse_offers: Some(pb::scheduler::event::InverseOffers { inverse_offers }),
                ..Default::default()
            };
            self.tell_scheduler(&framework, event);
        }
    }

    /// The inverse offers that a framework has to answer.
    pub(super) fn inverse_offers_to(&self, framework: &FrameworkId) -> Vec<pb::InverseOffer> {
        let outstanding = self.inverse.outstanding.iter();
        outstanding
            .filter(|(_, offer)| offer.framework == *framework)
            .map(|(id, offer)| self.inverse_offer(id, offer))
            .collect()
    }

    fn inverse_offer(&self, id: &OfferId, offer: &Outstanding) -> pb::InverseOffer {
        pb::InverseOffer {
            id: id.to_pb(),
            url: self.agents.get(&offer.agent).map(view::agent_url),
            framework_id: offer.framework.to_pb(),
            agent_id: Some(offer.agent.to_pb()),
            unavailability: offer.unavailability,
            resources: Vec::new(),
        }
    }

    /// The frameworks that have tasks, executors or offers of an agent.
    fn holders(&self, agent: &Agent) -> BTreeSet<FrameworkId> {
        let tasks = agent.tasks.iter().map(|(framework, _)| framework);
        let executors = agent.executors.keys().map(|(framework, _)| framework);
        let offers = agent.offers.iter().filter_map(|id| self.offers.get(id));
        let offers = offers.map(|offer| &offer.framework);
        tasks.chain(executors).chain(offers).cloned().collect()
    }

    /// A framework answers inverse offers. Ids that are not (any more) its own are ignored.
    pub(super) fn answer_inverse_offers(
        &mut self,
        framework: &FrameworkId,
        ids: &[pb::OfferId],
        filters: Option<&pb::Filters>,
        accepted: bool,
    ) -> Answer {
        let refuse = filters.map_or(DEFAULT_REFUSE_SECONDS, pb::Filters::refuse_seconds);
        for id in ids.iter().map(OfferId::from) {
            let own = self
                .inverse
                .outstanding
                .get(&id)
                .is_some_and(|o| o.framework == *framework);
            let Some(answered) = own.then(|| self.inverse.outstanding.remove(&id)).flatten() else {
                tracing::debug!(%framework, offer = %id, "an answer is ignored: no such inverse offer");
                continue;
            };
            let status = if accepted {
                Status::Accept
            } else {
                Status::Decline
            };
            let status = InverseOfferStatus {
                status: status as i32,
                framework_id: framework.to_pb(),
                timestamp: view::time_info(self.now),
            };
            self.inverse
                .statuses
                .entry(answered.agent.clone())
                .or_default()
                .insert(framework.clone(), status);
            if let Some(refuse) = refuse_duration(refuse).filter(|d| *d > Duration::ZERO) {
                let key = (answered.agent, framework.clone());
                let until = self.now + refuse;
                let entry = self.inverse.filters.entry(key).or_insert(until);
                *entry = until.max(*entry);
            }
        }
        Answer::Accepted
    }

    /// Inverse offers of an agent are void; their frameworks are told.
    pub(super) fn rescind_inverse_offers_of(&mut self, agent: &AgentId) {
        let offers = &self.inverse.outstanding;
        let ids: Vec<OfferId> = offers
            .iter()
            .filter(|(_, o)| o.agent == *agent)
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.rescind_inverse_offer(&id);
        }
    }

    /// `--offer_timeout` is over for one.
    pub(super) fn inverse_offer_due(&mut self, id: &OfferId, at: Time) {
        if self.inverse.outstanding.get(id).and_then(|o| o.deadline) == Some(at) {
            self.rescind_inverse_offer(id);
        }
    }

    fn rescind_inverse_offer(&mut self, id: &OfferId) {
        let Some(offer) = self.inverse.outstanding.remove(id) else {
            return;
        };
        let event = pb::scheduler::Event {
            r#type: Some(pb::scheduler::event::Type::RescindInverseOffer as i32),
            rescind_inverse_offer: Some(pb::scheduler::event::RescindInverseOffer {
                inverse_offer_id: id.to_pb(),
            }),
            ..Default::default()
        };
        self.tell_scheduler(&offer.framework, event);
    }

    /// An agent is off the books.
    pub(super) fn forget_inverse_offers_of_agent(&mut self, agent: &AgentId) {
        self.rescind_inverse_offers_of(agent);
        self.inverse.filters.retain(|(id, _), _| id != agent);
        self.inverse.statuses.remove(agent);
    }

    /// A framework is gone or disconnected: it is asked anew when it is back.
    pub(super) fn forget_inverse_offers_to(&mut self, framework: &FrameworkId) {
        let inverse = &mut self.inverse;
        inverse.outstanding.retain(|_, o| o.framework != *framework);
        inverse.filters.retain(|(_, id), _| id != framework);
    }
}

/// The default in the protocol, seconds.
const DEFAULT_REFUSE_SECONDS: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::pb::maintenance::Window;

    fn machine(hostname: &str, ip: &str) -> pb::MachineId {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        pb::MachineId {
            hostname: some(hostname),
            ip: some(ip),
        }
    }

    fn schedule(windows: &[&[pb::MachineId]]) -> Schedule {
        let window = |ids: &&[pb::MachineId]| Window {
            machine_ids: ids.to_vec(),
            unavailability: pb::Unavailability::default(),
        };
        Schedule {
            windows: windows.iter().map(window).collect(),
        }
    }

    #[test]
    fn schedules_that_make_no_sense_are_refused_in_mesos_words() {
        let none = BTreeMap::new();
        let a = machine("A.test", "10.0.0.1");
        let same = machine("a.TEST", "10.0.0.1");
        let refused = |windows: &[&[pb::MachineId]], down: &BTreeMap<Machine, Mode>| {
            check_schedule(&schedule(windows), down).unwrap_err()
        };
        assert_eq!(
            check_schedule(&schedule(&[std::slice::from_ref(&a)]), &none),
            Ok(())
        );
        assert_eq!(
            refused(&[&[]], &none),
            "List of machines in the maintenance window is empty"
        );
        assert_eq!(
            refused(&[&[machine("", "")]], &none),
            "Both 'hostname' and 'ip' for a machine are empty"
        );
        assert!(refused(&[&[machine("", "::1")]], &none).contains("::1"));
        assert_eq!(
            refused(&[std::slice::from_ref(&a), &[same]], &none),
            r#"Machine '{"hostname":"a.TEST","ip":"10.0.0.1"}' appears more than once in the schedule"#
        );
        let down = BTreeMap::from([(Machine::of(&a), Mode::Down)]);
        assert!(
            refused(&[], &down).ends_with("is deactivated and cannot be removed from the schedule")
        );
        let mut negative = schedule(&[&[a]]);
        negative.windows[0].unavailability.duration = Some(pb::DurationInfo { nanoseconds: -1 });
        assert_eq!(
            check_schedule(&negative, &none).unwrap_err(),
            "Unavailability 'duration' is negative"
        );
    }
}
