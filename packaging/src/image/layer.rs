//! One layer: a tar archive of files, digested while it is packed, so that images of hundreds of
//! megabytes are never held in memory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufReader, Seek as _, Write};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::archive::Archive;
use super::{Content, Error, File, Image, hex};

/// How layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are: the quickest on one machine.
    #[default]
    None,
    /// By gzip: a third of the size, for registries and bundles.
    Gzip,
}

/// The operating system in a gzip header that says nothing about it.
const UNKNOWN_SYSTEM: u8 = 255;

/// A layer that was packed once.
#[derive(Debug)]
pub(super) struct Layer {
    files: Vec<File>,
    /// `sha256:...` of the layer as it is stored.
    pub digest: String,
    /// `sha256:...` of the uncompressed layer.
    pub diff_id: String,
    /// Bytes as it is stored.
    pub size: u64,
    /// The compressed layer, in a file without a name. Uncompressed ones are packed again.
    spool: Option<fs::File>,
}

impl Layer {
    /// Packs files. `image` is named in errors.
    pub fn pack(image: &Image, files: &[File], compression: Compression) -> Result<Self, Error> {
        let write = |source| Error::Write {
            image: image.reference.clone(),
            source,
        };
        let mut files = files.to_vec();
        files.sort();
        match compression {
            Compression::None => {
                let (diff_id, size) = pack(image, &files, Summing::new(io::sink()))?.finish();
                Ok(Self {
                    files,
                    digest: diff_id.clone(),
                    diff_id,
                    size,
                    spool: None,
                })
            }
            Compression::Gzip => {
                let spool = tempfile::tempfile().map_err(write)?;
                let stored = Summing::new(io::BufWriter::with_capacity(1 << 18, spool));
                let encoder = flate2::GzBuilder::new()
                    .mtime(0)
                    .operating_system(UNKNOWN_SYSTEM)
                    .write(stored, flate2::Compression::default());
                let packed = pack(image, &files, Summing::new(encoder))?;
                let (diff_id, _, encoder) = packed.into_parts();
                let stored = GzEncoder::finish(encoder).map_err(write)?;
                let (digest, size, spool) = stored.into_parts();
                let spool = spool.into_inner().map_err(|e| write(e.into_error()))?;
                Ok(Self {
                    files,
                    digest,
                    diff_id,
                    size,
                    spool: Some(spool),
                })
            }
        }
    }

    /// Whether it is of these files.
    pub fn is_of(&self, files: &[File]) -> bool {
        let mut files = files.to_vec();
        files.sort();
        self.files == files
    }

    /// Puts the layer into the archive of an image.
    pub fn copy_to(
        &self,
        image: &Image,
        path: &str,
        archive: &mut Archive<impl Write>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Write {
            image: image.reference.clone(),
            source,
        };
        if let Some(spool) = &self.spool {
            let mut spool = spool.try_clone().map_err(failed)?;
            spool.rewind().map_err(failed)?;
            return archive
                .file(
                    path,
                    0o644,
                    self.size,
                    BufReader::with_capacity(1 << 18, spool),
                )
                .map_err(failed);
        }
        // Its size is known, its bytes are made once more and compared.
        let mut entry = archive.begin(path, 0o644, self.size).map_err(failed)?;
        let (digest, size) = pack(image, &self.files, Summing::new(&mut entry))?.finish();
        if digest != self.digest || size != self.size {
            return Err(Error::Changed {
                image: image.reference.clone(),
            });
        }
        entry.finish().map_err(failed)
    }
}

/// Writes the tar archive of sorted files to `out` and gives it back.
fn pack<W: Write>(image: &Image, files: &[File], out: W) -> Result<W, Error> {
    let write = |source| Error::Write {
        image: image.reference.clone(),
        source,
    };
    let mut archive = Archive::new(out);
    let mut directories = BTreeSet::new();
    for file in files {
        let path = file
            .path
            .strip_prefix('/')
            .filter(|p| !p.is_empty() && p.split('/').all(|c| !matches!(c, "" | "." | "..")))
            .ok_or_else(|| image.invalid(&format!("`{}` is no plain absolute path", file.path)))?;
        let parents = path.match_indices('/').map(|(end, _)| &path[..=end]);
        for directory in parents {
            if directories.insert(directory.to_owned()) {
                archive.directory(directory).map_err(write)?;
            }
        }
        match &file.content {
            Content::Bytes(bytes) => archive.bytes(path, file.mode, bytes).map_err(write)?,
            Content::File(source) => {
                let read = |e| Error::Read {
                    image: image.reference.clone(),
                    path: source.clone(),
                    source: e,
                };
                let content = fs::File::open(source).map_err(read)?;
                let size = content.metadata().map_err(read)?.len();
                let content = BufReader::with_capacity(1 << 18, content);
                archive
                    .file(path, file.mode, size, content)
                    .map_err(write)?;
            }
        }
    }
    archive.finish().map_err(write)
}

/// A writer that knows digest and size of what went through it.
struct Summing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Summing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    fn finish(self) -> (String, u64) {
        let (digest, size, _) = self.into_parts();
        (digest, size)
    }

    fn into_parts(self) -> (String, u64, W) {
        let digest = format!("sha256:{}", hex(&self.hash.finalize()));
        (digest, self.size, self.inner)
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
