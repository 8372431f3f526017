//! Instances with persistent volumes: what they need is reserved for them under labels that
//! name them, stays reserved while they are not running, and is given back when they are gone.

use mesos::pb;
use pb::offer::operation::Type as OperationType;
use pb::resource::reservation_info::Type as ReservationType;

use super::durable::{Agent, Goal, Instance, Reservation};
use super::offers::Reason;
use super::ports::{Pool, labels, ranges};
use super::task_info::Launch;
use super::{Core, Timer};
use crate::marathon::ids::InstanceId;
use crate::marathon::model::App;
use crate::resources::Ranges;

/// The label that says whose reservation it is.
pub const FRAMEWORK_LABEL: &str = "marathon_framework_id";
/// The label that says for which instance it is.
pub const INSTANCE_LABEL: &str = "marathon_task_id";
/// How many reservations are remembered that nobody has offered yet.
const MAX_GARBAGE: usize = 10_000;

impl Core {
    fn framework_id(&self) -> &str {
        self.durable.framework_id.as_deref().unwrap_or("")
    }

    fn reservation_info(&self, instance: &Instance) -> pb::resource::ReservationInfo {
        let label = |key: &str, value: &str| pb::Label {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        };
        pb::resource::ReservationInfo {
            r#type: Some(ReservationType::Dynamic as i32),
            role: Some(instance.role.clone()),
            principal: self.settings.principal.clone(),
            labels: Some(pb::Labels {
                labels: vec![
                    label(FRAMEWORK_LABEL, self.framework_id()),
                    label(INSTANCE_LABEL, instance.id.as_str()),
                ],
            }),
        }
    }

    /// Reserves what a task needs and makes its volumes. The task itself is launched when
    /// both show up in an offer.
    pub(super) fn reserve(
        &mut self,
        instance: &Instance,
        app: &App,
        agent: &Agent,
        pool: &mut Pool,
        resources: Vec<pb::Resource>,
    ) -> Result<Vec<pb::offer::Operation>, Reason> {
        let info = self.reservation_info(instance);
        let reserved = |mut resource: pb::Resource| {
            resource.allocation_info = None;
            resource.reservations.push(info.clone());
            resource
        };
        let mut all: Vec<pb::Resource> = resources.into_iter().map(reserved).collect();
        let mut created = Vec::new();
        let mut ids = Vec::new();
        for volume in app.persistent_volumes() {
            let Some(persistent) = &volume.persistent else {
                continue;
            };
            let disk = pool.take_disk(persistent).ok_or("InsufficientDisk")?;
            let disk = reserved(disk);
            let id = format!(
                "{}#{}#{}",
                app.id.safe(),
                volume.container_path,
                self.new_uuid()
            );
            let mut with_volume = disk.clone();
            let mut disk_info = disk.disk.clone().unwrap_or_default();
            disk_info.persistence = Some(pb::resource::disk_info::Persistence {
                id: id.clone(),
                principal: self.settings.principal.clone(),
            });
            disk_info.volume = Some(pb::Volume {
                mode: pb::volume::Mode::Rw as i32,
                container_path: volume.container_path.clone(),
                ..Default::default()
            });
            with_volume.disk = Some(disk_info);
            all.push(disk);
            created.push(with_volume);
            ids.push(id);
        }
        let now = self.timestamp();
        if let Some(instance) = self.durable.instance_mut(&instance.id) {
            instance.agent = Some(agent.clone());
            instance.reservation = Some(Reservation {
                confirmed: false,
                asked_at: now,
                volumes: ids,
            });
        }
        let at = self.now + self.settings.reservation_timeout;
        self.arm(at, Timer::Reservation(instance.id.clone()));
        // The reserved resources come as an offer that is to be taken.
        self.revive_again(&instance.id);
        self.touch();
        Ok(vec![
            pb::offer::Operation {
                r#type: Some(OperationType::Reserve as i32),
                reserve: Some(pb::offer::operation::Reserve {
                    resources: all,
                    ..Default::default()
                }),
                ..Default::default()
            },
            pb::offer::Operation {
                r#type: Some(OperationType::Create as i32),
                create: Some(pb::offer::operation::Create { volumes: created }),
                ..Default::default()
            },
        ])
    }

    /// Launches an instance on what is reserved for it.
    pub(super) fn match_reserved(
        &mut self,
        instance: &Instance,
        app: &App,
        agent: &Agent,
        pool: &mut Pool,
    ) -> Result<Vec<pb::offer::Operation>, Reason> {
        const NONE: Reason = "NoCorrespondingReservationFound";
        let Some(reservation) = &instance.reservation else {
            return Err(NONE);
        };
        let mut left = pool.clone();
        let reserved = left.take_labelled(&[
            (FRAMEWORK_LABEL, self.framework_id()),
            (INSTANCE_LABEL, instance.id.as_str()),
        ]);
        let persistence = |r: &pb::Resource| {
            let disk = r.disk.as_ref()?;
            disk.persistence.as_ref().map(|p| p.id.clone())
        };
        let there: Vec<String> = reserved.iter().filter_map(persistence).collect();
        if !reservation.volumes.iter().all(|v| there.contains(v)) {
            return Err(NONE);
        }
        let (volumes, resources): (Vec<_>, Vec<_>) = reserved
            .into_iter()
            .partition(|r| r.disk.as_ref().is_some_and(|d| d.persistence.is_some()));
        let amount = |name: &str| -> f64 {
            let list = resources.iter().filter(|r| r.name == name);
            list.filter_map(|r| r.scalar.as_ref().map(|s| s.value))
                .sum()
        };
        if amount("cpus") + 1e-6 < app.cpus || amount("mem") + 1e-6 < app.mem {
            return Err(NONE);
        }
        let host_ports = reserved_ports(app, &resources).ok_or(NONE)?;
        let launch = Launch {
            resources,
            host_ports,
            volumes,
        };
        let operation = self.launch(&instance.id, app, agent, launch)?;
        if let Some(instance) = self.durable.instance_mut(&instance.id)
            && let Some(reservation) = &mut instance.reservation
        {
            reservation.confirmed = true;
        }
        *pool = left;
        Ok(vec![operation])
    }

    /// A reservation did not show up: something went wrong, another one is tried.
    pub(super) fn reservation_overdue(&mut self, id: &InstanceId) {
        let Some(instance) = self.durable.instance(id) else {
            return;
        };
        let waits = instance.reservation.as_ref().is_some_and(|r| {
            !r.confirmed
                && self.now.since(r.asked_at.time()) >= self.settings.reservation_timeout / 2
        });
        if waits && !instance.condition.has_task() {
            tracing::warn!(instance = %id, "its reservation did not show up; another is tried");
            self.give_up(id, Goal::Decommissioned);
        }
    }

    /// Destroys volumes and gives back reservations of instances that are gone.
    pub(super) fn give_back(&mut self, pool: &mut Pool) -> Vec<pb::offer::Operation> {
        let mut gone: Vec<String> = Vec::new();
        for resource in pool.resources() {
            let labels = labels(resource);
            let ours = labels.contains(&(FRAMEWORK_LABEL, self.framework_id()));
            let instance = labels.iter().find(|(k, _)| *k == INSTANCE_LABEL);
            let Some((_, instance)) = instance.filter(|_| ours) else {
                continue;
            };
            let known = self
                .durable
                .all_instances()
                .any(|i| i.id.as_str() == *instance);
            if !known && !gone.iter().any(|g| g == instance) {
                gone.push((*instance).to_owned());
            }
        }
        let mut operations = Vec::new();
        for instance in gone {
            let framework = self.framework_id().to_owned();
            let mut resources =
                pool.take_labelled(&[(FRAMEWORK_LABEL, &framework), (INSTANCE_LABEL, &instance)]);
            for resource in &mut resources {
                resource.allocation_info = None;
            }
            let is_volume =
                |r: &&pb::Resource| r.disk.as_ref().is_some_and(|d| d.persistence.is_some());
            let volumes: Vec<_> = resources.iter().filter(is_volume).cloned().collect();
            if !volumes.is_empty() {
                operations.push(pb::offer::Operation {
                    r#type: Some(OperationType::Destroy as i32),
                    destroy: Some(pb::offer::operation::Destroy { volumes }),
                    ..Default::default()
                });
            }
            for resource in &mut resources {
                if let Some(disk) = &mut resource.disk {
                    disk.persistence = None;
                    disk.volume = None;
                    if disk.source.is_none() {
                        resource.disk = None;
                    }
                }
            }
            tracing::info!(%instance, "its reservation is given back");
            operations.push(pb::offer::Operation {
                r#type: Some(OperationType::Unreserve as i32),
                unreserve: Some(pb::offer::operation::Unreserve { resources }),
                ..Default::default()
            });
            self.durable.garbage.retain(|id, _| id.as_str() != instance);
            self.touch();
        }
        operations
    }

    /// A reservation is to be given back when it is offered.
    pub(super) fn remember_garbage(&mut self, instance: &Instance) {
        let agent = instance.agent.as_ref().map_or("", |a| &a.id);
        let garbage = &mut self.durable.garbage;
        garbage.insert(instance.id.clone(), agent.to_owned());
        while garbage.len() > MAX_GARBAGE {
            garbage.pop_first();
        }
        self.revive_again(&instance.id);
    }
}

/// The app's ports among those that are reserved.
fn reserved_ports(app: &App, resources: &[pb::Resource]) -> Option<Vec<Option<u16>>> {
    let mut free: Vec<u16> = Vec::new();
    for resource in resources.iter().filter(|r| r.name == "ports") {
        let ranges: Ranges = ranges(resource);
        for (begin, end) in ranges.as_slice() {
            free.extend((*begin..=*end).filter_map(|p| u16::try_from(p).ok()));
        }
    }
    let wanted: Vec<Option<u16>> = if app.port_mappings().is_empty() {
        let definitions = app.port_definitions.iter().flatten();
        let number = |port| if app.require_ports { port } else { 0 };
        definitions.map(|d| Some(number(d.port))).collect()
    } else {
        app.port_mappings().iter().map(|m| m.host_port).collect()
    };
    for fixed in wanted.iter().copied().flatten().filter(|p| *p != 0) {
        let at = free.iter().position(|p| *p == fixed)?;
        free.remove(at);
    }
    wanted
        .into_iter()
        .map(|port| match port {
            Some(0) => free.pop().map(Some),
            other => Some(other),
        })
        .collect()
}
