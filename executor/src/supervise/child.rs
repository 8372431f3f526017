//! The task of one component: start, ready, ended, again.

use std::io;
use std::time::{Duration, Instant};

use seam::message::ToFramework;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::liveness::{self, Notifications};
use super::process::Process;
use super::record::{self, Record};
use super::{Backoff, Settings, State, log, readiness};
use crate::component::Component;

/// How often readiness is asked while it is awaited.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often the log's size is looked at.
const LOG_EVERY: Duration = Duration::from_secs(5);

struct Child {
    component: Component,
    settings: Settings,
    reports: mpsc::Sender<ToFramework>,
    state: watch::Sender<State>,
    definition: String,
}

/// Runs until `stop`.
pub async fn run(
    component: Component,
    settings: Settings,
    reports: mpsc::Sender<ToFramework>,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let definition = record::digest(&component);
    let child = Child {
        component,
        settings,
        reports,
        state,
        definition,
    };
    let mut backoff = Backoff::default();
    let mut failed_before = false;
    let mut process = child.adopt().await;
    loop {
        let began = Instant::now();
        let how = match child.begin(process.take()).await {
            Ok((process, heard)) => {
                let how = tokio::select! {
                    how = child.watch(&process, &heard, &mut failed_before) => Some(how),
                    () = stop.cancelled() => None,
                };
                match how {
                    Some(how) => how,
                    None => {
                        let how = process.stop(child.component.stop_grace).await;
                        tracing::info!(component = child.name(), "stopped: {how}");
                        record::forget(&child.settings.records, child.name());
                        return;
                    }
                }
            }
            Err(error) => format!("it could not be started: {error}"),
        };
        record::forget(&child.settings.records, child.name());
        let delay = backoff.next(began.elapsed(), rand::random());
        failed_before = true;
        child.failed(&how, delay);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl Child {
    fn name(&self) -> &str {
        &self.component.name
    }

    /// What runs already, or a new process; and where it is heard.
    async fn begin(&self, adopted: Option<Process>) -> io::Result<(Process, Notifications)> {
        // Before the process, which may speak up at once.
        let heard = Notifications::of(self.component.liveness.as_ref())?;
        let process = match adopted {
            Some(process) => process,
            None => self.start().await?,
        };
        Ok((process, heard))
    }

    async fn start(&self) -> io::Result<Process> {
        let process = Process::start(&self.component, &self.settings, self.definition.clone())?;
        if let Err(error) = record::write(&self.settings.records, self.name(), &process.record) {
            // A successor would not find it and start a second one.
            process.stop(Duration::ZERO).await;
            let dir = self.settings.records.display();
            return Err(io::Error::new(
                error.kind(),
                format!("noting it in {dir}: {error}"),
            ));
        }
        tracing::info!(component = self.name(), pid = process.record.pid, "started");
        Ok(process)
    }

    /// The process that a predecessor of this executor started, if its definition is the same.
    /// Another one is stopped, since two of them would fight.
    async fn adopt(&self) -> Option<Process> {
        let found: Record = record::find(&self.settings.records, self.name())?;
        let same = found.definition == self.definition;
        let process = Process::hold(found).ok()?;
        if same {
            tracing::info!(
                component = self.name(),
                pid = process.record.pid,
                "taken over"
            );
            return Some(process);
        }
        let how = process.stop(self.component.stop_grace).await;
        tracing::info!(
            component = self.name(),
            "stopped for its new definition: {how}"
        );
        None
    }

    /// From start to end. Returns how it ended.
    async fn watch(
        &self,
        process: &Process,
        heard: &Notifications,
        failed_before: &mut bool,
    ) -> String {
        let ready = async {
            while !readiness::ready(&self.component.readiness).await {
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        tokio::select! {
            how = process.end() => return how,
            up = tokio::time::timeout(self.component.start_deadline, ready) => {
                if up.is_err() {
                    let how = process.stop(self.component.stop_grace).await;
                    return format!(
                        "it was not ready within {} s and was stopped ({how})",
                        self.component.start_deadline.as_secs()
                    );
                }
            }
        }
        self.state.send_replace(State::Ready);
        if std::mem::take(failed_before) {
            self.report("Recovered", "it is up again".to_owned(), false);
        }
        let log = self.settings.logs.join(format!("{}.log", self.name()));
        let mut hangs = std::pin::pin!(liveness::lost(self.component.liveness.as_ref(), heard));
        loop {
            tokio::select! {
                how = process.end() => return how,
                why = &mut hangs => {
                    tracing::warn!(component = self.name(), "{why}; it is stopped");
                    let how = process.stop(self.component.stop_grace).await;
                    return format!("{why} and was stopped ({how})");
                }
                () = tokio::time::sleep(LOG_EVERY) => {
                    if let Err(error) = log::rotate(&log, self.settings.log_bytes) {
                        tracing::warn!(component = self.name(), "rotating its log: {error}");
                    }
                }
            }
        }
    }

    fn failed(&self, how: &str, delay: Duration) {
        let log = self.settings.logs.join(format!("{}.log", self.name()));
        self.state
            .send_replace(State::Starting(Some(how.to_owned())));
        let reason = if delay > Duration::from_secs(8) {
            "BackOff"
        } else {
            "Restarted"
        };
        let message = format!(
            "{how}; it is started again in {:.1} s; its log is {}",
            delay.as_secs_f64(),
            log.display()
        );
        self.report(reason, message, true);
    }

    fn report(&self, reason: &str, message: String, warning: bool) {
        if warning {
            tracing::warn!(component = self.name(), "{message}");
        } else {
            tracing::info!(component = self.name(), "{message}");
        }
        // Full: the framework learns of the next one.
        let _ = self.reports.try_send(ToFramework::Component {
            component: self.name().to_owned(),
            reason: reason.to_owned(),
            message,
            warning,
        });
    }
}
