//! The account of what an agent has not acknowledged yet, and updates with their UUIDs.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::pb;
use pb::executor::call::Update;

/// An update with what every update needs: a UUID of version 4 (agents refuse versions above
/// 5), a timestamp, and the executor as its source.
pub fn new_update(task_id: pb::TaskId, state: pb::TaskState) -> Update {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Update {
        status: pb::TaskStatus {
            task_id,
            state: state.into(),
            source: Some(pb::task_status::Source::Executor.into()),
            timestamp: now.ok().map(|since| since.as_secs_f64()),
            uuid: Some(uuid::Uuid::new_v4().as_bytes().to_vec()),
            ..Default::default()
        },
    }
}

/// Refuses what the agent would refuse.
pub(super) fn check_update(update: Option<&Update>) -> Result<(), Error> {
    let invalid = |reason: &str| Error::InvalidCall {
        reason: reason.to_owned(),
    };
    let status = &update.ok_or_else(|| invalid("no `update`"))?.status;
    let uuid = status
        .uuid
        .as_deref()
        .and_then(|bytes| uuid::Uuid::from_slice(bytes).ok())
        .ok_or_else(|| invalid("an update needs a UUID of 16 bytes"))?;
    if !(1..=5).contains(&uuid.get_version_num()) {
        return Err(invalid("an update needs a UUID of version 1 to 5"));
    }
    if status.source() != pb::task_status::Source::Executor {
        return Err(invalid("an executor's update needs SOURCE_EXECUTOR"));
    }
    Ok(())
}

/// Keeps the account of tasks and updates that are not acknowledged, in the order in which they
/// came. A plain value: the executor tells it what it receives and sends, and hands
/// [`Self::unacknowledged`] to [`super::ExecutorHandle::set_unacknowledged`].
///
/// ```
/// use mesos::executor::{Ledger, new_update};
/// use mesos::pb;
///
/// let mut ledger = Ledger::default();
/// let id = pb::TaskId { value: "t1".to_owned() };
/// ledger.launched(pb::TaskInfo { task_id: id.clone(), ..Default::default() });
/// let update = new_update(id.clone(), pb::TaskState::TaskStarting);
/// let uuid = update.status.uuid.clone().unwrap_or_default();
/// ledger.sent(update);
/// assert_eq!(ledger.unacknowledged().0.len(), 1);
/// ledger.acknowledged(&id, &uuid);
/// assert_eq!(ledger.unacknowledged(), (vec![], vec![]));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    next: u64,
    tasks: BTreeMap<u64, pb::TaskInfo>,
    updates: BTreeMap<u64, Update>,
}

impl Ledger {
    /// The account that [`Self::unacknowledged`] gave, in a process that goes on with it.
    pub fn restore(tasks: Vec<pb::TaskInfo>, updates: Vec<Update>) -> Self {
        let mut ledger = Self::default();
        for task in tasks {
            ledger.launched(task);
        }
        for update in updates {
            ledger.sent(update);
        }
        ledger
    }

    /// A task arrived in LAUNCH or LAUNCH_GROUP.
    pub fn launched(&mut self, task: pb::TaskInfo) {
        let known = self.tasks.values().any(|t| t.task_id == task.task_id);
        if !known {
            let number = self.number();
            self.tasks.insert(number, task);
        }
    }

    /// An update is about to be sent. To be called first, so that it is not forgotten when the
    /// agent goes away in between. The same update sent again counts once.
    pub fn sent(&mut self, update: Update) {
        let known = self
            .updates
            .values()
            .any(|u| u.status.uuid == update.status.uuid);
        if !known {
            let number = self.number();
            self.updates.insert(number, update);
        }
    }

    /// ACKNOWLEDGED arrived: the agent has stored the update, so it knows the task too.
    pub fn acknowledged(&mut self, task_id: &pb::TaskId, uuid: &[u8]) {
        self.updates
            .retain(|_, u| u.status.uuid.as_deref() != Some(uuid) || u.status.task_id != *task_id);
        self.tasks.retain(|_, task| task.task_id != *task_id);
    }

    /// What to subscribe with.
    pub fn unacknowledged(&self) -> (Vec<pb::TaskInfo>, Vec<Update>) {
        (
            self.tasks.values().cloned().collect(),
            self.updates.values().cloned().collect(),
        )
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests;
