//! The agent's memory on disk: [`Record`]s go in, a [`RecoveredState`] comes out after a
//! restart. Every file is JSON and replaced as a whole, so a crash leaves the old or the new.

use std::fs;
use std::path::Path;

use mesos::codec;
use mesos::pb;
use prost_reflect::ReflectMessage;
use serde_json::{Value, json};

use super::container::{ContainerId, ProcessRef};
use super::core::{Record, RecoveredExecutor, RecoveredState, RecoveredTask, Run};
use super::disk::{self, DiskError};
use super::paths::Layout;
use crate::clock::Time;
use crate::ids::{AgentId, ExecutorId, FrameworkId, TaskId};

/// What tells one boot of the machine from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The agent's memory.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    agent: AgentId,
}

impl Store {
    /// Opens the memory and reads what an earlier process left there. After a boot of the
    /// machine its processes are known to be gone.
    pub fn open(layout: Layout) -> Result<(Self, Option<RecoveredState>), DiskError> {
        let boot =
            fs::read_to_string(BOOT_ID).map_err(disk::io_error("read", Path::new(BOOT_ID)))?;
        let known = disk::read_optional(&layout.boot_id())?;
        let rebooted = known.is_some_and(|known| known != boot.as_bytes());
        if rebooted && layout.runtime_dir.exists() {
            fs::remove_dir_all(&layout.runtime_dir)
                .map_err(disk::io_error("remove", &layout.runtime_dir))?;
        }
        disk::write_atomic(&layout.boot_id(), boot.as_bytes())?;
        disk::make_dir(&layout.runtime_dir)?;

        let latest = layout.meta_agents().join("latest");
        let agent = match fs::read_link(&latest) {
            Ok(name) => AgentId::from(name.to_string_lossy().into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let store = Self {
                    layout,
                    agent: AgentId::from(""),
                };
                return Ok((store, None));
            }
            Err(error) => return Err(disk::io_error("read link", &latest)(error)),
        };
        let store = Self { layout, agent };
        let state = store.load(rebooted)?;
        Ok((store, Some(state)))
    }

    /// Writes one thing down.
    pub fn remember(&mut self, record: &Record) -> Result<(), DiskError> {
        match record {
            Record::Agent(info) => {
                self.agent = AgentId::from(info.id.as_ref().map_or("", |id| id.value.as_str()));
                let path = self.layout.meta_agent(&self.agent).join("slave.info");
                disk::write_json(&path, &codec::to_json(info))?;
                let link = self.layout.meta_agents().join("latest");
                disk::link_atomic(Path::new(self.agent.as_str()), &link)
            }
            Record::Resources(resources) => {
                let path = self.resources();
                let list: Vec<Value> = resources.iter().map(codec::to_json).collect();
                disk::write_json(&path, &Value::from(list))
            }
            Record::Framework(info) => {
                let id = FrameworkId::from(info.id.as_ref().map_or("", |id| id.value.as_str()));
                let path = self.layout.meta_framework(&self.agent, &id);
                disk::write_json(&path.join("framework.info"), &codec::to_json(info))
            }
            Record::Executor {
                framework,
                info,
                container,
                command_task,
            } => {
                let executor = ExecutorId::from(&info.executor_id);
                let run = Run {
                    framework: framework.clone(),
                    executor,
                    container: container.clone(),
                };
                let path = self.run(&run).join("executor.info");
                let value = json!({
                    "executor": codec::to_json(info),
                    "command_task": command_task,
                });
                disk::write_json(&path, &value)
            }
            Record::Task { run, task } => {
                let id = TaskId::from(&task.task_id);
                let path = self.task(run, &id).join("task.info");
                disk::write_json(&path, &codec::to_json(task))
            }
            Record::Updates {
                run,
                task,
                pending,
                acknowledged,
                statuses,
                done,
            } => {
                let list = |all: &[pb::TaskStatus]| -> Vec<Value> {
                    all.iter().map(codec::to_json).collect()
                };
                let value = json!({
                    "pending": list(pending),
                    "acknowledged": acknowledged,
                    "statuses": list(statuses),
                    "done": done,
                });
                disk::write_json(&self.task(run, task).join("task.updates"), &value)
            }
            Record::ExecutorDone(run) => {
                disk::write_atomic(&self.run(run).join("executor.sentinel"), b"")
            }
        }
    }

    /// Where the init process of a run is remembered.
    pub fn pid_file(&self, run: &Run) -> std::path::PathBuf {
        self.run(run).join("pids/forked.pid")
    }

    /// What is left of a run: its sandbox, and its memory.
    pub fn traces_of(&self, run: &Run) -> [std::path::PathBuf; 2] {
        let sandbox =
            self.layout
                .sandbox(&self.agent, &run.framework, &run.executor, &run.container);
        [sandbox, self.run(run)]
    }

    /// Runs that ended under an earlier process, with the time of their end, the oldest first.
    pub fn finished(&self) -> Result<Vec<(Time, Run)>, DiskError> {
        let mut found = Vec::new();
        if self.agent.as_str().is_empty() {
            return Ok(found);
        }
        let frameworks = self.layout.meta_frameworks(&self.agent);
        for framework in disk::list_dir(&frameworks)?
            .into_iter()
            .map(FrameworkId::from)
        {
            for run in self.runs_of(&framework)? {
                let path = self.run(&run).join("executor.sentinel");
                let Ok(ended) = fs::metadata(&path).and_then(|m| m.modified()) else {
                    continue;
                };
                let since = ended
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default();
                found.push((Time::EPOCH + since, run));
            }
        }
        found.sort_by_key(|(ended, _)| *ended);
        Ok(found)
    }

    fn runs_of(&self, framework: &FrameworkId) -> Result<Vec<Run>, DiskError> {
        let mut found = Vec::new();
        let executors = self
            .layout
            .meta_framework(&self.agent, framework)
            .join("executors");
        for executor in disk::list_dir(&executors)?
            .into_iter()
            .map(ExecutorId::from)
        {
            let runs = self
                .layout
                .meta_executor(&self.agent, framework, &executor)
                .join("runs");
            for name in disk::list_dir(&runs)? {
                found.push(Run {
                    framework: framework.clone(),
                    executor: executor.clone(),
                    container: ContainerId::from(name),
                });
            }
        }
        Ok(found)
    }

    fn resources(&self) -> std::path::PathBuf {
        self.layout.meta_agent(&self.agent).join("resources.json")
    }

    fn load_resources(&self) -> Result<Option<Vec<pb::Resource>>, DiskError> {
        let path = self.resources();
        let Some(list) = disk::read_json::<Vec<Value>>(&path)? else {
            return Ok(None);
        };
        let read = |value| codec::from_json(value).map_err(|error| corrupt(&path, &error));
        list.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    fn run(&self, run: &Run) -> std::path::PathBuf {
        self.layout
            .meta_run(&self.agent, &run.framework, &run.executor, &run.container)
    }

    fn task(&self, run: &Run, task: &TaskId) -> std::path::PathBuf {
        self.layout.meta_task(
            &self.agent,
            &run.framework,
            &run.executor,
            &run.container,
            task,
        )
    }

    fn load(&self, rebooted: bool) -> Result<RecoveredState, DiskError> {
        let path = self.layout.meta_agent(&self.agent).join("slave.info");
        let mut state = RecoveredState {
            info: message(&path)?.ok_or_else(|| missing(&path))?,
            frameworks: Vec::new(),
            resources: self.load_resources()?,
        };
        let frameworks = self.layout.meta_frameworks(&self.agent);
        for name in disk::list_dir(&frameworks)? {
            let framework = FrameworkId::from(name);
            let dir = self.layout.meta_framework(&self.agent, &framework);
            let Some(info) = message::<pb::FrameworkInfo>(&dir.join("framework.info"))? else {
                // The crash came between the directory and the file: nothing was started yet.
                continue;
            };
            let mut executors = Vec::new();
            for run in self.runs_of(&framework)? {
                executors.extend(self.load_run(&run, rebooted)?);
            }
            state.frameworks.push((info, executors));
        }
        Ok(state)
    }

    fn load_run(&self, run: &Run, rebooted: bool) -> Result<Option<RecoveredExecutor>, DiskError> {
        let dir = self.run(run);
        if dir.join("executor.sentinel").exists() {
            return Ok(None);
        }
        let path = dir.join("executor.info");
        let Some(value) = disk::read_json::<Value>(&path)? else {
            return Ok(None);
        };
        let info = codec::from_json::<pb::ExecutorInfo>(&value["executor"])
            .map_err(|error| corrupt(&path, &error))?;
        let process = disk::read_json::<ProcessRef>(&self.pid_file(run))?.filter(|_| !rebooted);
        let mut tasks = Vec::new();
        for name in disk::list_dir(&dir.join("tasks"))? {
            tasks.extend(self.load_task(run, &TaskId::from(name))?);
        }
        Ok(Some(RecoveredExecutor {
            info,
            container: run.container.clone(),
            command_task: value["command_task"].as_bool().unwrap_or(false),
            process,
            tasks,
        }))
    }

    fn load_task(&self, run: &Run, id: &TaskId) -> Result<Option<RecoveredTask>, DiskError> {
        let dir = self.task(run, id);
        // A task that ended before it was sent has updates only.
        let task = message::<pb::Task>(&dir.join("task.info"))?;
        let path = dir.join("task.updates");
        let updates = disk::read_json::<Value>(&path)?;
        let (task, updates) = match (task, updates) {
            (None, None) => return Ok(None),
            (task, updates) => (task, updates.unwrap_or_else(|| json!({}))),
        };
        let list = |key: &str| -> Result<Vec<pb::TaskStatus>, DiskError> {
            let items = updates[key]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            items
                .iter()
                .map(|item| codec::from_json(item).map_err(|error| corrupt(&path, &error)))
                .collect()
        };
        let mut task = task.unwrap_or_else(|| pb::Task {
            task_id: id.to_pb(),
            framework_id: run.framework.to_pb(),
            executor_id: Some(run.executor.to_pb()),
            agent_id: self.agent.to_pb(),
            state: pb::TaskState::TaskStaging as i32,
            ..Default::default()
        });
        task.statuses = list("statuses")?;
        Ok(Some(RecoveredTask {
            task,
            pending: list("pending")?,
            acknowledged: serde_json::from_value(updates["acknowledged"].clone())
                .unwrap_or_default(),
            done: updates["done"].as_bool().unwrap_or(false),
        }))
    }
}

fn message<M: ReflectMessage + prost::Message + Default>(
    path: &Path,
) -> Result<Option<M>, DiskError> {
    disk::read_json::<Value>(path)?
        .map(|value| codec::from_json(&value).map_err(|error| corrupt(path, &error)))
        .transpose()
}

fn corrupt(path: &Path, error: &dyn std::fmt::Display) -> DiskError {
    DiskError::Corrupt {
        path: path.to_owned(),
        what: error.to_string(),
    }
}

fn missing(path: &Path) -> DiskError {
    corrupt(path, &"it is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: pb::TaskState, uuid: u8) -> pb::TaskStatus {
        pb::TaskStatus {
            task_id: TaskId::from("t1").to_pb(),
            state: state as i32,
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        }
    }

    fn filled(layout: &Layout) -> Run {
        let (mut store, before) = Store::open(layout.clone()).unwrap();
        assert!(before.is_none());
        let run = Run {
            framework: "F".into(),
            executor: "e1".into(),
            container: "c1".into(),
        };
        let task = pb::Task {
            name: "t1".into(),
            task_id: TaskId::from("t1").to_pb(),
            framework_id: run.framework.to_pb(),
            agent_id: AgentId::from("S0").to_pb(),
            state: pb::TaskState::TaskStaging as i32,
            limits: [(
                "mem".to_owned(),
                pb::value::Scalar {
                    value: f64::INFINITY,
                },
            )]
            .into(),
            ..Default::default()
        };
        for record in [
            Record::Agent(pb::AgentInfo {
                hostname: "h".into(),
                id: Some(AgentId::from("S0").to_pb()),
                ..Default::default()
            }),
            Record::Framework(pb::FrameworkInfo {
                id: Some(run.framework.to_pb()),
                checkpoint: Some(true),
                ..Default::default()
            }),
            Record::Executor {
                framework: run.framework.clone(),
                info: pb::ExecutorInfo {
                    executor_id: run.executor.to_pb(),
                    data: Some(vec![0, 255]),
                    ..Default::default()
                },
                container: run.container.clone(),
                command_task: true,
            },
            Record::Task {
                run: run.clone(),
                task,
            },
            Record::Updates {
                run: run.clone(),
                task: "t1".into(),
                pending: vec![status(pb::TaskState::TaskRunning, 2)],
                acknowledged: vec![vec![1; 16]],
                statuses: vec![
                    status(pb::TaskState::TaskStarting, 1),
                    status(pb::TaskState::TaskRunning, 2),
                ],
                done: false,
            },
        ] {
            store.remember(&record).unwrap();
        }
        run
    }

    #[test]
    fn what_was_remembered_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::below(dir.path());
        let run = filled(&layout);
        let (mut store, state) = Store::open(layout.clone()).unwrap();
        let state = state.unwrap();
        assert_eq!(state.info.id, Some(AgentId::from("S0").to_pb()));
        let (framework, executors) = &state.frameworks[0];
        assert!(framework.checkpoint());
        let executor = &executors[0];
        assert!(executor.command_task);
        assert_eq!(executor.info.data.as_deref(), Some(&[0, 255][..]));
        let task = &executor.tasks[0];
        assert_eq!(task.task.limits["mem"].value, f64::INFINITY);
        assert_eq!(task.pending.len(), 1);
        assert_eq!(task.acknowledged, [vec![1; 16]]);
        assert_eq!(task.task.statuses.len(), 2);

        store.remember(&Record::ExecutorDone(run)).unwrap();
        let (store, state) = Store::open(layout).unwrap();
        assert!(state.unwrap().frameworks[0].1.is_empty());
        let finished = store.finished().unwrap();
        assert_eq!(finished.len(), 1);
        assert!(
            store.traces_of(&finished[0].1)[1]
                .join("executor.sentinel")
                .exists()
        );
    }

    #[test]
    fn a_corrupt_file_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::below(dir.path());
        let run = filled(&layout);
        let (store, _) = Store::open(layout.clone()).unwrap();
        let path = store.task(&run, &"t1".into()).join("task.updates");
        fs::write(&path, b"{\"pending\": [{\"state\": ").unwrap();
        let error = Store::open(layout).unwrap_err().to_string();
        assert!(error.contains("task.updates is corrupt"), "{error}");
        assert!(error.contains("remove it"), "{error}");
    }
}
