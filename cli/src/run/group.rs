//! Processes that live and end together, as a value: when one ends, the others are ended and the
//! app ends with it, so that Marathon starts all of them anew. They are ended in the reverse of
//! the order in which they are listed, each only after the one behind it is gone: an API server
//! that drains still needs its way to the pods.

use std::time::Duration;

/// Time since any fixed moment.
pub type Time = Duration;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process ended; the text is for people.
    Ended {
        /// Which.
        member: usize,
        /// How, for instance `exit status: 1`.
        status: String,
        /// Its exit code, where it has one.
        code: Option<u8>,
    },
    /// Somebody wants the app to end.
    Terminate,
    /// The deadline of [`Group::deadline`] has come.
    Deadline,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send SIGTERM.
    Terminate(usize),
    /// Send SIGKILL.
    Kill(usize),
    /// All are gone: end with this code.
    Exit(u8),
}

/// The group.
#[derive(Debug)]
pub struct Group {
    alive: Vec<bool>,
    /// How long each may take to end.
    grace: Vec<Duration>,
    code: Option<u8>,
    /// The one that is being ended, and until when.
    ending: Option<(usize, Time)>,
}

impl Group {
    /// A group of processes that all run, with the time that each may take to end.
    pub fn new(grace: Vec<Duration>) -> Self {
        Self {
            alive: vec![true; grace.len()],
            grace,
            code: None,
            ending: None,
        }
    }

    /// When [`Event::Deadline`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.ending.map(|(_, at)| at)
    }

    /// Whether the group is being ended.
    pub fn ends(&self) -> bool {
        self.code.is_some()
    }

    /// The next state, and what to do.
    pub fn step(&mut self, now: Time, event: &Event) -> Vec<Effect> {
        match event {
            Event::Ended { member, code, .. } => {
                if let Some(alive) = self.alive.get_mut(*member) {
                    *alive = false;
                }
                // One that ends by itself fails the app even with code 0: none of them has
                // anything to be done with.
                if self.code.is_none() {
                    self.code = Some(code.filter(|c| *c != 0).unwrap_or(1));
                }
                if self.ending.is_some_and(|(m, _)| m == *member) {
                    self.ending = None;
                }
                self.next(now)
            }
            Event::Terminate if self.code.is_none() => {
                self.code = Some(0);
                self.next(now)
            }
            Event::Terminate => Vec::new(),
            Event::Deadline => match self.ending {
                Some((member, at)) if at <= now => {
                    // It cannot refuse this; its end is an event of its own.
                    self.ending = None;
                    vec![Effect::Kill(member)]
                }
                _ => Vec::new(),
            },
        }
    }

    fn next(&mut self, now: Time) -> Vec<Effect> {
        if self.ending.is_some() {
            return Vec::new();
        }
        match self.alive.iter().rposition(|alive| *alive) {
            Some(member) => {
                let grace = self.grace.get(member).copied().unwrap_or_default();
                self.ending = Some((member, now + grace));
                vec![Effect::Terminate(member)]
            }
            None => vec![Effect::Exit(self.code.unwrap_or(1))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn group() -> Group {
        Group::new(vec![S * 5, S * 20])
    }

    fn ended(member: usize, code: u8) -> Event {
        Event::Ended {
            member,
            status: String::new(),
            code: Some(code),
        }
    }

    #[test]
    fn the_last_is_ended_first_and_the_first_only_after_it() {
        let mut group = group();
        assert_eq!(group.step(S, &Event::Terminate), [Effect::Terminate(1)]);
        assert_eq!(group.deadline(), Some(S * 21));
        assert_eq!(group.step(S * 2, &Event::Terminate), []);
        assert_eq!(group.step(S * 3, &ended(1, 0)), [Effect::Terminate(0)]);
        assert_eq!(group.step(S * 4, &ended(0, 0)), [Effect::Exit(0)]);
    }

    #[test]
    fn one_that_ends_takes_the_others_with_it_and_fails_the_app() {
        let mut group = group();
        assert_eq!(group.step(S, &ended(0, 0)), [Effect::Terminate(1)]);
        assert_eq!(group.step(S, &ended(1, 0)), [Effect::Exit(1)]);
        let mut group = self::group();
        assert_eq!(group.step(S, &ended(1, 7)), [Effect::Terminate(0)]);
        assert_eq!(group.step(S, &ended(0, 0)), [Effect::Exit(7)]);
    }

    #[test]
    fn one_that_does_not_end_in_time_is_killed() {
        let mut group = group();
        group.step(S, &Event::Terminate);
        assert_eq!(group.step(S * 20, &Event::Deadline), []);
        assert_eq!(group.step(S * 21, &Event::Deadline), [Effect::Kill(1)]);
        assert_eq!(group.deadline(), None);
        let killed = Event::Ended {
            member: 1,
            status: "signal: 9".to_owned(),
            code: None,
        };
        assert_eq!(group.step(S * 22, &killed), [Effect::Terminate(0)]);
    }
}
