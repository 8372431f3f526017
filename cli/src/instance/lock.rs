//! Locks: one command at a time changes an instance, and it has one supervisor.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Error, Paths};

/// A lock that ends with this value, or with the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// For commands that change an instance. Waits a little for a short command.
    pub fn command(paths: &Paths) -> Result<Self, Error> {
        Self::take(
            &paths.state().join("lock"),
            "another k8sm command",
            Duration::from_secs(2),
        )
    }

    /// For the supervisor.
    pub fn supervisor(paths: &Paths) -> Result<Self, Error> {
        Self::take(
            &paths.run().join("supervisor.lock"),
            "another supervisor",
            // One that was told to end may still hold it.
            Duration::from_secs(5),
        )
    }

    fn take(path: &Path, what: &'static str, patience: Duration) -> Result<Self, Error> {
        let io = |action| {
            move |source| Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => {
                    let mut holder = String::new();
                    // Who it is only helps; the lock is what counts.
                    let _ = file.read_to_string(&mut holder);
                    let holder = match holder.trim() {
                        "" => String::new(),
                        pid => format!(" (pid {pid}); wait for it to end"),
                    };
                    return Err(Error::Busy {
                        what,
                        path: path.to_owned(),
                        holder,
                    });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        let note = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        let mut note = note;
        note().map_err(io("write"))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path, "another k8sm command", Duration::ZERO).unwrap();
        let error = Lock::take(&path, "another k8sm command", Duration::ZERO).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, Error::Busy { .. }));
        assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
        drop(held);
        Lock::take(&path, "another k8sm command", Duration::ZERO).unwrap();
    }
}
