//! Goes through the steps of a command: the loop around [`packaging::install::machine`].

use std::time::Instant;

use packaging::install::machine::{Effect, Event, Limits, Machine, Note, Turn};
use packaging::install::plan::{Action, Step, Wanted};
use serde_json::json;

use super::actions::{self, Outcome};
use super::{Error, Home, Phase, Record, Site, rolling};
use crate::progress::{Progress, Step as Shown};

/// What a command works on.
pub struct Work<'a> {
    /// Where the cluster lives.
    pub site: &'a Site,
    /// This machine's directory of it.
    pub home: &'a Home,
    /// Its record; actions note there what they find.
    pub record: &'a mut Record,
    /// Its options.
    pub options: &'a packaging::options::Options,
    /// The apps as they are to be.
    pub wanted: &'a [Wanted],
    /// Shows what is done.
    pub progress: &'a Progress,
    /// Where programs such as etcdctl are.
    pub programs: Option<&'a std::path::Path>,
    /// What is noted when everything is done.
    pub end: actions::End,
    /// The nodes, once they are waited for.
    pub follow: Option<rolling::Follow>,
}

impl Work<'_> {
    /// Does the steps.
    pub async fn run(&mut self, steps: Vec<Step>, limits: Limits) -> Result<(), Error> {
        let begun = Instant::now();
        let mut machine = Machine::new(&self.record.id, self.wanted, steps, limits);
        let mut shown: Option<Shown> = None;
        let mut turn: Turn = machine.begin(begun.elapsed());
        let mut at = machine.position();
        loop {
            let goes_on = !matches!(turn.effect, Effect::Finish | Effect::Fail(_));
            let between = machine.position() != at || machine.may_be_left();
            if between && goes_on && self.is_to_pause() {
                // The step that was under way is done; the note about the next one is not shown.
                for note in turn.notes.drain(..).filter(|n| matches!(n, Note::Done(_))) {
                    self.show(note, &mut shown);
                }
                return Err(Error::Paused(machine.name()));
            }
            at = machine.position();
            for note in turn.notes.drain(..) {
                self.show(note, &mut shown);
            }
            let event = match turn.effect {
                Effect::Finish => return Ok(()),
                Effect::Fail(failure) => {
                    self.last_words().await;
                    return Err(failure.into());
                }
                effect => self.answer(effect).await,
            };
            turn = machine.step(begun.elapsed(), event);
        }
    }

    /// Shows what the tasks said that failed.
    async fn last_words(&self) {
        /// So much of it.
        const BYTES: u64 = 1500;
        let words = super::sandboxes::last_words(self.site, &self.record.name, BYTES).await;
        for (app, text) in words {
            self.progress
                .note(&format!("the last task of {app} that failed said:"));
            for line in text.lines() {
                self.progress.note(&format!("  | {line}"));
            }
        }
    }

    /// Only upgrades pause.
    fn is_to_pause(&self) -> bool {
        self.record.phase == Phase::Upgrading && self.home.pause_is_asked()
    }

    fn show(&self, note: Note, shown: &mut Option<Shown>) {
        match note {
            Note::Begin(what) => *shown = Some(self.progress.step(&what)),
            Note::Waiting(why) => {
                if let Some(step) = shown {
                    step.detail(&why);
                }
            }
            Note::Moved(news) => {
                if let Some(step) = shown {
                    step.news(&news);
                }
            }
            Note::Done(result) => {
                if let Some(step) = shown.take() {
                    step.done(&result);
                }
            }
            Note::Failed => {
                if let Some(step) = shown.take() {
                    step.failed();
                }
            }
        }
    }

    async fn answer(&mut self, effect: Effect) -> Event {
        let marathon = &self.site.marathon;
        let sent = match effect {
            Effect::Look => {
                return match self.site.world(&self.record.name).await {
                    Ok(world) => Event::World(world),
                    Err(error) => problem(&error),
                };
            }
            Effect::Pause(pause) => {
                tokio::time::sleep(pause).await;
                return Event::Tick;
            }
            Effect::Do(action) => return self.act(&action).await,
            Effect::Put { app, force } => match self.wanted.iter().find(|w| w.id == app) {
                Some(wanted) => marathon
                    .put(&app, &wanted.definition, force)
                    .await
                    .map(drop),
                None => {
                    return Event::Problem {
                        text: format!("nobody has defined {app}"),
                        retry: false,
                    };
                }
            },
            Effect::Scale {
                app,
                instances,
                force,
            } => {
                let members = json!({"instances": instances});
                marathon.patch(&app, &members, force).await.map(drop)
            }
            Effect::Delete(app) => marathon.delete(&app, true).await.map(drop),
            // The loop has answered these.
            Effect::Finish | Effect::Fail(_) => Ok(()),
        };
        match sent {
            Ok(()) => Event::Sent,
            Err(error) => Event::Problem {
                retry: error.retryable(),
                text: error.to_string(),
            },
        }
    }

    async fn act(&mut self, action: &Action) -> Event {
        match actions::act(self, action).await {
            Ok(Outcome::Done(text)) => Event::Acted(text),
            Ok(Outcome::Moved(text)) => Event::Moved(text),
            Ok(Outcome::NotYet(text)) => Event::Problem { text, retry: true },
            Err(error) => problem(&error),
        }
    }
}

fn problem(error: &Error) -> Event {
    let retry = match error {
        Error::Marathon(error) => error.retryable(),
        Error::Mesos { .. } | Error::Cluster(_) => true,
        Error::Etcd(error) => error.retryable(),
        _ => false,
    };
    Event::Problem {
        text: error.to_string(),
        retry,
    }
}
