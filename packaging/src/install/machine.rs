//! Goes through steps: `state + event -> state + effect`. There is one effect at a time, and the
//! loop around it answers each with one event, so that a run is a plain sequence that can be cut
//! anywhere: whoever starts again with the same steps comes to the same end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::diff::diff;
use super::judge::{Seen, Standing, World};
use super::plan::{Action, Step, Wanted};

/// Time since any fixed moment.
pub type Time = Duration;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One step.
    pub step: Duration,
    /// A deployment of somebody else's that is in the way; then ours replaces it.
    pub lock: Duration,
    /// Between two looks, the first time.
    pub first_pause: Duration,
    /// Between two looks, at most.
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            step: Duration::from_secs(300),
            lock: Duration::from_secs(30),
            first_pause: Duration::from_millis(150),
            longest_pause: Duration::from_secs(1),
        }
    }
}

/// What the loop reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Answers [`Effect::Look`].
    World(World),
    /// Answers [`Effect::Put`], [`Effect::Scale`] and [`Effect::Delete`].
    Sent,
    /// Answers [`Effect::Do`]: what was done, for people.
    Acted(String),
    /// Answers [`Effect::Do`]: not yet, but it has come further; its time begins anew.
    Moved(String),
    /// Answers [`Effect::Pause`].
    Tick,
    /// Answers any of them: it did not work.
    Problem {
        /// Why, for people.
        text: String,
        /// Whether to try again.
        retry: bool,
    },
}

/// What the loop shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the cluster's apps.
    Look,
    /// Put this app; `force` replaces a deployment that is in the way.
    Put {
        /// Which.
        app: String,
        /// Whether to replace a deployment.
        force: bool,
    },
    /// Change the number of instances.
    Scale {
        /// Which.
        app: String,
        /// How many.
        instances: u32,
        /// Whether to replace a deployment.
        force: bool,
    },
    /// Delete this app.
    Delete(String),
    /// Do something else.
    Do(Action),
    /// Wait.
    Pause(Duration),
    /// Everything is done.
    Finish,
    /// It cannot go on.
    Fail(Failure),
}

/// Why it cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// An app of that name belongs to another installation.
    #[error(
        "{app} belongs to another installation{}: choose another service.name, or remove that one first",
        .id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default()
    )]
    Foreign {
        /// Which app.
        app: String,
        /// Whose, where it says so.
        id: Option<String>,
    },
    /// It takes too long.
    #[error("{step} took more than {} s: {why}", .limit.as_secs())]
    Timeout {
        /// Which step.
        step: String,
        /// How long it was given.
        limit: Duration,
        /// What was waited for.
        why: String,
    },
    /// Something does not work, and will not by waiting.
    #[error("{step}: {why}")]
    Refused {
        /// Which step.
        step: String,
        /// Why.
        why: String,
    },
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A step begins.
    Begin(String),
    /// What it waits for.
    Waiting(String),
    /// It has come further, and what it waits for now.
    Moved(String),
    /// It is done; the text may be empty.
    Done(String),
    /// It failed.
    Failed,
}

/// The next effect, and what to show before.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// What to show.
    pub notes: Vec<Note>,
    /// What to do.
    pub effect: Effect,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    install_id: String,
    wanted: BTreeMap<String, Value>,
    steps: Vec<Step>,
    limits: Limits,
    at: usize,
    begun: Time,
    pause: Duration,
    /// When a change was sent in this step.
    sent: Option<Time>,
    why: String,
}

impl Machine {
    /// A machine for these steps.
    pub fn new(install_id: &str, wanted: &[Wanted], steps: Vec<Step>, limits: Limits) -> Self {
        Self {
            install_id: install_id.to_owned(),
            wanted: wanted
                .iter()
                .map(|w| (w.id.clone(), w.definition.clone()))
                .collect(),
            steps,
            limits,
            at: 0,
            begun: Duration::ZERO,
            pause: limits.first_pause,
            sent: None,
            why: String::new(),
        }
    }

    /// Which step is under way, from 0.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The steps that have been begun: what a rollback may have to take back.
    pub fn begun_steps(&self) -> &[Step] {
        &self.steps[..(self.at + 1).min(self.steps.len())]
    }

    /// Whether the step that is under way may be left before its end, because it only waits for what
    /// others do one after the other.
    pub fn may_be_left(&self) -> bool {
        matches!(self.steps.get(self.at), Some(Step::Do(Action::Rollout)))
    }

    /// The first effect.
    pub fn begin(&mut self, now: Time) -> Turn {
        let mut notes = Vec::new();
        let effect = self.enter(now, &mut notes);
        Turn { notes, effect }
    }

    /// The next effect.
    pub fn step(&mut self, now: Time, event: Event) -> Turn {
        let mut notes = Vec::new();
        let effect = match event {
            Event::World(world) => self.look(now, &world, &mut notes),
            // How it goes on is decided by what is there, not by what was answered.
            Event::Sent => {
                self.sent = Some(now);
                self.pause = self.limits.first_pause;
                Effect::Look
            }
            Event::Acted(text) => self.done(now, text, &mut notes),
            Event::Moved(text) => {
                self.begun = now;
                self.pause = self.limits.first_pause;
                self.why.clone_from(&text);
                notes.push(Note::Moved(text));
                Effect::Pause(self.pause)
            }
            Event::Tick => self.first(),
            Event::Problem { text, retry: true } => self.wait(now, text, &mut notes),
            Event::Problem { text, retry: false } => {
                notes.push(Note::Failed);
                Effect::Fail(Failure::Refused {
                    step: self.name(),
                    why: text,
                })
            }
        };
        Turn { notes, effect }
    }

    /// The step that is under way, for people.
    pub fn name(&self) -> String {
        self.steps
            .get(self.at)
            .map(Step::to_string)
            .unwrap_or_default()
    }

    /// What a step begins with, and goes on with after a pause.
    fn first(&self) -> Effect {
        match self.steps.get(self.at) {
            None => Effect::Finish,
            Some(Step::Do(action)) => Effect::Do(action.clone()),
            Some(_) => Effect::Look,
        }
    }

    fn enter(&mut self, now: Time, notes: &mut Vec<Note>) -> Effect {
        self.begun = now;
        self.pause = self.limits.first_pause;
        self.sent = None;
        self.why.clear();
        if self.at < self.steps.len() {
            notes.push(Note::Begin(self.name()));
        }
        self.first()
    }

    fn done(&mut self, now: Time, text: String, notes: &mut Vec<Note>) -> Effect {
        notes.push(Note::Done(text));
        self.at += 1;
        self.enter(now, notes)
    }

    fn wait(&mut self, now: Time, why: String, notes: &mut Vec<Note>) -> Effect {
        if now.saturating_sub(self.begun) >= self.limits.step {
            notes.push(Note::Failed);
            return Effect::Fail(Failure::Timeout {
                step: self.name(),
                limit: self.limits.step,
                why,
            });
        }
        if self.why != why {
            notes.push(Note::Waiting(why.clone()));
            self.why = why;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(self.limits.longest_pause);
        Effect::Pause(pause)
    }

    fn look(&mut self, now: Time, world: &World, notes: &mut Vec<Note>) -> Effect {
        let Some(step) = self.steps.get(self.at).cloned() else {
            return Effect::Finish;
        };
        let app = match &step {
            Step::Put { app, .. }
            | Step::Await { app }
            | Step::Scale { app, .. }
            | Step::Delete { app } => app.clone(),
            Step::Do(action) => return Effect::Do(action.clone()),
        };
        let seen = world.apps.get(&app);
        if let Some(seen) = seen
            && seen.install_id() != Some(&self.install_id)
        {
            notes.push(Note::Failed);
            return Effect::Fail(Failure::Foreign {
                app,
                id: seen.install_id().map(str::to_owned),
            });
        }
        match step {
            Step::Put { wait, .. } => self.put(now, app, seen, wait, notes),
            Step::Await { .. } => self.settle(now, seen, notes),
            Step::Scale { instances, .. } => self.scale(now, app, seen, instances, notes),
            Step::Delete { .. } => match seen {
                None => self.done(now, String::new(), notes),
                Some(_) if self.sent.is_some() => {
                    self.wait(now, "its tasks are ending".to_owned(), notes)
                }
                Some(_) => Effect::Delete(app),
            },
            Step::Do(action) => Effect::Do(action),
        }
    }

    /// Whether to send a change now, and with force or not; `None` is not yet.
    fn may_send(&self, now: Time, seen: Option<&Seen>) -> Option<bool> {
        /// After this a change that was sent has been taken or was lost.
        const SEND_AGAIN: Duration = Duration::from_secs(5);
        if let Some(sent) = self.sent
            && now.saturating_sub(sent) < SEND_AGAIN
        {
            return None;
        }
        let locked = seen.is_some_and(|s| !s.deployments.is_empty());
        let patient = now.saturating_sub(self.begun) < self.limits.lock;
        match (locked, patient) {
            (false, _) => Some(false),
            (true, true) => None,
            (true, false) => Some(true),
        }
    }

    fn put(
        &mut self,
        now: Time,
        app: String,
        seen: Option<&Seen>,
        wait: bool,
        notes: &mut Vec<Note>,
    ) -> Effect {
        let same = match (seen, self.wanted.get(&app)) {
            (Some(seen), Some(wanted)) => diff(wanted, &seen.definition).is_empty(),
            _ => false,
        };
        if same {
            return match wait {
                true => self.settle(now, seen, notes),
                false => {
                    let text = if self.sent.is_some() {
                        ""
                    } else {
                        "as it should be"
                    };
                    self.done(now, text.to_owned(), notes)
                }
            };
        }
        match self.may_send(now, seen) {
            Some(force) => Effect::Put { app, force },
            None => {
                let what = match seen.map(|s| s.deployments.join(", ")) {
                    Some(ids) if !ids.is_empty() => format!("deployment {ids} is under way"),
                    _ => "Marathon does not show it yet".to_owned(),
                };
                self.wait(now, what, notes)
            }
        }
    }

    /// Waits until an app is healthy.
    fn settle(&mut self, now: Time, seen: Option<&Seen>, notes: &mut Vec<Note>) -> Effect {
        match Standing::of(seen) {
            Standing::Healthy => self.done(now, String::new(), notes),
            // Without instances it will never be.
            Standing::Stopped => self.done(now, "has no instances".to_owned(), notes),
            Standing::Absent => self.wait(now, "Marathon does not show it".to_owned(), notes),
            Standing::Changing(why) | Standing::Unhealthy(why) => self.wait(now, why, notes),
        }
    }

    fn scale(
        &mut self,
        now: Time,
        app: String,
        seen: Option<&Seen>,
        instances: u32,
        notes: &mut Vec<Note>,
    ) -> Effect {
        let Some(found) = seen else {
            return self.done(now, "is not there".to_owned(), notes);
        };
        if found.instances != instances {
            return match self.may_send(now, seen) {
                Some(force) => Effect::Scale {
                    app,
                    instances,
                    force,
                },
                None => self.wait(now, "another deployment is under way".to_owned(), notes),
            };
        }
        match Standing::of(seen) {
            Standing::Stopped if instances == 0 => self.done(now, String::new(), notes),
            Standing::Healthy => self.done(now, String::new(), notes),
            other => self.wait(now, other.why().to_owned(), notes),
        }
    }
}

#[cfg(test)]
mod tests;
