//! Status updates on their way to the master: one stream per task, in order, each update
//! repeated until the scheduler has acknowledged it, the next not before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesos::pb;

use crate::clock::Time;
use crate::ids::{ExecutorId, FrameworkId, TaskId};
use crate::protocol;

use super::super::container::ContainerId;

/// First wait for an acknowledgement, seen of a real agent: 10, 20, 40 s.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// Longest wait between two tries (Mesos).
const MAX_RETRY: Duration = Duration::from_secs(600);
/// Updates of one task that may wait. An executor that sends more has lost its mind; the
/// surplus is dropped unacknowledged, so a sane one would send it again.
const MAX_PENDING: usize = 10_000;

/// The executor's run that a stream's memory lies with, when it has one.
pub type Place = (ExecutorId, ContainerId);

/// The updates of one task.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Not acknowledged yet, the oldest first.
    pub pending: VecDeque<pb::TaskStatus>,
    /// UUIDs of all updates that were acknowledged.
    pub acknowledged: Vec<Vec<u8>>,
    /// The executor, for the master's books.
    pub executor: Option<ExecutorId>,
    /// Where it is remembered; `None`: only in memory.
    pub place: Option<Place>,
    retry: Option<(Time, Duration)>,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It was taken.
    New,
    /// It is known already; nothing changes.
    Duplicate,
    /// Too many wait already.
    Overflow,
}

/// A successful acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Whether it was the task's last update.
    pub terminal: bool,
    /// Where the stream was remembered.
    pub place: Option<Place>,
}

/// The streams of all tasks.
#[derive(Debug, Default)]
pub struct Updates {
    streams: BTreeMap<(FrameworkId, TaskId), Stream>,
    paused: bool,
}

/// Whether a task in this state is over.
pub fn is_terminal(state: pb::TaskState) -> bool {
    use pb::TaskState as S;
    match state {
        S::TaskFinished | S::TaskFailed | S::TaskKilled | S::TaskError | S::TaskLost => true,
        S::TaskDropped | S::TaskGone | S::TaskGoneByOperator => true,
        S::TaskStaging | S::TaskStarting | S::TaskRunning | S::TaskKilling => false,
        S::TaskUnreachable | S::TaskUnknown => false,
    }
}

impl Stream {
    /// A stream as it was remembered; it is sent again once the agent is registered.
    pub fn recovered(
        pending: VecDeque<pb::TaskStatus>,
        acknowledged: Vec<Vec<u8>>,
        place: Place,
    ) -> Self {
        Self {
            pending,
            acknowledged,
            executor: Some(place.0.clone()),
            place: Some(place),
            retry: None,
        }
    }

    fn latest(&self) -> Option<i32> {
        self.pending.back().map(|status| status.state)
    }

    fn message(&self, framework: &FrameworkId) -> Option<protocol::Update> {
        Some(protocol::Update {
            framework_id: framework.to_pb(),
            status: self.pending.front()?.clone(),
            latest_state: self.latest(),
            executor_id: self.executor.as_ref().map(ExecutorId::to_pb),
        })
    }

    fn send_first(&mut self, now: Time, framework: &FrameworkId, out: &mut Vec<protocol::Update>) {
        if let Some(message) = self.message(framework) {
            self.retry = Some((now + FIRST_RETRY, FIRST_RETRY));
            out.push(message);
        }
    }
}

impl Updates {
    /// No streams; nothing is sent until the agent is registered.
    pub fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            paused: true,
        }
    }

    /// Puts back a stream that was remembered.
    pub fn restore(&mut self, framework: FrameworkId, task: TaskId, stream: Stream) {
        self.streams.insert((framework, task), stream);
    }

    /// Takes an update. What is to be sent now is added to `out`.
    pub fn receive(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        executor: Option<&ExecutorId>,
        place: Option<Place>,
        status: &pb::TaskStatus,
        out: &mut Vec<protocol::Update>,
    ) -> Received {
        let task = TaskId::from(&status.task_id);
        let stream = self
            .streams
            .entry((framework.clone(), task))
            .or_insert_with(|| Stream {
                place,
                ..Stream::default()
            });
        let uuid = status.uuid();
        if stream.acknowledged.iter().any(|known| known == uuid)
            || stream.pending.iter().any(|known| known.uuid() == uuid)
        {
            return Received::Duplicate;
        }
        if stream.pending.len() >= MAX_PENDING {
            return Received::Overflow;
        }
        if stream.executor.is_none() {
            stream.executor = executor.cloned();
        }
        stream.pending.push_back(status.clone());
        if stream.pending.len() == 1 && !self.paused {
            stream.send_first(now, framework, out);
        }
        Received::New
    }

    /// The scheduler has acknowledged. `None`: that is not the update that waits.
    pub fn acknowledge(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        task: &TaskId,
        uuid: &[u8],
        out: &mut Vec<protocol::Update>,
    ) -> Option<Acknowledged> {
        let key = (framework.clone(), task.clone());
        let stream = self.streams.get_mut(&key)?;
        if stream.pending.front()?.uuid() != uuid {
            return None;
        }
        let status = stream.pending.pop_front()?;
        stream.acknowledged.push(uuid.to_vec());
        stream.retry = None;
        let terminal = is_terminal(status.state());
        let place = stream.place.clone();
        if terminal {
            if !stream.pending.is_empty() {
                tracing::warn!(%framework, %task, "updates after a terminal one are dropped");
            }
            self.streams.remove(&key);
        } else if !self.paused {
            stream.send_first(now, framework, out);
        }
        Some(Acknowledged { terminal, place })
    }

    /// The master is not there: nothing is sent.
    pub fn pause(&mut self) {
        self.paused = true;
        for stream in self.streams.values_mut() {
            stream.retry = None;
        }
    }

    /// The master is there: the oldest update of each task goes out at once.
    pub fn resume(&mut self, now: Time, out: &mut Vec<protocol::Update>) {
        self.paused = false;
        for ((framework, _), stream) in &mut self.streams {
            stream.send_first(now, framework, out);
        }
    }

    /// The framework's scheduler is there again: the oldest update of each of its tasks goes
    /// out at once.
    pub fn resend(&mut self, now: Time, framework: &FrameworkId, out: &mut Vec<protocol::Update>) {
        if self.paused {
            return;
        }
        for ((of, _), stream) in &mut self.streams {
            if of == framework {
                stream.send_first(now, framework, out);
            }
        }
    }

    /// What has waited long enough for its acknowledgement.
    pub fn due(&mut self, now: Time, out: &mut Vec<protocol::Update>) {
        for ((framework, _), stream) in &mut self.streams {
            let Some((at, waited)) = stream.retry else {
                continue;
            };
            if at > now {
                continue;
            }
            let wait = (waited * 2).min(MAX_RETRY);
            stream.retry = Some((now + wait, wait));
            out.extend(stream.message(framework));
        }
    }

    /// When [`Self::due`] has something to do next.
    pub fn deadline(&self) -> Option<Time> {
        self.streams
            .values()
            .filter_map(|stream| stream.retry.map(|(at, _)| at))
            .min()
    }

    /// The stream of a task.
    pub fn get(&self, framework: &FrameworkId, task: &TaskId) -> Option<&Stream> {
        self.streams.get(&(framework.clone(), task.clone()))
    }

    /// Forgets the updates of a framework that is gone.
    pub fn forget(&mut self, framework: &FrameworkId) {
        self.streams.retain(|(of, _), _| of != framework);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: pb::TaskState, uuid: u8) -> pb::TaskStatus {
        pb::TaskStatus {
            task_id: TaskId::from("t").to_pb(),
            state: state as i32,
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        }
    }

    struct Fixture {
        updates: Updates,
        now: Time,
        framework: FrameworkId,
    }

    impl Fixture {
        fn new() -> Self {
            let mut updates = Updates::new();
            updates.resume(Time::EPOCH, &mut Vec::new());
            Self {
                updates,
                now: Time::from_secs(1000),
                framework: FrameworkId::from("f"),
            }
        }

        fn receive(&mut self, state: pb::TaskState, uuid: u8) -> (Received, Vec<u8>) {
            let mut out = Vec::new();
            let status = status(state, uuid);
            let received =
                self.updates
                    .receive(self.now, &self.framework, None, None, &status, &mut out);
            (received, first_bytes(&out))
        }

        fn acknowledge(&mut self, uuid: u8) -> (Option<bool>, Vec<u8>) {
            let mut out = Vec::new();
            let done = self.updates.acknowledge(
                self.now,
                &self.framework,
                &TaskId::from("t"),
                &[uuid; 16],
                &mut out,
            );
            (done.map(|a| a.terminal), first_bytes(&out))
        }

        fn due_after(&mut self, seconds: u64) -> Vec<u8> {
            self.now += Duration::from_secs(seconds);
            let mut out = Vec::new();
            self.updates.due(self.now, &mut out);
            first_bytes(&out)
        }
    }

    fn first_bytes(out: &[protocol::Update]) -> Vec<u8> {
        out.iter().map(|u| u.status.uuid()[0]).collect()
    }

    const NOTHING: [u8; 0] = [];

    use pb::TaskState::{TaskFinished, TaskRunning, TaskStarting};

    #[test]
    fn an_update_is_repeated_after_10_20_and_40_seconds_until_acknowledged() {
        let mut f = Fixture::new();
        assert_eq!(f.receive(TaskRunning, 1), (Received::New, vec![1]));
        assert_eq!(f.due_after(9), NOTHING);
        assert_eq!(f.due_after(1), [1]);
        assert_eq!(f.due_after(19), NOTHING);
        assert_eq!(f.due_after(1), [1]);
        assert_eq!(f.due_after(40), [1]);
        assert_eq!(f.acknowledge(1), (Some(false), vec![]));
        assert_eq!(f.due_after(1000), NOTHING);
        assert_eq!(f.updates.deadline(), None);
    }

    #[test]
    fn the_next_update_waits_for_the_acknowledgement_and_starts_its_own_delay() {
        let mut f = Fixture::new();
        f.receive(TaskStarting, 1);
        assert_eq!(f.receive(TaskRunning, 2), (Received::New, vec![]));
        assert_eq!(f.due_after(10), [1]);
        assert_eq!(f.acknowledge(2), (None, vec![]));
        assert_eq!(f.acknowledge(1), (Some(false), vec![2]));
        assert_eq!(f.due_after(10), [2]);
    }

    #[test]
    fn a_repeated_update_changes_nothing_even_after_its_acknowledgement() {
        let mut f = Fixture::new();
        f.receive(TaskRunning, 1);
        assert_eq!(f.receive(TaskRunning, 1), (Received::Duplicate, vec![]));
        f.acknowledge(1);
        assert_eq!(f.receive(TaskRunning, 1), (Received::Duplicate, vec![]));
    }

    #[test]
    fn a_retry_tells_the_latest_state() {
        let mut f = Fixture::new();
        f.receive(TaskRunning, 1);
        f.receive(TaskFinished, 2);
        let mut out = Vec::new();
        f.updates.due(f.now + Duration::from_secs(10), &mut out);
        assert_eq!(out[0].status.state(), TaskRunning);
        assert_eq!(out[0].latest_state, Some(TaskFinished as i32));
    }

    #[test]
    fn nothing_is_sent_while_the_master_is_away_and_everything_on_its_return() {
        let mut f = Fixture::new();
        f.receive(TaskRunning, 1);
        f.updates.pause();
        assert_eq!(f.due_after(100), NOTHING);
        let mut out = Vec::new();
        f.updates.resume(f.now, &mut out);
        assert_eq!(first_bytes(&out), [1]);
    }

    #[test]
    fn a_scheduler_that_is_back_gets_at_once_what_it_has_not_acknowledged() {
        let mut f = Fixture::new();
        f.receive(TaskRunning, 1);
        f.receive(TaskFinished, 2);
        let resent = |f: &mut Fixture, framework: &str| {
            let mut out = Vec::new();
            f.updates.resend(f.now, &framework.into(), &mut out);
            first_bytes(&out)
        };
        assert_eq!(resent(&mut f, "other"), NOTHING);
        assert_eq!(resent(&mut f, "f"), [1]);
        // Nothing can be sent without a master.
        f.updates.pause();
        assert_eq!(resent(&mut f, "f"), NOTHING);
    }

    #[test]
    fn a_stream_ends_with_the_acknowledgement_of_its_terminal_update() {
        let mut f = Fixture::new();
        f.receive(TaskFinished, 1);
        assert_eq!(f.acknowledge(1), (Some(true), vec![]));
        assert!(f.updates.get(&f.framework, &TaskId::from("t")).is_none());
    }
}
