//! ACCEPT: launching tasks on offers.

use mesos::pb;
use mesos::pb::TaskState;
use mesos::pb::offer::operation::Type as OperationType;
use mesos::pb::task_status::Reason;

use super::event::Answer;
use super::scheduler::refuse_seconds;
use super::state::{Executor, MasterState};
use super::{updates, validate};
use crate::ids::{AgentId, ExecutorId, FrameworkId, OfferId};
use crate::protocol::{RunTask, RunTaskGroup, to_agent};
use crate::resources::{Format, Resources};

impl MasterState {
    pub(super) fn accept(
        &mut self,
        id: &FrameworkId,
        accept: pb::scheduler::call::Accept,
    ) -> Answer {
        self.count("master/messages_launch_tasks");
        let ids: Vec<_> = accept.offer_ids.iter().map(OfferId::from).collect();
        if let Err(error) = self.check_offers(id, &ids) {
            self.accept_refused(id, &ids, &accept, &error);
            return Answer::Accepted;
        }
        let mut offered = Resources::default();
        let mut target = None;
        for offer in &ids {
            if let Some(offer) = self.take_offer(offer) {
                offered.add_all(&offer.resources);
                target = Some((offer.agent, offer.role));
            }
        }
        let Some((agent, role)) = target else {
            return Answer::Accepted;
        };
        for operation in accept.operations {
            match operation.r#type() {
                OperationType::Launch => {
                    let tasks = operation.launch.map(|l| l.task_infos).unwrap_or_default();
                    for task in tasks {
                        self.launch(id, &agent, &role, task, &mut offered);
                    }
                }
                OperationType::LaunchGroup => {
                    if let Some(group) = operation.launch_group {
                        self.launch_group(id, &agent, &role, group, &mut offered);
                    }
                }
                kind if Self::is_conversion(kind) => {
                    self.apply_operation(id, &agent, &role, &operation, &mut offered);
                }
                kind => {
                    let why = format!("{} is not supported by this master", kind.as_str_name());
                    self.refuse_operation(id, Some(&agent), &operation, why);
                }
            }
        }
        let refuse = refuse_seconds(accept.filters.as_ref());
        self.allocator
            .recover(self.now, id, &agent, &offered, Some(refuse));
        Answer::Accepted
    }

    /// Offers that cannot be used: those that exist are used up all the same, and each task
    /// hears of it.
    fn accept_refused(
        &mut self,
        id: &FrameworkId,
        offers: &[OfferId],
        accept: &pb::scheduler::call::Accept,
        error: &str,
    ) {
        for offer in offers {
            if self.offers.get(offer).is_some_and(|o| o.framework == *id) {
                self.discard_offer(offer, None);
            }
        }
        let state = self.dropped_state(id);
        for operation in &accept.operations {
            let tasks: &[pb::TaskInfo] = match operation.r#type() {
                OperationType::Launch => operation.launch.as_ref().map_or(&[], |l| &l.task_infos),
                OperationType::LaunchGroup => operation
                    .launch_group
                    .as_ref()
                    .map_or(&[], |l| &l.task_group.tasks),
                _ => {
                    let why = format!("Operation attempted with invalid offers: {error}");
                    self.refuse_operation(id, None, operation, why);
                    continue;
                }
            };
            for task in tasks {
                let text = format!("Task launched with invalid offers: {error}");
                self.refuse_task(id, task, state, Reason::InvalidOffers, text);
            }
        }
    }

    /// How a task that never ran is called: older frameworks know only TASK_LOST.
    fn dropped_state(&self, id: &FrameworkId) -> TaskState {
        match self.frameworks.get(id) {
            Some(f) if f.capabilities.partition_aware => TaskState::TaskDropped,
            _ => TaskState::TaskLost,
        }
    }

    fn refuse_task(
        &mut self,
        id: &FrameworkId,
        task: &pb::TaskInfo,
        state: TaskState,
        reason: Reason,
        message: String,
    ) {
        let mut status = updates::status(self.now, &task.task_id, state, reason, message);
        status.agent_id = Some(task.agent_id.clone());
        self.count(match state {
            TaskState::TaskError => "master/tasks_error",
            TaskState::TaskDropped => "master/tasks_dropped",
            _ => "master/tasks_lost",
        });
        self.forward(id, status);
    }

    fn launch(
        &mut self,
        id: &FrameworkId,
        agent_id: &AgentId,
        role: &str,
        mut task: pb::TaskInfo,
        offered: &mut Resources,
    ) {
        if let Some(executor) = &mut task.executor
            && executor.framework_id.is_none()
        {
            executor.framework_id = Some(id.to_pb());
        }
        let error = |text| (Reason::TaskInvalid, text);
        let checked = validate::normalized(&mut task, role)
            .and_then(|()| validate::task(self, id, agent_id, &task, offered))
            .map_err(error)
            .and_then(|resources| match self.why_unauthorized(id, &task) {
                None => Ok(resources),
                Some(why) => Err((Reason::TaskUnauthorized, why)),
            });
        let (uses, executor_uses) = match checked {
            Ok(resources) => resources,
            Err((reason, text)) => {
                self.refuse_task(id, &task, TaskState::TaskError, reason, text);
                return;
            }
        };
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let framework_info = framework.info.clone();
        let launch_executor = match &task.executor {
            // A command task brings an executor of its own.
            None => true,
            Some(info) => self.add_executor(id, agent_id, info, executor_uses, offered),
        };
        offered.subtract_what_is_here(&uses);
        self.book_launch(id, &task, task.executor.as_ref(), uses);
        let message = to_agent::Message::RunTask(RunTask {
            framework: framework_info,
            task,
            launch_executor,
        });
        self.tell_agent(agent_id, message);
    }

    /// Why the framework's principal may not run this task.
    fn why_unauthorized(&self, id: &FrameworkId, task: &pb::TaskInfo) -> Option<String> {
        let framework = &self.frameworks.get(id)?.info;
        let executor = task.executor.as_ref().and_then(|e| e.command.as_ref());
        let command = task.command.as_ref().or(executor);
        let user = command
            .and_then(|c| c.user.as_deref())
            .unwrap_or(&framework.user);
        let principal = framework.principal.as_deref();
        if self.settings.acls.may_run(principal, user) {
            return None;
        }
        let who = principal.map_or_else(String::new, |p| format!("Principal '{p}' "));
        // The grammar is Mesos' own.
        Some(format!(
            "{who}no authorized to launch task {} of framework {id} under user '{user}'",
            task.task_id.value
        ))
    }

    /// Books an executor unless it runs already; says whether it is new.
    fn add_executor(
        &mut self,
        id: &FrameworkId,
        agent_id: &AgentId,
        info: &pb::ExecutorInfo,
        resources: Resources,
        offered: &mut Resources,
    ) -> bool {
        let key = (id.clone(), ExecutorId::from(&info.executor_id));
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return false;
        };
        if agent.executors.contains_key(&key) {
            return false;
        }
        offered.subtract_what_is_here(&resources);
        let executor = Executor {
            info: info.clone(),
            resources,
        };
        agent.executors.insert(key, executor);
        true
    }

    fn book_launch(
        &mut self,
        id: &FrameworkId,
        task: &pb::TaskInfo,
        executor: Option<&pb::ExecutorInfo>,
        uses: Resources,
    ) {
        let command = task
            .command
            .as_ref()
            .or(executor.and_then(|e| e.command.as_ref()));
        let record = pb::Task {
            name: task.name.clone(),
            task_id: task.task_id.clone(),
            framework_id: id.to_pb(),
            executor_id: executor.map(|e| e.executor_id.clone()),
            agent_id: task.agent_id.clone(),
            state: TaskState::TaskStaging as i32,
            resources: uses.to_pb(Format::PostRefinement),
            labels: task.labels.clone(),
            discovery: task.discovery.clone(),
            container: task.container.clone(),
            health_check: task.health_check.clone(),
            kill_policy: task.kill_policy,
            user: command.and_then(|c| c.user.clone()),
            limits: task.limits.clone(),
            ..Default::default()
        };
        self.count("master/tasks_launched");
        self.add_task(id, record, uses);
    }

    fn launch_group(
        &mut self,
        id: &FrameworkId,
        agent_id: &AgentId,
        role: &str,
        group: pb::offer::operation::LaunchGroup,
        offered: &mut Resources,
    ) {
        let mut executor = group.executor;
        if executor.framework_id.is_none() {
            executor.framework_id = Some(id.to_pb());
        }
        let mut tasks = group.task_group.tasks;
        let checked = validate::normalized_executor(&mut executor, role)
            .and_then(|()| {
                for task in &mut tasks {
                    if let Some(executor) = &mut task.executor
                        && executor.framework_id.is_none()
                    {
                        executor.framework_id = Some(id.to_pb());
                    }
                    validate::normalized(task, role)?;
                }
                Ok(())
            })
            .and_then(|()| {
                for task in &mut tasks {
                    task.executor.get_or_insert_with(|| executor.clone());
                }
                validate::group(self, id, agent_id, &executor, &tasks, offered)
            });
        let (each, executor_uses) = match checked {
            Ok(resources) => resources,
            Err(text) => {
                for task in &tasks {
                    self.refuse_task(
                        id,
                        task,
                        TaskState::TaskError,
                        Reason::TaskGroupInvalid,
                        text.clone(),
                    );
                }
                return;
            }
        };
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let framework_info = framework.info.clone();
        let launch_executor = self.add_executor(id, agent_id, &executor, executor_uses, offered);
        for (task, uses) in tasks.iter_mut().zip(each) {
            task.executor = None;
            offered.subtract_what_is_here(&uses);
            self.book_launch(id, task, Some(&executor), uses);
        }
        let message = to_agent::Message::RunTaskGroup(RunTaskGroup {
            framework: framework_info,
            executor,
            task_group: pb::TaskGroupInfo { tasks },
            launch_executor,
        });
        self.tell_agent(agent_id, message);
    }
}
