//! Bounded log files. Children write to them directly (appending), so that neither a dead
//! executor nor one that replaces itself breaks their output.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a log for appending, readable by its owner only: kubelet may log what pods say.
pub fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// When the log is beyond `max` bytes its content moves to `<log>.1` and it starts empty. The
/// writer keeps its file (it appends, so it goes on at the new end); what it writes between
/// copying and truncating is lost. Where there is no room for the copy the old content is given
/// up, since a log must never be what keeps a disk full; that is an error all the same.
pub fn rotate(path: &Path, max: u64) -> io::Result<bool> {
    let file = match File::options().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() <= max {
        return Ok(false);
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    let old = Path::new(&old);
    let copied = fs::copy(path, old);
    if copied.is_err() {
        // A copy of a part would pass for the whole.
        let _ = fs::remove_file(old);
    }
    file.set_len(0)?;
    copied.map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_cannot_be_copied_is_emptied_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.log");
        fs::write(&path, "text").unwrap();
        // Stands for a full disk: the copy's place is taken by a directory.
        fs::create_dir(dir.path().join("kubelet.log.1")).unwrap();
        rotate(&path, 1).unwrap_err();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_log_is_bounded_while_its_writer_keeps_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.log");
        let mut writer = open(&path).unwrap();
        writer.write_all(&[b'x'; 100]).unwrap();
        assert!(!rotate(&path, 100).unwrap());
        writer.write_all(b"y").unwrap();
        assert!(rotate(&path, 100).unwrap());
        writer.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(
            fs::metadata(dir.path().join("kubelet.log.1"))
                .unwrap()
                .len(),
            101
        );
    }
}
