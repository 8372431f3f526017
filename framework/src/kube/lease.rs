//! Leader election between instances of the framework, by a Lease.
//!
//! [`Elector`] decides, as upstream's client does: what counts is when *we* last saw the Lease
//! change, never the times written in it, so clocks may differ. A leader that could not renew
//! for [`Timing::renew_deadline`] is none any more, and stops before another may start after
//! [`Timing::duration`].

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use seam::names::SYSTEM_NAMESPACE;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::{ApiError, Retry, call, unless_missing};

/// The times of an election. Upstream's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait for a leader that no longer renews.
    pub duration: Duration,
    /// How long a leader tries to renew before it gives up. Less than `duration`.
    pub renew_deadline: Duration,
    /// How often is renewed, and looked.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Where this instance stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Another leads, or nobody yet.
    Standby {
        /// Who, if known.
        leader: Option<String>,
    },
    /// This one leads.
    Leading,
    /// This one led and no longer does, or was stopped. Final: the process must stop acting at
    /// once and best ends, since what it remembers may be stale.
    Lost,
}

/// What the elector reads of a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    holder: String,
    duration: Duration,
    version: Option<String>,
    transitions: i32,
    acquired: Option<Timestamp>,
}

impl Record {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(seconds),
            version: lease.metadata.resource_version.clone(),
            transitions: spec.lease_transitions.unwrap_or(0),
            acquired: spec.acquire_time.map(|t| t.0),
        }
    }
}

/// The election's decisions.
#[derive(Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    seen: Option<(Record, Instant)>,
    /// When the renewal that counts was sent.
    renewed: Option<Instant>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Write this; the version in it makes it a compare-and-set.
    Write(Box<Lease>),
    /// Another leads.
    Wait,
}

impl Elector {
    /// `identity` must be this instance's alone.
    pub fn new(identity: &str, timing: Timing) -> Self {
        Self {
            identity: identity.to_owned(),
            timing,
            seen: None,
            renewed: None,
        }
    }

    /// Looks at the Lease as it is, or is not, and says what to do.
    pub fn look(
        &mut self,
        current: Option<&Lease>,
        name: &str,
        now: Instant,
        wall: Timestamp,
    ) -> Step {
        let Some(lease) = current else {
            self.seen = None;
            return Step::Write(Box::new(self.lease(name, None, wall)));
        };
        let record = Record::of(lease);
        let changed = self.seen.as_ref().is_none_or(|(seen, _)| *seen != record);
        let at = match &self.seen {
            Some((_, at)) if !changed => *at,
            _ => now,
        };
        let over = at + record.duration.max(Duration::from_secs(1)) <= now;
        let free = record.holder.is_empty() || over;
        let mine = record.holder == self.identity;
        let step = if mine || free {
            Step::Write(Box::new(self.lease(name, Some(&record), wall)))
        } else {
            Step::Wait
        };
        self.seen = Some((record, at));
        step
    }

    /// The write that was sent at `sent` has succeeded.
    pub fn written(&mut self, lease: &Lease, sent: Instant) {
        self.seen = Some((Record::of(lease), sent));
        self.renewed = Some(sent);
    }

    /// Whether this instance leads at `now`.
    pub fn leads(&self, now: Instant) -> bool {
        self.renewed
            .is_some_and(|sent| now < sent + self.timing.renew_deadline)
    }

    /// Whether this instance has led before.
    pub fn has_led(&self) -> bool {
        self.renewed.is_some()
    }

    /// Who leads, as far as we have seen.
    pub fn leader(&self) -> Option<&str> {
        let (record, _) = self.seen.as_ref()?;
        (!record.holder.is_empty()).then_some(record.holder.as_str())
    }

    fn lease(&self, name: &str, over: Option<&Record>, wall: Timestamp) -> Lease {
        let renewal = over.filter(|record| record.holder == self.identity);
        let transitions = match (renewal, over) {
            (Some(record), _) => record.transitions,
            (None, Some(record)) => record.transitions.saturating_add(1),
            (None, None) => 0,
        };
        let acquired = renewal.and_then(|record| record.acquired).unwrap_or(wall);
        let seconds = self.timing.duration.as_secs().max(1);
        Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(SYSTEM_NAMESPACE.to_owned()),
                resource_version: over.and_then(|record| record.version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
                acquire_time: Some(MicroTime(acquired)),
                renew_time: Some(MicroTime(wall)),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Takes part in the election of `name` until leadership is lost or `stop` is cancelled; then it
/// gives the Lease back, so that a successor need not wait. The receiver always has the latest.
pub fn campaign(
    client: Client,
    name: String,
    identity: String,
    timing: Timing,
    stop: CancellationToken,
) -> (watch::Receiver<Leadership>, tokio::task::JoinHandle<()>) {
    let (tell, listen) = watch::channel(Leadership::Standby { leader: None });
    let task = tokio::spawn(async move {
        let mut elector = Elector::new(&identity, timing);
        tokio::select! {
            () = take_part(&client, &name, &mut elector, &tell) => {}
            () = stop.cancelled() => {}
        }
        let led = elector.leads(Instant::now());
        tell.send_replace(Leadership::Lost);
        if led && let Err(error) = give_back(&client, &name, &elector).await {
            tracing::debug!(%error, "the lease was not given back; it runs out by itself");
        }
    });
    (listen, task)
}

/// Returns when leadership is lost.
async fn take_part(
    client: &Client,
    name: &str,
    elector: &mut Elector,
    tell: &watch::Sender<Leadership>,
) {
    let period = elector.timing.retry_period;
    loop {
        // A leader must know in time that it is none, whatever a call does.
        let until = match elector.renewed {
            Some(sent) => sent + elector.timing.renew_deadline,
            None => Instant::now() + elector.timing.renew_deadline,
        };
        match tokio::time::timeout_at(until.into(), round(client, name, elector)).await {
            Ok(Ok(())) => {}
            // Another was faster; the next look tells.
            Ok(Err(error)) if error.retry() == Retry::Anew => tracing::debug!(%error, "election"),
            Ok(Err(error)) => tracing::warn!(%error, "election"),
            Err(_) => tracing::warn!("election: no answer from the API server in time"),
        }
        let leads = elector.leads(Instant::now());
        if elector.has_led() && (!leads || elector.leader() != Some(&elector.identity)) {
            tracing::error!("leadership is lost");
            return;
        }
        let now = if leads {
            Leadership::Leading
        } else {
            Leadership::Standby {
                leader: elector.leader().map(str::to_owned),
            }
        };
        tell.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        let jitter = rand::random_range(0.9..1.1);
        let pause = period.mul_f64(jitter);
        match elector.renewed {
            Some(sent) => {
                let end = sent + elector.timing.renew_deadline;
                tokio::time::sleep_until((Instant::now() + pause).min(end).into()).await;
            }
            None => tokio::time::sleep(pause).await,
        }
    }
}

async fn round(client: &Client, name: &str, elector: &mut Elector) -> Result<(), ApiError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let read = call(|| format!("read lease {name}"), api.get(name)).await;
    let current = unless_missing(read)?;
    let sent = Instant::now();
    let Step::Write(lease) = elector.look(current.as_ref(), name, sent, Timestamp::now()) else {
        return Ok(());
    };
    let params = PostParams::default();
    let written = match current {
        Some(_) => {
            call(
                || format!("write lease {name}"),
                api.replace(name, &params, &lease),
            )
            .await?
        }
        None => {
            call(
                || format!("create lease {name}"),
                api.create(&params, &lease),
            )
            .await?
        }
    };
    elector.written(&written, sent);
    Ok(())
}

/// Marks the Lease as nobody's.
async fn give_back(client: &Client, name: &str, elector: &Elector) -> Result<(), ApiError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut lease = call(|| format!("read lease {name}"), api.get(name)).await?;
    if Record::of(&lease).holder != elector.identity {
        return Ok(());
    }
    if let Some(spec) = lease.spec.as_mut() {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
    }
    let params = PostParams::default();
    call(
        || format!("give lease {name} back"),
        api.replace(name, &params, &lease),
    )
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "k8sm-test";

    /// A Lease as the API server would keep it, and a clock.
    struct World {
        lease: Option<Lease>,
        version: u32,
        now: Instant,
        wall: Timestamp,
    }

    impl World {
        fn new() -> Self {
            let wall = Timestamp::from_second(1_795_000_000).unwrap();
            Self {
                lease: None,
                version: 0,
                now: Instant::now(),
                wall,
            }
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        /// Looks and, if it decides so, writes. Says whether it leads.
        fn round(&mut self, elector: &mut Elector) -> bool {
            if let Step::Write(lease) = elector.look(self.lease.as_ref(), NAME, self.now, self.wall)
            {
                self.store(elector, *lease);
            }
            elector.leads(self.now)
        }

        fn store(&mut self, elector: &mut Elector, mut lease: Lease) -> bool {
            let current = self
                .lease
                .as_ref()
                .and_then(|l| l.metadata.resource_version.clone());
            if current != lease.metadata.resource_version {
                return false;
            }
            self.version += 1;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.lease = Some(lease);
            elector.written(self.lease.as_ref().unwrap(), self.now);
            true
        }
    }

    fn elector(identity: &str) -> Elector {
        Elector::new(identity, Timing::default())
    }

    fn transitions(world: &World) -> i32 {
        world
            .lease
            .as_ref()
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .lease_transitions
            .unwrap()
    }

    #[test]
    fn the_first_leads_and_the_second_waits_until_the_lease_has_run_out() {
        let (mut world, mut a, mut b) = (World::new(), elector("a"), elector("b"));
        assert!(world.round(&mut a));
        assert!(!world.round(&mut b));
        assert_eq!(b.leader(), Some("a"));
        world.pass(14);
        assert!(!world.round(&mut b), "only seen unchanged for 14 s");
        assert!(!a.leads(world.now), "a gave up after 10 s");
        world.pass(1);
        assert!(world.round(&mut b));
        assert_eq!(transitions(&world), 1);
        assert!(!world.round(&mut a));
        assert_eq!(a.leader(), Some("b"));
    }

    #[test]
    fn a_leader_that_renews_stays_and_counts_no_transition() {
        let (mut world, mut a, mut b) = (World::new(), elector("a"), elector("b"));
        for _ in 0..20 {
            assert!(world.round(&mut a));
            assert!(!world.round(&mut b));
            world.pass(2);
        }
        assert_eq!(transitions(&world), 0);
    }

    #[test]
    fn of_two_that_write_at_once_one_leads() {
        let (mut world, mut a, mut b) = (World::new(), elector("a"), elector("b"));
        let Step::Write(from_a) = a.look(None, NAME, world.now, world.wall) else {
            panic!()
        };
        let Step::Write(from_b) = b.look(None, NAME, world.now, world.wall) else {
            panic!()
        };
        assert!(world.store(&mut a, *from_a));
        assert!(!world.store(&mut b, *from_b));
        assert!(a.leads(world.now) && !b.leads(world.now));
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let (mut world, mut a, mut b) = (World::new(), elector("a"), elector("b"));
        assert!(world.round(&mut a));
        world
            .lease
            .as_mut()
            .unwrap()
            .spec
            .as_mut()
            .unwrap()
            .holder_identity = Some(String::new());
        assert!(world.round(&mut b));
    }

    #[test]
    fn never_do_two_lead_whatever_the_schedule() {
        // Every order of rounds and pauses over a few steps, each instance stalled at will.
        for schedule in 0..4_u32.pow(7) {
            let (mut world, mut a, mut b) = (World::new(), elector("a"), elector("b"));
            let mut code = schedule;
            for _ in 0..7 {
                match code % 4 {
                    0 => drop(world.round(&mut a)),
                    1 => drop(world.round(&mut b)),
                    2 => world.pass(3),
                    _ => world.pass(15),
                }
                code /= 4;
                assert!(
                    !(a.leads(world.now) && b.leads(world.now)),
                    "schedule {schedule}"
                );
            }
        }
    }
}
