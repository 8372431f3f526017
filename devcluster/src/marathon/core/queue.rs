//! How long apps wait after failures.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Time;
use crate::marathon::ids::{PathId, Version};
use crate::marathon::model::App;

/// A delay after failures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delay {
    /// Until when nothing is launched.
    pub until: Time,
    /// The present delay.
    pub current: Duration,
    /// After how long without another failure it is forgotten.
    forget_after: Duration,
}

/// What offers were looked at for an app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offered {
    /// How many offers were looked at.
    pub processed: u64,
    /// How many of them were of no use.
    pub unused: u64,
    /// When the last useless one came.
    pub last_unused: Option<Version>,
    /// When the last useful one came.
    pub last_used: Option<Version>,
    /// Why they were of no use.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Why the last offer of each agent was of no use.
    pub last_reasons: BTreeMap<String, &'static str>,
}

/// Delays and what offers were looked at, by app and configuration.
#[derive(Debug, Default)]
pub struct Queue {
    delays: BTreeMap<(PathId, Version), Delay>,
    /// What offers were looked at since the app began to wait.
    pub offered: BTreeMap<PathId, Offered>,
}

fn key(app: &App) -> (PathId, Version) {
    let changed = app
        .version_info
        .map_or(app.version(), |i| i.last_config_change_at);
    (app.id.clone(), changed)
}

impl Queue {
    /// The delay of an app, unless it is over and forgotten.
    pub fn delay(&self, app: &App) -> Option<&Delay> {
        self.delays.get(&key(app))
    }

    /// Whether an app has to wait.
    pub fn is_delayed(&self, app: &App, now: Time) -> bool {
        self.delay(app).is_some_and(|d| d.until > now)
    }

    /// A task failed. Says until when the app waits.
    pub fn failed(&mut self, app: &App, now: Time) -> Time {
        let longest = Duration::from_secs(app.max_launch_delay_seconds.into());
        let known = self.delays.get(&key(app));
        let known = known.filter(|d| now <= d.until + d.forget_after);
        let current = match known {
            None => app.backoff(),
            Some(delay) => {
                let longer = delay.current.as_secs_f64() * app.backoff_factor;
                // Beyond what a duration can hold it is the longest all the same.
                Duration::try_from_secs_f64(longer).map_or(longest, |d| d.min(longest))
            }
        };
        let until = now + current;
        let delay = Delay {
            until,
            current,
            forget_after: longest,
        };
        self.delays.insert(key(app), delay);
        until
    }

    /// A task runs: the next may be launched at once, a failure still adds to the delay.
    pub fn runs(&mut self, app: &App, now: Time) {
        if let Some(delay) = self.delays.get_mut(&key(app)) {
            delay.until = delay.until.min(now);
        }
    }

    /// Nothing is delayed any more.
    pub fn reset(&mut self, app: &PathId) {
        self.delays.retain(|(id, _), _| id != app);
    }

    /// Forgets what is over for long.
    pub fn forget_old(&mut self, now: Time) {
        self.delays.retain(|_, d| now <= d.until + d.forget_after);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::marathon::model::read;

    #[test]
    fn delays_grow_with_each_failure_and_end_at_the_longest() {
        let app = json!({"id": "/a", "cmd": "x", "backoffSeconds": 2, "backoffFactor": 3, "maxLaunchDelaySeconds": 10});
        let app = read::app(app, None, &PathId::root()).unwrap();
        let mut queue = Queue::default();
        let mut now = Time::from_secs(100);
        assert!(!queue.is_delayed(&app, now));
        for expected in [2, 6, 10, 10] {
            let until = queue.failed(&app, now);
            assert_eq!(until.since(now), Duration::from_secs(expected));
            now = until;
        }
        assert!(!queue.is_delayed(&app, now));
        now += Duration::from_secs(11);
        assert_eq!(queue.failed(&app, now).since(now), Duration::from_secs(2));
        queue.runs(&app, now);
        assert!(!queue.is_delayed(&app, now));
        assert_eq!(queue.failed(&app, now).since(now), Duration::from_secs(6));
        queue.reset(&app.id);
        assert_eq!(queue.delay(&app), None);
    }
}
