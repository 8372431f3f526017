//! What a task to be launched is refused for.

use mesos::pb;
use mesos::pb::environment::variable::Type as VariableType;
use mesos::pb::executor_info::Type as ExecutorType;

use crate::ids::{self, AgentId, ExecutorId, FrameworkId};
use crate::master::state::MasterState;
use crate::resources::{Format, Resources, Scalar};

/// Least that the executor of a task group must have.
const MIN_CPUS: Scalar = Scalar::from_millis(10);
const MIN_MEM_MB: Scalar = Scalar::from_millis(32_000);

/// Gives the resources of a task and its executor the allocation of their offers where they
/// name none, and the newer form of reservations.
pub(in crate::master) fn normalized(task: &mut pb::TaskInfo, role: &str) -> Result<(), String> {
    normalize(&mut task.resources, role)?;
    match &mut task.executor {
        Some(executor) => normalized_executor(executor, role),
        None => Ok(()),
    }
}

/// The same for an executor alone.
pub(in crate::master) fn normalized_executor(
    executor: &mut pb::ExecutorInfo,
    role: &str,
) -> Result<(), String> {
    normalize(&mut executor.resources, role)
}

fn normalize(resources: &mut Vec<pb::Resource>, role: &str) -> Result<(), String> {
    for resource in resources.iter() {
        crate::resources::Resource::from_pb(resource)
            .map_err(|e| format!("Resource '{}' is invalid: {e}", Raw(resource)))?;
    }
    let read = Resources::from_pb(resources).map_err(|e| e.to_string())?;
    *resources = read
        .allocated_by_default(role)
        .to_pb(Format::PostRefinement);
    Ok(())
}

/// Prints a resource that may be broken.
struct Raw<'a>(&'a pb::Resource);

impl std::fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let r = self.0;
        write!(f, "{}:", r.name)?;
        match (&r.scalar, &r.ranges, &r.set) {
            (Some(s), ..) => write!(f, "{}", s.value),
            (_, Some(ranges), _) => {
                let list: Vec<_> = ranges
                    .range
                    .iter()
                    .map(|r| format!("{}-{}", r.begin, r.end))
                    .collect();
                write!(f, "[{}]", list.join(", "))
            }
            (.., Some(set)) => write!(f, "{{{}}}", set.item.join(", ")),
            _ => Ok(()),
        }
    }
}

/// Checks a task of a LAUNCH. Returns what the task uses, and what its executor would use if
/// it had to be started (nothing for one that runs already).
pub(in crate::master) fn task(
    state: &MasterState,
    framework: &FrameworkId,
    agent: &AgentId,
    task: &pb::TaskInfo,
    offered: &Resources,
) -> Result<(Resources, Resources), String> {
    let uses = common(state, framework, agent, task)?;
    if task.executor.is_some() == task.command.is_some() {
        return Err(
            "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
                .to_owned(),
        );
    }
    let mut executor_uses = Resources::default();
    if let Some(info) = &task.executor {
        let declared = executor(state, framework, agent, info)?;
        if info.r#type.is_some() && info.r#type() != ExecutorType::Custom {
            return Err("'ExecutorInfo.type' must be 'CUSTOM'".to_owned());
        }
        if info.command.is_none() {
            return Err("'ExecutorInfo.command' must be set".to_owned());
        }
        overlap(&uses, &declared).map_err(|()| {
            format!(
                "There are overlapping resources in the task resources {uses} and executor \
                 resources {declared}"
            )
        })?;
        if !runs(state, framework, agent, info) {
            executor_uses = declared;
        }
    }
    let total = uses.plus(&executor_uses);
    if !offered.contains(&total) {
        return Err(format!(
            "Total resources {total} required by task and its executor is more than available \
             {offered}"
        ));
    }
    let share = task
        .container
        .as_ref()
        .and_then(|c| c.linux_info.as_ref())
        .and_then(|l| l.share_cgroups);
    if share == Some(false) {
        return Err(
            "Only tasks in a task group may have 'share_cgroups' set to 'false'".to_owned(),
        );
    }
    Ok((uses, executor_uses))
}

/// Checks a task group: what each task uses, and what the executor would use if it had to be
/// started.
pub(in crate::master) fn group(
    state: &MasterState,
    framework: &FrameworkId,
    agent: &AgentId,
    info: &pb::ExecutorInfo,
    tasks: &[pb::TaskInfo],
    offered: &Resources,
) -> Result<(Vec<Resources>, Resources), String> {
    let mut each = Vec::with_capacity(tasks.len());
    let mut total = Resources::default();
    let mut seen = std::collections::BTreeSet::new();
    if tasks.is_empty() {
        return Err("Task group cannot be empty".to_owned());
    }
    for task in tasks {
        let uses = common(state, framework, agent, task)?;
        if !seen.insert(task.task_id.value.as_str()) {
            return Err(format!("Task has duplicate ID: {}", task.task_id.value));
        }
        let container = task.container.as_ref();
        if container.is_some_and(|c| c.r#type() == pb::container_info::Type::Docker) {
            return Err("Docker ContainerInfo is not supported on the task".to_owned());
        }
        let shares = container
            .and_then(|c| c.linux_info.as_ref())
            .is_none_or(|l| l.share_cgroups());
        if shares && !task.limits.is_empty() {
            return Err(
                "Resource limits may only be set for tasks within a task group when the \
                 'share_cgroups' field is set to 'false'."
                    .to_owned(),
            );
        }
        overlap(&total, &uses).map_err(|()| {
            "There are overlapping resources in the task group's task resources".to_owned()
        })?;
        total.add_all(&uses);
        each.push(uses);
    }
    let declared = executor(state, framework, agent, info)?;
    match info.r#type.map(ExecutorType::try_from) {
        None => return Err("'ExecutorInfo.type' must be set".to_owned()),
        Some(Ok(ExecutorType::Unknown) | Err(_)) => {
            return Err("Unknown executor type".to_owned());
        }
        Some(Ok(ExecutorType::Default | ExecutorType::Custom)) => {}
    }
    for task in tasks {
        if let Some(own) = &task.executor
            && !same_executor(own, info)
        {
            return Err(format!(
                "The `ExecutorInfo` of task '{}' is different from executor '{}'",
                task.task_id.value, info.executor_id.value
            ));
        }
    }
    let name = &info.executor_id.value;
    let least = |what: &str, kind: &str, min: Scalar, unit: &str| match declared.scalar(what) {
        Some(has) if has >= min => Ok(()),
        has => Err(format!(
            "Executor '{name}' uses less {kind} ({}) than the minimum required ({min}{unit})",
            has.map_or_else(|| "None".to_owned(), |s| format!("{s}{unit}"))
        )),
    };
    least("cpus", "CPUs", MIN_CPUS, "")?;
    least("mem", "memory", MIN_MEM_MB, "MB")?;
    if declared.scalar("disk").is_none() {
        return Err(format!("Executor '{name}' uses no disk"));
    }
    overlap(&total, &declared).map_err(|()| {
        "There are overlapping resources in the task group's task resources and executor resources"
            .to_owned()
    })?;
    let executor_uses = if runs(state, framework, agent, info) {
        Resources::default()
    } else {
        declared
    };
    total.add_all(&executor_uses);
    if !offered.contains(&total) {
        return Err(format!(
            "Total resources {total} required by task group and its executor are more than \
             available {offered}"
        ));
    }
    Ok((each, executor_uses))
}

/// What holds for every task. Returns what it uses.
fn common(
    state: &MasterState,
    framework: &FrameworkId,
    agent: &AgentId,
    task: &pb::TaskInfo,
) -> Result<Resources, String> {
    let id = &task.task_id.value;
    if let Some(why) = ids::why_invalid(id) {
        return Err(why);
    }
    if let Some(framework) = state.frameworks.get(framework) {
        if framework.tasks.contains_key(id.as_str()) {
            return Err(format!("Task has duplicate ID: {id}"));
        }
        if framework.unreachable.iter().any(|t| t.task_id.value == *id) {
            return Err(format!("Task reuses the ID of an unreachable task: {id}"));
        }
    }
    if task.agent_id.value != agent.as_str() {
        return Err(format!(
            "Task uses invalid agent {} while agent {agent} is expected",
            task.agent_id.value
        ));
    }
    let negative = |d: &Option<pb::DurationInfo>| d.is_some_and(|d| d.nanoseconds < 0);
    if task.kill_policy.is_some_and(|k| negative(&k.grace_period)) {
        return Err("Task's 'kill_policy.grace_period' must be non-negative".to_owned());
    }
    if negative(&task.max_completion_time) {
        return Err("Task's `max_completion_time` must be non-negative".to_owned());
    }
    if task.resources.is_empty() {
        return Err("Task uses no resources".to_owned());
    }
    let uses = Resources::from_pb(&task.resources)
        .map_err(|e| format!("Task uses invalid resources: Invalid resources: {e}"))?;
    whole_gpus(&uses)
        .and_then(|()| single_role(&uses))
        .and_then(|()| revocable_or_not(&uses))
        .map_err(|e| format!("Task uses invalid resources: {e}"))?;
    if let Some(command) = &task.command {
        environment(command).map_err(|e| format!("Task's `CommandInfo` is invalid: {e}"))?;
    }
    limits(state, agent, task, &uses)?;
    Ok(uses)
}

fn limits(
    state: &MasterState,
    agent: &AgentId,
    task: &pb::TaskInfo,
    uses: &Resources,
) -> Result<(), String> {
    use pb::agent_info::capability::Type::TaskResourceLimits;
    if task.limits.is_empty() {
        return Ok(());
    }
    let capable = state.agents.get(agent).is_some_and(|a| {
        a.capabilities
            .iter()
            .any(|c| c.r#type() == TaskResourceLimits)
    });
    if !capable {
        return Err(format!(
            "Agent {agent} is not capable of handling task resource limits"
        ));
    }
    if task
        .limits
        .keys()
        .any(|name| name != "cpus" && name != "mem")
    {
        return Err("Only cpus and mem may be included in a task's resource limits".to_owned());
    }
    let below = |limit: f64, request: Scalar| {
        // NaN is below everything: it can limit nothing.
        limit.is_nan() || (limit.is_finite() && Scalar::from_f64(limit) < request)
    };
    if let Some(limit) = task.limits.get("cpus") {
        match uses.scalar("cpus") {
            None => {
                return Err(
                    "When a CPU limit is specified, a CPU request must also be specified"
                        .to_owned(),
                );
            }
            Some(request) if below(limit.value, request) => {
                return Err(
                    "The cpu limit must be greater than or equal to the cpu request".to_owned(),
                );
            }
            Some(_) => {}
        }
    }
    if let Some(limit) = task.limits.get("mem") {
        match uses.scalar("mem") {
            None => {
                return Err(
                    "When a memory limit is specified, a memory request must also be specified"
                        .to_owned(),
                );
            }
            Some(request) if below(limit.value, request) => {
                return Err(
                    "The memory limit must be greater than or equal to the memory request"
                        .to_owned(),
                );
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks an executor. Returns what it declares to use.
fn executor(
    state: &MasterState,
    framework: &FrameworkId,
    agent: &AgentId,
    info: &pb::ExecutorInfo,
) -> Result<Resources, String> {
    match info.r#type.map(ExecutorType::try_from) {
        Some(Ok(ExecutorType::Default)) => {
            if info.command.is_some() {
                return Err(
                    "'ExecutorInfo.command' must not be set for 'DEFAULT' executor".to_owned(),
                );
            }
            let container = info.container.as_ref();
            if container.is_some_and(|c| c.r#type() != pb::container_info::Type::Mesos) {
                return Err(
                    "'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor"
                        .to_owned(),
                );
            }
        }
        Some(Ok(ExecutorType::Custom)) if info.command.is_none() => {
            return Err("'ExecutorInfo.command' must be set for 'CUSTOM' executor".to_owned());
        }
        _ => {}
    }
    if let Some(why) = ids::why_invalid(&info.executor_id.value) {
        return Err(why);
    }
    if info
        .shutdown_grace_period
        .is_some_and(|d| d.nanoseconds < 0)
    {
        return Err("ExecutorInfo's 'shutdown_grace_period' must be non-negative".to_owned());
    }
    if let Some(command) = &info.command {
        environment(command).map_err(|e| format!("Executor's `CommandInfo` is invalid: {e}"))?;
    }
    let given = info.framework_id.clone().unwrap_or_default().value;
    if given != framework.as_str() {
        return Err(format!(
            "ExecutorInfo has an invalid FrameworkID (Actual: {given} vs Expected: {framework})"
        ));
    }
    let declared = Resources::from_pb(&info.resources)
        .map_err(|e| format!("Executor uses invalid resources: Invalid resources: {e}"))?;
    whole_gpus(&declared).map_err(|e| format!("Executor uses invalid resources: {e}"))?;
    single_role(&declared).map_err(|e| format!("Invalid executor resources: {e}"))?;
    revocable_or_not(&declared)
        .map_err(|e| format!("Executor mixes revocable and non-revocable resources: {e}"))?;
    let key = (framework.clone(), ExecutorId::from(&info.executor_id));
    if let Some(existing) = state.agents.get(agent).and_then(|a| a.executors.get(&key))
        && !same_executor(&existing.info, info)
    {
        let line = "-".repeat(60);
        let print = crate::http::text::print::<pb::ExecutorInfo>;
        return Err(format!(
            "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID.\n\
             {line}\nExisting ExecutorInfo:\n{}\n{line}\nExecutorInfo:\n{}\n{line}\n",
            print(&existing.info),
            print(info)
        ));
    }
    Ok(declared)
}

fn runs(
    state: &MasterState,
    framework: &FrameworkId,
    agent: &AgentId,
    info: &pb::ExecutorInfo,
) -> bool {
    let key = (framework.clone(), ExecutorId::from(&info.executor_id));
    state
        .agents
        .get(agent)
        .is_some_and(|a| a.executors.contains_key(&key))
}

/// Whether two ExecutorInfos are the same for Mesos: labels, grace period and the order of
/// URIs and variables do not count.
fn same_executor(a: &pb::ExecutorInfo, b: &pb::ExecutorInfo) -> bool {
    let resources = |info: &pb::ExecutorInfo| Resources::from_pb(&info.resources).ok();
    let same_resources = match (resources(a), resources(b)) {
        (Some(x), Some(y)) => x.contains(&y) && y.contains(&x),
        _ => a.resources == b.resources,
    };
    a.r#type == b.r#type
        && a.executor_id == b.executor_id
        && a.data.as_deref().unwrap_or_default() == b.data.as_deref().unwrap_or_default()
        && same_resources
        && same_command(
            &a.command.clone().unwrap_or_default(),
            &b.command.clone().unwrap_or_default(),
        )
        && a.framework_id == b.framework_id
        && a.name.as_deref().unwrap_or_default() == b.name.as_deref().unwrap_or_default()
        && source(a) == source(b)
        && a.container == b.container
        && a.discovery == b.discovery
}

#[allow(deprecated, reason = "it counts in Mesos")]
fn source(info: &pb::ExecutorInfo) -> &str {
    info.source.as_deref().unwrap_or_default()
}

fn same_command(a: &pb::CommandInfo, b: &pb::CommandInfo) -> bool {
    fn same_set<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        a.len() == b.len() && a.iter().all(|x| b.contains(x))
    }
    let variables = |c: &pb::CommandInfo| c.environment.clone().unwrap_or_default().variables;
    same_set(&a.uris, &b.uris)
        && a.arguments == b.arguments
        && same_set(&variables(a), &variables(b))
        && a.value() == b.value()
        && a.user() == b.user()
        && a.shell() == b.shell()
}

fn environment(command: &pb::CommandInfo) -> Result<(), String> {
    let Some(environment) = &command.environment else {
        return Ok(());
    };
    for variable in &environment.variables {
        let name = &variable.name;
        let (value, secret) = (variable.value.is_some(), &variable.secret);
        match variable.r#type() {
            VariableType::Secret => match secret {
                None => {
                    return Err(format!(
                        "Environment variable '{name}' of type 'SECRET' must have a secret set"
                    ));
                }
                Some(_) if value => {
                    return Err(format!(
                        "Environment variable '{name}' of type 'SECRET' must not have a value set"
                    ));
                }
                Some(_) => {}
            },
            VariableType::Value if !value => {
                return Err(format!(
                    "Environment variable '{name}' of type 'VALUE' must have a value set"
                ));
            }
            VariableType::Value if secret.is_some() => {
                return Err(format!(
                    "Environment variable '{name}' of type 'VALUE' must not have a secret set"
                ));
            }
            VariableType::Value => {}
            VariableType::Unknown => {
                return Err("Environment variable of type 'UNKNOWN' is not allowed".to_owned());
            }
        }
    }
    Ok(())
}

fn whole_gpus(resources: &Resources) -> Result<(), String> {
    match resources.scalar("gpus") {
        Some(gpus) if gpus.millis() % 1000 != 0 => Err(
            "Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer".to_owned(),
        ),
        _ => Ok(()),
    }
}

fn single_role(resources: &Resources) -> Result<(), String> {
    let mut first = None;
    for resource in resources {
        let Some(role) = resource.allocation() else {
            return Err("The resources are not allocated to a role".to_owned());
        };
        match first {
            None => first = Some(role),
            Some(first) if first != role => {
                return Err(format!(
                    "The resources have multiple allocation roles ('{role}' and '{first}') but \
                     only one allocation role is allowed"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn revocable_or_not(resources: &Resources) -> Result<(), String> {
    for resource in resources.iter().filter(|r| r.is_revocable()) {
        let name = resource.name();
        if resources
            .iter()
            .any(|r| r.name() == name && !r.is_revocable())
        {
            return Err(format!(
                "Cannot use both revocable and non-revocable '{name}' at the same time"
            ));
        }
    }
    Ok(())
}

/// Two parts that share a number or a name: added up, one of the two would vanish.
fn overlap(a: &Resources, b: &Resources) -> Result<(), ()> {
    use crate::resources::Value;
    for resource in b {
        if matches!(resource.value(), Value::Scalar(_)) {
            continue;
        }
        let mut both = a.filter(|r| r.name() == resource.name());
        let before = both.clone();
        both.subtract_what_is_here(&Resources::from_iter([resource.clone()]));
        if both != before {
            return Err(());
        }
    }
    Ok(())
}
