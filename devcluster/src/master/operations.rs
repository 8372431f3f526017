//! RESERVE, UNRESERVE, CREATE and DESTROY: what resources become by them.
//!
//! The master changes its books at once and sends the agent all that it has from then on; the
//! agent writes that down, makes and removes the volumes' directories, and says that it is
//! done. A status with an operation's id is repeated until it is acknowledged, as long as
//! master and framework stay subscribed; after that RECONCILE_OPERATIONS answers
//! OPERATION_UNKNOWN, and the next offer shows what became of the resources.

use std::collections::BTreeSet;

use mesos::pb;
use pb::offer::operation::Type as OperationType;
use pb::resource::reservation_info::Type as ReservationType;

use super::event::Answer;
use super::state::{MasterState, Timer};
use crate::ids::{AgentId, FrameworkId};
use crate::protocol::{ApplyOperation, to_agent};
use crate::resources::{Format, Resources};

/// How long until an operation's status is sent again.
const STATUS_RETRY: std::time::Duration = std::time::Duration::from_secs(10);

/// An operation whose feedback is wanted and not acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub framework: FrameworkId,
    pub agent: AgentId,
    pub id: String,
    /// What the agent said, once it did.
    pub status: Option<pb::OperationStatus>,
}

/// What an operation takes and what it makes of it.
#[derive(Debug)]
struct Conversion {
    consumed: Resources,
    converted: Resources,
}

impl MasterState {
    /// Whether this master knows what to do with it.
    pub(super) const fn is_conversion(kind: OperationType) -> bool {
        matches!(
            kind,
            OperationType::Reserve
                | OperationType::Unreserve
                | OperationType::Create
                | OperationType::Destroy
        )
    }

    /// Converts a part of what was offered.
    pub(super) fn apply_operation(
        &mut self,
        id: &FrameworkId,
        agent_id: &AgentId,
        role: &str,
        operation: &pb::offer::Operation,
        offered: &mut Resources,
    ) {
        let converted = self
            .conversion(Some(id), agent_id, role, operation)
            .map_err(|why| self.at_agent(agent_id, &why))
            .and_then(|c| {
                if offered.contains(&c.consumed) {
                    Ok(c)
                } else {
                    Err(format!("{offered} does not contain {}", c.consumed))
                }
            });
        let conversion = match converted {
            Ok(conversion) => conversion,
            Err(why) => {
                self.refuse_operation(id, None, operation, why);
                return;
            }
        };
        offered.subtract_what_is_here(&conversion.consumed);
        offered.add_all(&conversion.converted);
        self.allocator
            .convert(agent_id, &conversion.consumed, &conversion.converted, true);
        self.book_conversion(Some(id), agent_id, operation.id.as_ref(), &conversion);
    }

    fn at_agent(&self, id: &AgentId, why: &str) -> String {
        match self.agents.get(id) {
            Some(agent) => format!(
                "{why}; on agent {id} at {} ({})",
                agent.pid(),
                agent.info.hostname
            ),
            None => why.to_owned(),
        }
    }

    /// Changes what the agent has and tells it.
    fn book_conversion(
        &mut self,
        framework: Option<&FrameworkId>,
        agent_id: &AgentId,
        operation: Option<&pb::OperationId>,
        conversion: &Conversion,
    ) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        agent
            .total
            .subtract_what_is_here(&conversion.consumed.unallocated());
        agent.total.add_all(&conversion.converted.unallocated());
        let total = agent.total.to_pb(Format::PostRefinement);
        let serial = self.next_operation;
        self.next_operation += 1;
        if let (Some(framework), Some(operation)) = (framework, operation) {
            self.operations.insert(
                serial,
                Operation {
                    framework: framework.clone(),
                    agent: agent_id.clone(),
                    id: operation.value.clone(),
                    status: None,
                },
            );
        }
        let message = to_agent::Message::ApplyOperation(ApplyOperation {
            serial,
            wants_feedback: operation.is_some(),
            total,
        });
        self.tell_agent(agent_id, message);
    }

    /// The agent has done an operation.
    pub(super) fn operation_applied(
        &mut self,
        agent: &AgentId,
        applied: crate::protocol::OperationApplied,
    ) {
        let Some(operation) = self.operations.get_mut(&applied.serial) else {
            return;
        };
        if operation.agent != *agent {
            return;
        }
        operation.status = Some(pb::OperationStatus {
            operation_id: Some(pb::OperationId {
                value: operation.id.clone(),
            }),
            state: pb::OperationState::OperationFinished as i32,
            uuid: Some(pb::Uuid {
                value: applied.uuid,
            }),
            agent_id: Some(agent.to_pb()),
            ..Default::default()
        });
        self.tell_operation(applied.serial);
    }

    /// Tells a framework what became of its operation, and again later.
    pub(super) fn tell_operation(&mut self, serial: u64) {
        let Some(operation) = self.operations.get(&serial) else {
            return;
        };
        let Some(status) = operation.status.clone() else {
            return;
        };
        let framework = operation.framework.clone();
        self.timers
            .insert((self.now + STATUS_RETRY, Timer::Operation(serial)));
        self.operation_status(&framework, status);
    }

    /// The framework has heard.
    pub(super) fn acknowledge_operation(
        &mut self,
        id: &FrameworkId,
        acknowledge: &pb::scheduler::call::AcknowledgeOperationStatus,
    ) {
        self.operations.retain(|_, operation| {
            let uuid = operation.status.as_ref().and_then(|s| s.uuid.as_ref());
            operation.framework != *id
                || operation.id != acknowledge.operation_id.value
                || uuid.is_none_or(|u| u.value != acknowledge.uuid)
        });
    }

    /// The status of an operation that is not done and acknowledged.
    pub(super) fn operation_of(
        &self,
        id: &FrameworkId,
        operation: &str,
    ) -> Option<pb::OperationStatus> {
        let mut known = self.operations.values();
        let found = known.rfind(|o| o.framework == *id && o.id == operation)?;
        Some(pb::OperationStatus {
            operation_id: Some(pb::OperationId {
                value: operation.to_owned(),
            }),
            state: found
                .status
                .as_ref()
                .map_or(pb::OperationState::OperationPending as i32, |status| {
                    status.state
                }),
            agent_id: Some(found.agent.to_pb()),
            ..Default::default()
        })
    }

    /// Feedback that nobody can give or wants any more.
    pub(super) fn forget_operations(&mut self, of: impl Fn(&Operation) -> bool) {
        self.operations.retain(|_, operation| !of(operation));
    }

    /// Whether feedback of an agent's operations is not acknowledged.
    pub(super) fn has_operations(&self, agent: &AgentId) -> bool {
        self.operations.values().any(|o| o.agent == *agent)
    }

    /// An operator's RESERVE_RESOURCES and its like: offers that are in the way are rescinded.
    pub(super) fn operator_conversion(
        &mut self,
        agent_id: &pb::AgentId,
        operation: &pb::offer::Operation,
    ) -> Answer {
        let id = AgentId::from(agent_id);
        if !self.agents.contains_key(&id) {
            return Answer::bad_request("No agent found with specified ID");
        }
        let conversion = match self.conversion(None, &id, "", operation) {
            Ok(conversion) => conversion,
            Err(why) => return Answer::bad_request(format!("Invalid {}: {why}", name(operation))),
        };
        let fits = |state: &Self| {
            let available = state.allocator.available(&id);
            available.is_some_and(|a| a.contains(&conversion.consumed))
        };
        if !fits(self) {
            let offers: Vec<_> = self
                .agents
                .get(&id)
                .map(|a| a.offers.iter().cloned().collect())
                .unwrap_or_default();
            for offer in offers {
                self.rescind(&offer);
                if fits(self) {
                    break;
                }
            }
        }
        if !fits(self) {
            let why = format!(
                "Failed to apply {}: the agent has not got it unused: {}",
                name(operation),
                conversion.consumed
            );
            return Answer::error(409, why);
        }
        self.allocator
            .convert(&id, &conversion.consumed, &conversion.converted, false);
        self.book_conversion(None, &id, None, &conversion);
        self.allocate_agent(&id);
        Answer::Accepted
    }

    /// Checks an operation and says what it takes and makes. `role` is the offer's.
    fn conversion(
        &self,
        framework: Option<&FrameworkId>,
        agent: &AgentId,
        role: &str,
        operation: &pb::offer::Operation,
    ) -> Result<Conversion, String> {
        let principal = framework
            .and_then(|id| self.frameworks.get(id))
            .and_then(|f| f.info.principal.as_deref());
        let read = |list: &[pb::Resource]| {
            let resources = Resources::from_pb(list).map_err(|e| e.to_string())?;
            Ok::<_, String>(match framework {
                Some(_) => resources.allocated_by_default(role),
                None => resources.unallocated(),
            })
        };
        match operation.r#type() {
            OperationType::Reserve => {
                let list = operation.reserve.as_ref().map_or(&[][..], |r| &r.resources);
                let offered_role = framework.map(|_| role);
                for resource in list {
                    check_reserve(resource, offered_role, principal)?;
                }
                Ok(Conversion {
                    consumed: read(&unreserved(list))?,
                    converted: read(list)?,
                })
            }
            OperationType::Unreserve => {
                let list = operation
                    .unreserve
                    .as_ref()
                    .map_or(&[][..], |r| &r.resources);
                for resource in list {
                    check_unreserve(resource)?;
                }
                Ok(Conversion {
                    consumed: read(list)?,
                    converted: read(&unreserved(list))?,
                })
            }
            OperationType::Create => {
                let list = operation.create.as_ref().map_or(&[][..], |c| &c.volumes);
                let total = self.agents.get(agent).map(|a| &a.total);
                let mut known: BTreeSet<(String, String)> = total
                    .map(|t| t.to_pb(Format::PostRefinement))
                    .unwrap_or_default()
                    .iter()
                    .filter_map(volume_key)
                    .collect();
                for volume in list {
                    check_create(volume, principal, &mut known)?;
                }
                Ok(Conversion {
                    consumed: read(&without_volume(list))?,
                    converted: read(list)?,
                })
            }
            OperationType::Destroy => {
                let list = operation.destroy.as_ref().map_or(&[][..], |d| &d.volumes);
                for volume in list {
                    if volume_key(volume).is_none() {
                        return Err("'persistence' is not set in DiskInfo".to_owned());
                    }
                }
                Ok(Conversion {
                    consumed: read(list)?,
                    converted: read(&without_volume(list))?,
                })
            }
            kind => Err(format!("{} converts nothing", kind.as_str_name())),
        }
    }
}

/// As the operator's call is named.
fn name(operation: &pb::offer::Operation) -> String {
    operation.r#type().as_str_name().to_owned()
}

/// Without their innermost reservations.
fn unreserved(list: &[pb::Resource]) -> Vec<pb::Resource> {
    let mut list = list.to_vec();
    for resource in &mut list {
        resource.reservations.pop();
    }
    list
}

/// Disks as they are without a volume on them.
fn without_volume(list: &[pb::Resource]) -> Vec<pb::Resource> {
    let mut list = list.to_vec();
    for resource in &mut list {
        if let Some(disk) = &mut resource.disk {
            disk.persistence = None;
            disk.volume = None;
            if disk.source.is_none() {
                resource.disk = None;
            }
        }
        resource.shared = None;
    }
    list
}

/// What names a volume on an agent: the role that it is reserved for, and its id.
pub(crate) fn volume_key(resource: &pb::Resource) -> Option<(String, String)> {
    let persistence = resource.disk.as_ref()?.persistence.as_ref()?;
    let role = resource.reservations.last()?.role.clone()?;
    Some((role, persistence.id.clone()))
}

/// The reservation that an operation may make or undo: the last of the stack, if it is dynamic.
fn dynamic_reservation(resource: &pb::Resource) -> Result<&pb::resource::ReservationInfo, String> {
    let last = resource.reservations.last();
    last.filter(|r| r.r#type() == ReservationType::Dynamic)
        .ok_or_else(|| format!("Resource {} is not dynamically reserved", resource.name))
}

fn is_volume(resource: &pb::Resource) -> bool {
    let disk = resource.disk.as_ref();
    disk.is_some_and(|d| d.persistence.is_some())
}

fn check_reserve(
    resource: &pb::Resource,
    offered_role: Option<&str>,
    principal: Option<&str>,
) -> Result<(), String> {
    if resource.reservations.is_empty() {
        return Err("Resource is not reserved".to_owned());
    }
    let reservation = dynamic_reservation(resource)?;
    if is_volume(resource) {
        return Err("A persistent volume must be unreserved already".to_owned());
    }
    if resource.revocable.is_some() {
        return Err("Dynamic reservations for revocable resources are not supported".to_owned());
    }
    let role = reservation.role.as_deref().unwrap_or("*");
    if let Some(offered) = offered_role
        && offered != role
        && !crate::resources::role::is_strict_subrole(offered, role)
    {
        return Err(format!(
            "A reserve operation was attempted for a resource with role '{role}', but the \
             resource was allocated to role '{offered}'"
        ));
    }
    if let Some(authenticated) = principal
        && reservation.principal.as_deref() != Some(authenticated)
    {
        return Err(format!(
            "A reserve operation was attempted by authenticated principal '{authenticated}', \
             which does not match a reserved resource in the request with principal '{}'",
            reservation.principal.as_deref().unwrap_or("")
        ));
    }
    Ok(())
}

fn check_unreserve(resource: &pb::Resource) -> Result<(), String> {
    dynamic_reservation(resource)?;
    if is_volume(resource) {
        return Err("A dynamically reserved persistent volume cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource".to_owned());
    }
    Ok(())
}

fn check_create(
    volume: &pb::Resource,
    principal: Option<&str>,
    known: &mut BTreeSet<(String, String)>,
) -> Result<(), String> {
    let Some(disk) = &volume.disk else {
        return Err(format!("Resource {} does not have DiskInfo", volume.name));
    };
    let Some(persistence) = &disk.persistence else {
        return Err("'persistence' is not set in DiskInfo".to_owned());
    };
    let Some(described) = &disk.volume else {
        return Err("Expecting 'volume' to be set for persistent volume".to_owned());
    };
    if described.mode() == pb::volume::Mode::Ro {
        return Err("Read-only persistent volume not supported".to_owned());
    }
    if described.host_path.is_some() {
        return Err("Expecting 'host_path' to be unset for persistent volume".to_owned());
    }
    let id = &persistence.id;
    if id.is_empty() || id.contains('/') || [".", ".."].contains(&id.as_str()) {
        return Err(format!("Persistence ID '{id}' contains invalid characters"));
    }
    if let Some(authenticated) = principal
        && persistence.principal.as_deref() != Some(authenticated)
    {
        return Err(format!(
            "Create volume operation has been attempted by principal '{authenticated}', but there \
             is a volume in the operation with principal '{}' set in `DiskInfo.Persistence`",
            persistence.principal.as_deref().unwrap_or("")
        ));
    }
    let Some(key) = volume_key(volume) else {
        return Err("Persistent volumes cannot be created from unreserved resources".to_owned());
    };
    if !known.insert(key) {
        return Err(format!(
            "Persistence ID '{id}' is not unique: there is such a volume on the agent already"
        ));
    }
    Ok(())
}
