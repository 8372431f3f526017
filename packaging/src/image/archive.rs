//! Deterministic tar archives: the same files give the same bytes, whenever and by whomever they
//! are packed, so that digests name contents.

use std::io::{self, Read, Write};

/// Writes a tar archive with times, owners and groups set to zero.
pub struct Archive<W: Write> {
    builder: tar::Builder<W>,
}

impl<W: Write> Archive<W> {
    /// An archive that is written to `out`.
    pub fn new(out: W) -> Self {
        let mut builder = tar::Builder::new(out);
        builder.mode(tar::HeaderMode::Deterministic);
        Self { builder }
    }

    /// A directory.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        self.builder.append_data(&mut header, path, io::empty())
    }

    /// A file with the content of `data`, exactly `size` bytes.
    pub fn file(&mut self, path: &str, mode: u32, size: u64, data: impl Read) -> io::Result<()> {
        let mut header = header(tar::EntryType::Regular, size, mode);
        let mut counted = Exactly {
            inner: data,
            left: size,
        };
        self.builder.append_data(&mut header, path, &mut counted)?;
        if counted.left > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{path} became shorter while it was packed"),
            ));
        }
        Ok(())
    }

    /// A file with `content`.
    pub fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.file(path, mode, content.len() as u64, content)
    }

    /// Begins a file of exactly `size` bytes, which the caller writes.
    pub fn begin(&mut self, path: &str, mode: u32, size: u64) -> io::Result<Entry<'_, W>> {
        let mut header = header(tar::EntryType::Regular, size, mode);
        header.set_path(path)?;
        header.set_cksum();
        let out = self.builder.get_mut();
        out.write_all(header.as_bytes())?;
        Ok(Entry {
            out,
            size,
            written: 0,
        })
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0, 0o777);
        self.builder.append_link(&mut header, path, target)
    }

    /// Ends the archive and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }
}

/// A file of an archive that is being written.
pub struct Entry<'a, W: Write> {
    out: &'a mut W,
    size: u64,
    written: u64,
}

impl<W: Write> Entry<'_, W> {
    /// Ends the file; it must be complete.
    pub fn finish(self) -> io::Result<()> {
        const BLOCK: u64 = 512;
        if self.written != self.size {
            return Err(io::Error::other(format!(
                "{} of {} bytes were written",
                self.written, self.size
            )));
        }
        let rest = usize::try_from(self.size % BLOCK).unwrap_or(0);
        match rest {
            0 => Ok(()),
            rest => self.out.write_all(&[0; BLOCK as usize][rest..]),
        }
    }
}

impl<W: Write> Write for Entry<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.size {
            return Err(io::Error::other("more was written than was promised"));
        }
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Stops after what the header promised, so that a growing file cannot shift what follows.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
