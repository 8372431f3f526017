//! Time as the decision cores see it: a value that somebody hands in, never one they fetch.
//!
//! The loops around the cores read the machine's clocks, simulations and tests set the time
//! themselves.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time: nanoseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// 1970-01-01 UTC.
    pub const EPOCH: Self = Self(0);
    /// Later than everything.
    pub const NEVER: Self = Self(u64::MAX);

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the epoch with a fraction, as Mesos writes time stamps of updates.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The machine's time now. It starts from the calendar and then runs with the monotonic
    /// clock, so that a calendar that jumps neither fires nor delays a deadline.
    pub fn now() -> Self {
        static START: OnceLock<(Instant, u64)> = OnceLock::new();
        let (start, calendar) = START.get_or_init(|| {
            let nanos = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
            (Instant::now(), nanos)
        });
        Self(*calendar) + start.elapsed()
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

/// Where a loop takes its time from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine.
    #[default]
    System,
    /// Somebody's hand.
    Manual(ManualClock),
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Time {
        match self {
            Self::System => Time::now(),
            Self::Manual(clock) => clock.now(),
        }
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Starts at this time.
    pub fn new(start: Time) -> Self {
        Self(Arc::new(AtomicU64::new(start.as_nanos())))
    }

    /// The time now.
    pub fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }

    /// Sets the time; it never goes back.
    pub fn set(&self, time: Time) {
        self.0.fetch_max(time.as_nanos(), Ordering::SeqCst);
    }
}
