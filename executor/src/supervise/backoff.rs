//! How long to wait before a component is started again.

use std::time::Duration;

/// The first delay.
const FIRST: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(60);
/// Who ran so long counts as well again.
const WELL: Duration = Duration::from_secs(120);

/// Doubling delays with jitter. Pure: the caller gives the times and the randomness.
#[derive(Debug, Default, Clone)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after a run of that length. `random` is in `0.0..1.0`.
    pub fn next(&mut self, ran: Duration, random: f64) -> Duration {
        if ran >= WELL {
            self.failures = 0;
        }
        let delay = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Between 80 % and 120 %, so that machines that failed together do not return together.
        delay.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_start_again_after_a_good_run() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..8)
            .map(|_| backoff.next(Duration::ZERO, 0.5).as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.next(WELL, 0.5), FIRST);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        assert_eq!(
            Backoff::default().next(Duration::ZERO, 0.0),
            FIRST.mul_f64(0.8)
        );
        assert_eq!(
            Backoff::default().next(Duration::ZERO, 1.0),
            FIRST.mul_f64(1.2)
        );
    }
}
