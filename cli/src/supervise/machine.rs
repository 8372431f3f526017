//! Decides when processes are started, restarted and stopped: a pure `state + event -> effects`
//! without processes or clocks. Times are since any fixed instant.
//!
//! A process waits until those that it names in `after` are ready; that holds for each of its
//! starts, but one that falls over later does not take its dependants with it. One that ends is
//! started again after a back-off that doubles from half a second to 30 s and is forgotten once it
//! has run for a minute. One that answers no probe for a minute is stopped and started. Stopping
//! goes backwards: first those that nobody waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::spec::{ProcessSpec, Spec};

/// First back-off. Doubled at each failure.
const BACK_OFF_FIRST: Duration = Duration::from_millis(500);
/// Longest back-off.
const BACK_OFF_LAST: Duration = Duration::from_secs(30);
/// A process that has run this long has not failed "again".
const STABLE: Duration = Duration::from_secs(60);
/// Between probes of a process that starts, at least. A slow machine has no time for ten TLS
/// handshakes a second: a twentieth of what the start took so far, at most a second.
const PROBE_STARTING: Duration = Duration::from_millis(100);
/// Between probes of a process that is ready.
const PROBE_READY: Duration = Duration::from_secs(5);
/// Failed probes of a ready process before it is restarted: a minute.
const PROBES_LOST: u32 = 12;

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process of an earlier supervisor still runs. Only before the first `Configure`.
    Adopted {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
        /// What it was started with.
        fingerprint: String,
    },
    /// This is what shall run from now on.
    Configure(Spec),
    /// A process was started.
    Started {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// A process could not be started.
    StartFailed {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A process has ended.
    Exited {
        /// Its name.
        name: String,
        /// Which process: an old one's end is no news.
        pid: u32,
        /// How, for a person.
        how: String,
    },
    /// A probe has an answer.
    Probed {
        /// Its name.
        name: String,
        /// Which process was meant.
        pid: u32,
        /// `Err` says why it is not ready.
        result: Result<(), String>,
    },
    /// Stop everything.
    Stop,
    /// Time passes.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start this process; answer with `Started` or `StartFailed`.
    Start(ProcessSpec),
    /// Ask this process to end.
    Terminate {
        /// Its name.
        name: String,
        /// The process.
        pid: u32,
    },
    /// End this process.
    Kill {
        /// Its name.
        name: String,
        /// The process.
        pid: u32,
    },
    /// Probe this process; answer with `Probed`.
    Probe {
        /// What to probe.
        spec: ProcessSpec,
        /// Which process is meant.
        pid: u32,
    },
    /// Everything has stopped after `Stop`.
    Finished,
}

/// Where a process is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Waits for others, or for the end of its back-off.
    Waiting { not_before: Duration },
    /// The start was ordered.
    Launching,
    /// Runs and is not ready yet.
    Starting { pid: u32, since: Duration },
    /// Runs and was ready.
    Ready {
        pid: u32,
        since: Duration,
        lost_probes: u32,
    },
    /// Was asked to end.
    Stopping {
        pid: u32,
        kill_at: Duration,
        killed: bool,
    },
    /// Ended and stays so.
    Stopped,
}

#[derive(Debug, Clone)]
struct Process {
    spec: ProcessSpec,
    /// What the running process was started with.
    running_fingerprint: Option<String>,
    phase: Phase,
    failures: u32,
    restarts: u32,
    last_error: Option<String>,
    probing: bool,
    next_probe: Duration,
    /// No longer wanted; goes away once it has ended.
    removed: bool,
}

/// What a person sees of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Waits for others.
    Waiting,
    /// Waits after a failure.
    BackOff,
    /// Runs, not ready.
    Starting,
    /// Ready.
    Ready,
    /// Was ready, does not answer.
    Unhealthy,
    /// Asked to end.
    Stopping,
    /// Ended.
    Stopped,
}

/// The state of one process for `k8sm status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub stage: Stage,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it last ended or is not ready.
    pub last_error: Option<String>,
}

/// All processes of an instance.
#[derive(Debug)]
pub struct Machine {
    processes: BTreeMap<String, Process>,
    adopted: BTreeMap<String, (u32, String)>,
    generation: u64,
    stopping: bool,
    finished: bool,
    rng: SmallRng,
}

impl Machine {
    /// Nothing runs yet. The seed is for the jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            processes: BTreeMap::new(),
            adopted: BTreeMap::new(),
            generation: 0,
            stopping: false,
            finished: false,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// The generation of the specification that is in force.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The state of every process.
    pub fn report(&self) -> Vec<Report> {
        self.processes
            .iter()
            .map(|(name, p)| Report {
                name: name.clone(),
                stage: p.stage(),
                pid: p.pid(),
                restarts: p.restarts,
                last_error: p.last_error.clone(),
            })
            .collect()
    }

    /// Takes an event, says what to do.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        match event {
            Event::Adopted {
                name,
                pid,
                fingerprint,
            } => {
                self.adopted.insert(name, (pid, fingerprint));
            }
            Event::Configure(spec) => self.configure(now, spec),
            Event::Started { name, pid } => {
                if let Some(p) = self.processes.get_mut(&name) {
                    p.running_fingerprint = Some(p.spec.fingerprint.clone());
                    p.next_probe = now;
                    p.phase = Phase::Starting { pid, since: now };
                }
            }
            Event::StartFailed { name, reason } => {
                let jitter = self.rng.random_range(0.5..1.0);
                if let Some(p) = self.processes.get_mut(&name) {
                    p.fail(now, reason, jitter);
                }
            }
            Event::Exited { name, pid, how } => {
                let jitter = self.rng.random_range(0.5..1.0);
                let stopping = self.stopping;
                if let Some(p) = self.processes.get_mut(&name)
                    && p.pid() == Some(pid)
                {
                    p.exited(now, how, jitter, stopping);
                }
            }
            Event::Probed { name, pid, result } => {
                if let Some(p) = self.processes.get_mut(&name) {
                    p.probing = false;
                    if p.pid() == Some(pid) {
                        p.probed(now, result);
                    }
                }
            }
            Event::Stop => self.stopping = true,
            Event::Tick => {}
        }
        self.advance(now)
    }

    fn configure(&mut self, now: Duration, spec: Spec) {
        self.generation = spec.generation;
        for p in self.processes.values_mut() {
            p.removed = true;
        }
        for spec in spec.processes {
            match self.processes.get_mut(&spec.name) {
                Some(p) => {
                    p.removed = false;
                    if p.spec.fingerprint != spec.fingerprint {
                        // What failed before may work now.
                        p.failures = 0;
                        if let Phase::Waiting { not_before } = &mut p.phase {
                            *not_before = now;
                        }
                    }
                    p.spec = spec;
                }
                None => {
                    let adopted = self.adopted.remove(&spec.name);
                    let (phase, running_fingerprint) = match adopted {
                        Some((pid, fingerprint)) => {
                            (Phase::Starting { pid, since: now }, Some(fingerprint))
                        }
                        None => (Phase::Waiting { not_before: now }, None),
                    };
                    self.processes.insert(
                        spec.name.clone(),
                        Process {
                            spec,
                            running_fingerprint,
                            phase,
                            failures: 0,
                            restarts: 0,
                            last_error: None,
                            probing: false,
                            next_probe: now,
                            removed: false,
                        },
                    );
                }
            }
        }
        // What runs and is no longer named is stopped like anything else.
        for (name, (pid, fingerprint)) in std::mem::take(&mut self.adopted) {
            self.processes.insert(
                name.clone(),
                Process {
                    spec: ProcessSpec {
                        name,
                        program: "unknown".into(),
                        args: Vec::new(),
                        env: Vec::new(),
                        readiness: packaging::control_plane::Readiness::Running,
                        after: Vec::new(),
                        stop_seconds: 5,
                        fingerprint: fingerprint.clone(),
                    },
                    running_fingerprint: Some(fingerprint),
                    phase: Phase::Starting { pid, since: now },
                    failures: 0,
                    restarts: 0,
                    last_error: None,
                    probing: false,
                    next_probe: now,
                    removed: true,
                },
            );
        }
    }

    /// Does what time and the others' states allow.
    fn advance(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.processes.retain(|_, p| {
            !(p.removed && matches!(p.phase, Phase::Waiting { .. } | Phase::Stopped))
        });
        let ready: Vec<String> = self
            .processes
            .iter()
            .filter(|(_, p)| matches!(p.phase, Phase::Ready { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        // While everything stops, a process is needed as long as one that waits for it runs.
        let needed: Vec<String> = self
            .processes
            .values()
            .filter(|p| p.pid().is_some() || p.phase == Phase::Launching)
            .flat_map(|p| p.spec.after.iter().cloned())
            .collect();
        for (name, p) in &mut self.processes {
            let unwanted = self.stopping || p.removed;
            let changed = p
                .running_fingerprint
                .as_ref()
                .is_some_and(|f| *f != p.spec.fingerprint);
            match &mut p.phase {
                Phase::Waiting { .. } if unwanted => p.phase = Phase::Stopped,
                Phase::Waiting { not_before } => {
                    if *not_before <= now && p.spec.after.iter().all(|a| ready.contains(a)) {
                        p.phase = Phase::Launching;
                        effects.push(Effect::Start(p.spec.clone()));
                    }
                }
                Phase::Launching | Phase::Stopped => {}
                Phase::Starting { pid, .. } | Phase::Ready { pid, .. } => {
                    let pid = *pid;
                    let lost = matches!(&p.phase, Phase::Ready { lost_probes, .. } if *lost_probes >= PROBES_LOST);
                    if changed || lost || (unwanted && !(self.stopping && needed.contains(name))) {
                        p.phase = Phase::Stopping {
                            pid,
                            kill_at: now + Duration::from_secs(p.spec.stop_seconds),
                            killed: false,
                        };
                        effects.push(Effect::Terminate {
                            name: name.clone(),
                            pid,
                        });
                    } else if !p.probing && p.next_probe <= now {
                        p.probing = true;
                        effects.push(Effect::Probe {
                            spec: p.spec.clone(),
                            pid,
                        });
                    }
                }
                Phase::Stopping {
                    pid,
                    kill_at,
                    killed,
                } => {
                    if *kill_at <= now && !*killed {
                        *killed = true;
                        effects.push(Effect::Kill {
                            name: name.clone(),
                            pid: *pid,
                        });
                    }
                }
            }
        }
        let all_stopped = self.processes.values().all(|p| p.phase == Phase::Stopped);
        if self.stopping && all_stopped && !self.finished {
            self.finished = true;
            effects.push(Effect::Finished);
        }
        effects
    }

    /// When `Tick` is due at the latest.
    pub fn next_wakeup(&self) -> Option<Duration> {
        self.processes
            .values()
            .filter_map(|p| match &p.phase {
                Phase::Waiting { not_before } => Some(*not_before),
                Phase::Starting { .. } | Phase::Ready { .. } if !p.probing => Some(p.next_probe),
                Phase::Stopping {
                    kill_at,
                    killed: false,
                    ..
                } => Some(*kill_at),
                _ => None,
            })
            .min()
    }
}

impl Process {
    fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Starting { pid, .. }
            | Phase::Ready { pid, .. }
            | Phase::Stopping { pid, .. } => Some(pid),
            _ => None,
        }
    }

    fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Waiting { .. } if self.failures > 0 => Stage::BackOff,
            Phase::Waiting { .. } => Stage::Waiting,
            Phase::Launching | Phase::Starting { .. } => Stage::Starting,
            Phase::Ready { lost_probes: 0, .. } => Stage::Ready,
            Phase::Ready { .. } => Stage::Unhealthy,
            Phase::Stopping { .. } => Stage::Stopping,
            Phase::Stopped => Stage::Stopped,
        }
    }

    fn fail(&mut self, now: Duration, reason: String, jitter: f64) {
        let back_off = BACK_OFF_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(BACK_OFF_LAST)
            .mul_f64(jitter);
        self.failures = self.failures.saturating_add(1);
        self.restarts = self.restarts.saturating_add(1);
        self.last_error = Some(reason);
        self.running_fingerprint = None;
        self.phase = Phase::Waiting {
            not_before: now + back_off,
        };
    }

    fn exited(&mut self, now: Duration, how: String, jitter: f64, stopping: bool) {
        match self.phase {
            Phase::Stopping { .. } => {
                self.running_fingerprint = None;
                self.phase = if stopping || self.removed {
                    Phase::Stopped
                } else {
                    Phase::Waiting { not_before: now }
                };
            }
            Phase::Starting { since, .. } | Phase::Ready { since, .. } => {
                if now.saturating_sub(since) >= STABLE {
                    self.failures = 0;
                }
                self.fail(now, how, jitter);
            }
            _ => {}
        }
    }

    fn probed(&mut self, now: Duration, result: Result<(), String>) {
        self.next_probe = now + PROBE_READY;
        match (&mut self.phase, result) {
            (Phase::Starting { pid, since }, Ok(())) => {
                self.phase = Phase::Ready {
                    pid: *pid,
                    since: *since,
                    lost_probes: 0,
                };
                self.last_error = None;
            }
            (Phase::Starting { since, .. }, Err(reason)) => {
                let pause = now.saturating_sub(*since) / 20;
                self.next_probe = now + pause.clamp(PROBE_STARTING, Duration::from_secs(1));
                self.last_error = Some(reason);
            }
            (
                Phase::Ready {
                    lost_probes, since, ..
                },
                Ok(()),
            ) => {
                *lost_probes = 0;
                if now.saturating_sub(*since) >= STABLE {
                    self.failures = 0;
                }
                self.last_error = None;
            }
            (Phase::Ready { lost_probes, .. }, Err(reason)) => {
                *lost_probes += 1;
                self.last_error = Some(reason);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
