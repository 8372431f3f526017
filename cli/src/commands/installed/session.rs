//! What a command that changes an installed cluster goes through its steps with.

use std::path::Path;
use std::time::Duration;

use packaging::install::judge::World;
use packaging::install::machine::Limits;
use packaging::install::plan::{Step, Wanted};

use super::print;
use crate::args::{Manner, Shape};
use crate::install::actions::End;
use crate::install::work::Work;
use crate::install::{self, Home, Record, Site};
use crate::progress::Progress;

/// One command's view of a cluster.
pub(super) struct Session<'a> {
    /// This machine's directory of it.
    pub home: &'a Home,
    /// Its record, which steps and their end change.
    pub record: &'a mut Record,
    /// Where it lives.
    pub site: &'a Site,
    /// Shows what is done.
    pub progress: &'a Progress,
    /// Where programs such as etcdctl are.
    pub programs: Option<&'a Path>,
    /// How long one step may take, in seconds.
    pub seconds: u64,
    /// Whether deployments that are in the way are replaced at once, instead of waited for.
    pub impatient: bool,
    shape: Shape,
    /// What has been done, and what became of the cluster.
    done: Vec<String>,
    phase: Option<&'static str>,
}

impl<'a> Session<'a> {
    /// For a command that needs no program of upstream's.
    pub fn new(
        home: &'a Home,
        record: &'a mut Record,
        site: &'a Site,
        progress: &'a Progress,
        manner: &Manner,
    ) -> Self {
        Self {
            home,
            record,
            site,
            progress,
            programs: None,
            seconds: manner.timeout,
            impatient: false,
            shape: manner.output,
            done: Vec::new(),
            phase: None,
        }
    }

    /// Prints what was done, for programs; people have seen it.
    pub fn result(&self) -> Result<(), install::Error> {
        print::result(self.shape, self.home, self.record, self.phase, &self.done)
    }

    /// Makes steps of what is there now, and goes through them; then `end` is noted.
    pub async fn go(
        &mut self,
        wanted: &[Wanted],
        steps: impl FnOnce(&World) -> Vec<Step>,
        end: End,
    ) -> Result<(), install::Error> {
        let world = self.site.world(&self.record.name).await?;
        self.run(wanted, steps(&world), end).await
    }

    /// Goes through steps; then `end` is noted.
    pub async fn run(
        &mut self,
        wanted: &[Wanted],
        steps: Vec<Step>,
        end: End,
    ) -> Result<(), install::Error> {
        let options = self.record.parsed_options()?;
        let usual = Limits::default();
        let limits = Limits {
            step: Duration::from_secs(self.seconds),
            lock: match self.impatient {
                true => Duration::ZERO,
                false => usual.lock,
            },
            ..usual
        };
        let mut work = Work {
            site: self.site,
            home: self.home,
            record: self.record,
            options: &options,
            wanted,
            progress: self.progress,
            programs: self.programs,
            end,
            follow: None,
        };
        let names: Vec<String> = steps.iter().map(ToString::to_string).collect();
        let forgets = matches!(work.end, End::Forget);
        work.run(steps, limits).await?;
        self.done.extend(names);
        self.phase = forgets.then_some("removed");
        Ok(())
    }
}
