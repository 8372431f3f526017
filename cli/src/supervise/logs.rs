//! Logs of supervised processes: files that the processes write themselves, so that they go on
//! when the supervisor is gone, kept within a bound by copying and cutting.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes at which a log is cut. The part before is kept as `<name>.log.1`, so that a process has
/// twice this much at most.
pub const LIMIT: u64 = 16 << 20;

/// Opens a log for a process' output. Appending, so that a cut does not leave a hole.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// Cuts a log that has grown beyond `limit`. What is written between the copy and the cut is lost:
/// a few lines, in exchange for processes that need not know about it.
pub fn bound(path: &Path, limit: u64) -> io::Result<bool> {
    let size = match fs::metadata(path) {
        Ok(m) => m.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    if size <= limit {
        return Ok(false);
    }
    let mut kept = path.as_os_str().to_owned();
    kept.push(".1");
    fs::copy(path, &kept)?;
    OpenOptions::new().write(true).open(path)?.set_len(0)?;
    Ok(true)
}

/// The last lines of a log, for error messages and `k8sm logs`.
pub fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    use std::io::{Read, Seek, SeekFrom};
    /// No line of interest is longer than this on average.
    const BYTES_PER_LINE: u64 = 512;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let from = size.saturating_sub(BYTES_PER_LINE.saturating_mul(lines as u64 + 1));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found: Vec<&str> = text.lines().collect();
    if from > 0 && found.len() > 1 {
        // The first is the end of a line.
        found.remove(0);
    }
    let skip = found.len().saturating_sub(lines);
    Ok(found[skip..].iter().map(|l| (*l).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_is_cut_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        let mut log = open(&path).unwrap();
        writeln!(log, "{}", "x".repeat(200)).unwrap();
        assert!(!bound(&path, 1000).unwrap());
        assert!(bound(&path, 100).unwrap());
        writeln!(log, "later").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "later\n");
        let kept = fs::read_to_string(dir.path().join("etcd.log.1")).unwrap();
        assert_eq!(kept.len(), 201);
        assert!(!bound(&dir.path().join("none.log"), 1).unwrap());
    }

    #[test]
    fn the_tail_is_the_last_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, text).unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["line 4998", "line 4999"]);
        assert_eq!(tail(&path, 100_000).unwrap().len(), 5000);
    }
}
