//! Offers: asking for them, using them, giving them back.

use std::collections::{BTreeMap, BTreeSet};

use mesos::pb;
use pb::offer::operation::Type as OperationType;
use pb::scheduler::call::Type;

use super::durable::{Agent, Condition, Goal, Instance};
use super::matching::{agent_of, satisfies};
use super::ports::{Pool, choose};
use super::task_info::Launch;
use super::{Core, Timer};
use crate::clock::Time;
use crate::marathon::ids::{InstanceId, PathId};
use crate::marathon::model::App;

/// Whether more offers are asked for.
#[derive(Debug, Default)]
pub(super) struct Revive {
    /// What was wanted when offers were last asked for.
    asked_for: BTreeSet<InstanceId>,
    last: Option<Time>,
    /// Whether a timer is set.
    pub waiting: bool,
    suppressed: bool,
}

/// Why an offer is of no use to an app; as `/v2/queue` names it.
pub(super) type Reason = &'static str;

/// How long an offer is kept away that something waiting could not use: until freed resources
/// have changed it.
const SHORT_DECLINE_SECONDS: f64 = 1.0;

impl Core {
    /// Instances that could be launched now, oldest first.
    fn launchable(&self) -> Vec<InstanceId> {
        let mut list: Vec<&Instance> = self
            .durable
            .all_instances()
            .filter(|i| i.goal == Goal::Running && i.condition == Condition::Scheduled)
            .filter(|i| {
                let app = self.durable.root.apps.get(&i.app);
                app.is_some_and(|app| !self.queue.is_delayed(app, self.now))
            })
            .collect();
        list.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
        list.into_iter().map(|i| i.id.clone()).collect()
    }

    /// Asks for offers when something new waits for them, and for none when nothing does.
    pub(super) fn want_offers(&mut self) {
        if !self.subscribed {
            return;
        }
        let mut wanted: BTreeSet<InstanceId> = self.launchable().into_iter().collect();
        wanted.extend(self.durable.garbage.keys().cloned());
        if wanted.is_empty() {
            self.revive.asked_for.clear();
            if !self.revive.suppressed {
                self.revive.suppressed = true;
                self.call(simple(Type::Suppress));
            }
            return;
        }
        if wanted.is_subset(&self.revive.asked_for) {
            self.revive.asked_for = wanted;
            return;
        }
        if let Some(last) = self.revive.last {
            let next = last + self.settings.revive_interval;
            if self.now < next {
                if !self.revive.waiting {
                    self.revive.waiting = true;
                    self.arm(next, Timer::Revive);
                }
                return;
            }
        }
        self.revive.asked_for = wanted;
        self.revive.last = Some(self.now);
        self.revive.suppressed = false;
        self.count("offers_revived");
        self.call(simple(Type::Revive));
    }

    /// A new subscription begins with offers for all roles.
    pub(super) fn forget_offers(&mut self) {
        self.revive = Revive::default();
    }

    /// Something changed for this instance: offers are asked for again.
    pub(super) fn revive_again(&mut self, id: &InstanceId) {
        self.revive.asked_for.remove(id);
    }

    pub(super) fn offers(&mut self, offers: Vec<pb::Offer>) {
        let mut unused = Vec::new();
        let mut not_wanted = Vec::new();
        for offer in offers {
            self.count("offers_received");
            let waited = !self.launchable().is_empty();
            if !self.use_offer(&offer) {
                if waited {
                    unused.push(offer.id);
                } else {
                    not_wanted.push(offer.id);
                }
            }
        }
        self.decline(unused, SHORT_DECLINE_SECONDS);
        self.decline(not_wanted, self.settings.decline.as_secs_f64());
    }

    fn decline(&mut self, offer_ids: Vec<pb::OfferId>, refuse_seconds: f64) {
        if offer_ids.is_empty() {
            return;
        }
        self.count("offers_declined");
        self.call(pb::scheduler::Call {
            r#type: Some(Type::Decline as i32),
            decline: Some(pb::scheduler::call::Decline {
                offer_ids,
                filters: Some(pb::Filters {
                    refuse_seconds: Some(refuse_seconds),
                }),
            }),
            ..Default::default()
        });
    }

    /// Launches what fits; says whether the offer was used.
    fn use_offer(&mut self, offer: &pb::Offer) -> bool {
        let agent = agent_of(offer);
        let mut pool = Pool::new(offer);
        let mut operations = self.give_back(&mut pool);
        let mut launched = 0;
        for id in self.launchable() {
            if launched >= self.settings.max_instances_per_offer {
                break;
            }
            let Some(instance) = self.durable.instance(&id).cloned() else {
                continue;
            };
            let Some(app) = self.durable.root.apps.get(&instance.app).cloned() else {
                continue;
            };
            let found = self.match_instance(&instance, &app, &agent, &mut pool, offer);
            self.remember_offer(&app.id, &agent, found.as_ref().err().copied());
            if let Ok(mut needed) = found {
                operations.append(&mut needed);
                launched += 1;
            }
        }
        if operations.is_empty() {
            return false;
        }
        self.count("offers_accepted");
        self.call(pb::scheduler::Call {
            r#type: Some(Type::Accept as i32),
            accept: Some(pb::scheduler::call::Accept {
                offer_ids: vec![offer.id.clone()],
                operations: merged(operations),
                filters: Some(pb::Filters {
                    // What is left is wanted by whatever still waits.
                    refuse_seconds: Some(0.0),
                }),
            }),
            ..Default::default()
        });
        true
    }

    fn remember_offer(&mut self, app: &PathId, agent: &Agent, reason: Option<Reason>) {
        let now = self.timestamp();
        let offered = self.queue.offered.entry(app.clone()).or_default();
        offered.processed += 1;
        match reason {
            None => {
                offered.last_used = Some(now);
                offered.last_reasons.remove(&agent.id);
            }
            Some(reason) => {
                offered.unused += 1;
                offered.last_unused = Some(now);
                *offered.reasons.entry(reason).or_default() += 1;
                offered.last_reasons.insert(agent.id.clone(), reason);
            }
        }
    }

    /// What it takes to launch an instance on this offer, or why it cannot be.
    fn match_instance(
        &mut self,
        instance: &Instance,
        app: &App,
        agent: &Agent,
        pool: &mut Pool,
        offer: &pb::Offer,
    ) -> Result<Vec<pb::offer::Operation>, Reason> {
        let role = offer
            .allocation_info
            .as_ref()
            .and_then(|a| a.role.as_deref())
            .unwrap_or("*");
        if role != instance.role {
            return Err("UnfulfilledRole");
        }
        if instance.reservation.is_some() {
            return self.match_reserved(instance, app, agent, pool);
        }
        let others = self
            .durable
            .instances_of(&app.id)
            .filter(|i| i.id != instance.id && i.agent.is_some())
            .filter(|i| i.goal == Goal::Running || i.reservation.is_some());
        if !satisfies(app, agent, others) {
            return Err("UnfulfilledConstraint");
        }
        let accepted = app.accepted_resource_roles.clone();
        let accepted = accepted.unwrap_or_else(|| vec!["*".to_owned(), instance.role.clone()]);
        let roles: Vec<&str> = match app.is_resident() {
            // What is to be reserved must not be reserved yet.
            true => vec!["*"],
            false => accepted.iter().map(String::as_str).collect(),
        };
        let mut left = pool.clone();
        let mut resources = Vec::new();
        for (name, amount, reason) in [
            ("cpus", app.cpus, "InsufficientCpus"),
            ("mem", app.mem, "InsufficientMemory"),
            ("disk", app.disk, "InsufficientDisk"),
            ("gpus", f64::from(app.gpus), "InsufficientGpus"),
        ] {
            resources.extend(left.take_scalar(name, amount, &roles).ok_or(reason)?);
        }
        let host_ports = choose(app, &left, &roles, &mut self.rng).ok_or("InsufficientPorts")?;
        let ports: Vec<u16> = host_ports.iter().copied().flatten().collect();
        resources.extend(left.take_ports(&ports, &roles).ok_or("InsufficientPorts")?);
        let operations = if app.is_resident() {
            self.reserve(instance, app, agent, &mut left, resources)?
        } else {
            let launch = Launch {
                resources,
                host_ports,
                volumes: Vec::new(),
            };
            vec![self.launch(&instance.id, app, agent, launch)?]
        };
        *pool = left;
        Ok(operations)
    }

    /// Books a task and makes the operation that launches it.
    pub(super) fn launch(
        &mut self,
        id: &InstanceId,
        app: &App,
        agent: &Agent,
        launch: Launch,
    ) -> Result<pb::offer::Operation, Reason> {
        let now = self.timestamp();
        let Some(instance) = self.durable.instance(id) else {
            return Err("UnmatchedInstance");
        };
        let task_id = id.task(instance.attempts + 1);
        let info = self.task_info(app, agent, &task_id, &launch);
        let Some(instance) = self.durable.instance_mut(id) else {
            return Err("UnmatchedInstance");
        };
        instance.attempts += 1;
        instance.version = app.version();
        instance.condition = Condition::Provisioned;
        instance.since = now;
        instance.agent = Some(agent.clone());
        instance.task = Some(super::Task {
            id: task_id.clone(),
            host_ports: launch.host_ports,
            staged_at: now,
            started_at: None,
            addresses: Vec::new(),
            kill_sent: None,
            container_id: None,
        });
        let snapshot = instance.clone();
        self.notify_instance(&snapshot, "Provisioned");
        self.count("tasks_launched");
        let at = self.now + self.settings.launch_timeout;
        self.arm(at, Timer::Launch(task_id));
        self.touch();
        Ok(pb::offer::Operation {
            r#type: Some(OperationType::Launch as i32),
            launch: Some(pb::offer::operation::Launch {
                task_infos: vec![info],
            }),
            ..Default::default()
        })
    }
}

pub(super) fn simple(kind: Type) -> pb::scheduler::Call {
    pb::scheduler::Call {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

/// One LAUNCH for tasks that follow each other.
fn merged(operations: Vec<pb::offer::Operation>) -> Vec<pb::offer::Operation> {
    let mut out: Vec<pb::offer::Operation> = Vec::new();
    for mut operation in operations {
        let last = out.last_mut().and_then(|o| o.launch.as_mut());
        match (last, &mut operation.launch) {
            (Some(last), Some(more)) => last.task_infos.append(&mut more.task_infos),
            _ => out.push(operation),
        }
    }
    out
}

/// How many instances each app waits for.
pub(in crate::marathon) fn waiting(
    core: &Core,
) -> BTreeMap<PathId, (usize, crate::marathon::ids::Version)> {
    let mut waiting = BTreeMap::new();
    for instance in core.durable.all_instances() {
        if instance.goal == Goal::Running && instance.condition == Condition::Scheduled {
            let entry = waiting
                .entry(instance.app.clone())
                .or_insert((0, instance.since));
            entry.0 += 1;
            entry.1 = entry.1.min(instance.since);
        }
    }
    waiting
}
