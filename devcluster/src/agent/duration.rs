//! Durations as Mesos writes them in environments, flags and messages: `5secs`, `15mins`.

use std::time::Duration;

/// Units from the largest to the smallest, in nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("weeks", 7 * 24 * 3_600_000_000_000),
    ("days", 24 * 3_600_000_000_000),
    ("hrs", 3_600_000_000_000),
    ("mins", 60_000_000_000),
    ("secs", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Writes a duration in the largest unit that shows it without a fraction.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0ns".to_owned();
    }
    let (unit, size) = UNITS
        .into_iter()
        .find(|(_, size)| nanos.is_multiple_of(*size))
        .unwrap_or(("ns", 1));
    format!("{}{unit}", nanos / size)
}

/// Why a duration could not be read. Never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no duration: expected a number and one of ns, us, ms, secs, mins, hrs, days, weeks"
)]
pub struct BadDuration(pub String);

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    let (_, size) = UNITS
        .into_iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(bad)?;
    let seconds = number * (size as f64) / 1e9;
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_mesos_writes_them() {
        for (duration, text) in [
            (Duration::ZERO, "0ns"),
            (Duration::from_millis(1500), "1500ms"),
            (Duration::from_secs(5), "5secs"),
            (Duration::from_secs(60), "1mins"),
            (Duration::from_secs(90), "90secs"),
            (Duration::from_secs(15 * 60), "15mins"),
            (Duration::from_secs(7 * 24 * 3600), "1weeks"),
        ] {
            assert_eq!(format(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
    }

    #[test]
    fn a_bad_duration_is_refused_with_what_was_expected() {
        for text in [
            "",
            "5",
            "secs",
            "-1secs",
            "5 parsecs",
            "NaNsecs",
            "1e400weeks",
        ] {
            assert_eq!(parse(text), Err(BadDuration(text.to_owned())), "{text}");
        }
    }
}
