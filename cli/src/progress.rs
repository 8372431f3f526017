//! Shows what a long command is doing, and for how long: a spinner on a terminal, plain lines
//! elsewhere. Everything goes to standard error; standard output is for results.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps of a command.
#[derive(Debug)]
pub struct Progress {
    begun: Instant,
    terminal: bool,
    quiet: bool,
}

impl Progress {
    /// Progress on standard error; none at all when `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self {
            begun: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
            quiet,
        }
    }

    /// Begins a step.
    pub fn step(&self, what: &str) -> Step {
        let bar = (self.terminal && !self.quiet).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed:>4} {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step {
            what: what.to_owned(),
            begun: Instant::now(),
            bar,
            quiet: self.quiet,
            last_plain: None,
        }
    }

    /// A line that is no step.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            line(&format!("  {text}"));
        }
    }

    /// How long the command has run.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// A step that is being done.
#[derive(Debug)]
pub struct Step {
    what: String,
    begun: Instant,
    bar: Option<ProgressBar>,
    quiet: bool,
    last_plain: Option<(Instant, String)>,
}

impl Step {
    /// Says what the step waits for. Without a terminal at most every 10 s, and only news.
    pub fn detail(&mut self, text: &str) {
        const EVERY: Duration = Duration::from_secs(10);
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            return;
        }
        let due = match &self.last_plain {
            Some((at, last)) => at.elapsed() >= EVERY && last != text,
            None => self.begun.elapsed() >= EVERY,
        };
        if due && !self.quiet && !text.is_empty() {
            line(&format!("  {}: {text}", self.what));
            self.last_plain = Some((Instant::now(), text.to_owned()));
        }
    }

    /// Says how far the step has come: each time, also without a terminal.
    pub fn news(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if self.quiet => {}
            None => line(&format!("  {}: {text}", self.what)),
        }
        self.last_plain = Some((Instant::now(), text.to_owned()));
    }

    /// The step is done.
    pub fn done(self, result: &str) {
        let result = if result.is_empty() {
            String::new()
        } else {
            format!(": {result}")
        };
        self.finish(&format!("✔ {}{result}", self.what));
    }

    /// The step failed; the error itself is shown by whoever gets it.
    pub fn failed(self) {
        self.finish(&format!("✘ {}", self.what));
    }

    fn finish(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.quiet {
            line(&format!("{text} ({})", seconds(self.begun.elapsed())));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(text: &str) {
    // A closed terminal is no reason to stop.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 5 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{whole} s"),
        _ => format!("{} min {} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let shown: Vec<String> = [400, 9_940, 12_345, 185_000]
            .map(|ms| seconds(Duration::from_millis(ms)))
            .into();
        assert_eq!(shown, ["0.4 s", "9.9 s", "12 s", "3 min 5 s"]);
    }
}
