//! Repeating what fails for a moment.

use std::time::Duration;

use rand::Rng as _;

use super::Error;

/// How often something is tried.
const ATTEMPTS: u32 = 5;
/// The first pause is at most this long; each further one at most twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, also when the registry asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Tries again while the error says that it helps.
pub(super) async fn retrying<T, F>(work: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut failed = 0;
    loop {
        let error = match work().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        failed += 1;
        if failed == ATTEMPTS || !error.retryable() {
            return Err(error);
        }
        let pause = pause(failed, asked(&error), rand::rng().random());
        tracing::warn!(%error, "trying again in {pause:?}");
        tokio::time::sleep(pause).await;
    }
}

fn asked(error: &Error) -> Option<Duration> {
    match error {
        Error::Status { retry_after, .. } => retry_after.map(Duration::from_secs),
        _ => None,
    }
}

/// The pause after so many failures. `random` is from 0 to 1: clients that failed together do not
/// come back together.
fn pause(failed: u32, asked: Option<Duration>, random: f64) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << failed.saturating_sub(1).min(16));
    let own = most.min(LONGEST_PAUSE).mul_f64(0.5 + random / 2.0);
    own.max(asked.unwrap_or_default()).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(pause(1, None, 0.0), Duration::from_millis(250));
        assert_eq!(pause(1, None, 1.0), Duration::from_millis(500));
        assert_eq!(pause(3, None, 1.0), Duration::from_secs(2));
        assert_eq!(pause(60, None, 1.0), LONGEST_PAUSE);
        let asked = Some(Duration::from_secs(3));
        assert_eq!(pause(1, asked, 0.5), Duration::from_secs(3));
        assert_eq!(
            pause(1, Some(Duration::from_secs(9999)), 0.5),
            LONGEST_PAUSE
        );
    }
}
