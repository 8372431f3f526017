//! Writes archives of images into a directory. One that is made of the same files is kept, so that
//! a second run takes no time.
//!
//! ```text
//! images.json                                  the list
//! <registry>/<path>/<name>:<tag>.tar           archives, where a Mesos agent with
//!                                              --docker_registry=<directory> looks for them
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use packaging::files::{PUBLIC, make_dir, read_optional, write_atomic};
use packaging::image::definitions::{self, Choices};
use packaging::image::{Compression, Content, Image, Writer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Error, Programs};

/// Name of the list in its directory.
pub const LIST: &str = "images.json";
/// Version of the list.
const VERSION: u32 = 1;

/// The images of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Version of this file.
    pub version: u32,
    /// The images.
    pub images: Vec<Built>,
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// Its short name: `k8sm-proxy`.
    pub name: String,
    /// Its full name with a tag.
    pub reference: String,
    /// Its archive, relative to the list.
    pub file: String,
    /// `sha256:...` of the manifest.
    pub digest: String,
    /// `sha256:...` of the configuration.
    pub id: String,
    /// Bytes of its layers.
    pub size: u64,
}

impl List {
    /// Reads the list of a directory.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(LIST);
        let bytes = read_optional(&path)?.ok_or_else(|| Error::None(dir.to_owned()))?;
        let damaged = |reason: String| Error::Damaged {
            path: path.clone(),
            reason,
        };
        let list: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if list.version != VERSION {
            return Err(damaged(format!("version {} is not known", list.version)));
        }
        let outside = |file: &str| file.split('/').any(|part| matches!(part, "" | "." | ".."));
        if let Some(bad) = list.images.iter().find(|i| outside(&i.file)) {
            return Err(damaged(format!("`{}` is no file below it", bad.file)));
        }
        Ok(list)
    }

    /// The images of these names, short or full; all where none is named.
    pub fn of(&self, dir: &Path, names: &[String]) -> Result<Vec<&Built>, Error> {
        let is = |image: &Built, name: &String| image.name == *name || image.reference == *name;
        if let Some(name) = names.iter().find(|n| !self.images.iter().any(|i| is(i, n))) {
            let there: Vec<&str> = self.images.iter().map(|i| i.name.as_str()).collect();
            return Err(Error::Missing {
                dir: dir.to_owned(),
                name: name.clone(),
                there: there.join(", "),
            });
        }
        let wanted = |image: &&Built| names.is_empty() || names.iter().any(|name| is(image, name));
        Ok(self.images.iter().filter(wanted).collect())
    }
}

/// Builds images of these names, all where none is named. `on_image` hears what is worked on.
pub fn build(
    dir: &Path,
    names: &[String],
    programs: &Programs,
    choices: &Choices,
    compression: Compression,
    mut on_image: impl FnMut(&str),
) -> Result<List, Error> {
    make_dir(dir, 0o755)?;
    let mut writer = Writer::new(compression);
    let mut images = Vec::new();
    for definition in definitions::of(names)? {
        on_image(&definition.name);
        let image = definition.image(programs, choices)?;
        let file = format!("{}.tar", image.reference);
        let path = dir.join(&file);
        if let Some(parent) = path.parent() {
            make_dir(parent, 0o755)?;
        }
        let built = ensure(&mut writer, compression, &image, &path)?;
        images.push(Built {
            name: definition.name,
            file,
            ..built
        });
    }
    // Images that were built before, by other names, stay in the list.
    if let Ok(before) = List::read(dir) {
        let there = |image: &Built| dir.join(&image.file).is_file();
        let old = before.images.into_iter().filter(there);
        let others: Vec<Built> = old
            .filter(|o| images.iter().all(|i| i.reference != o.reference))
            .collect();
        images.extend(others);
    }
    images.sort_by(|a, b| a.reference.cmp(&b.reference));
    let list = List {
        version: VERSION,
        images,
    };
    let mut bytes = serde_json::to_vec_pretty(&list).map_err(|e| Error::Damaged {
        path: dir.join(LIST),
        reason: e.to_string(),
    })?;
    bytes.push(b'\n');
    write_atomic(&dir.join(LIST), &bytes, PUBLIC)?;
    Ok(list)
}

/// Writes one image to a stream.
pub fn save(
    name: &str,
    programs: &Programs,
    choices: &Choices,
    compression: Compression,
    out: impl Write,
) -> Result<packaging::image::Built, Error> {
    let definition = definitions::of(&[name.to_owned()])?.remove(0);
    let image = definition.image(programs, choices)?;
    Ok(Writer::new(compression).write(&image, out)?)
}

/// What an archive was made of, beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    fingerprint: String,
    built: Built,
}

/// Writes an image's archive unless it is there and made of the same files.
pub fn ensure(
    writer: &mut Writer,
    compression: Compression,
    image: &Image,
    path: &Path,
) -> Result<Built, Error> {
    let fingerprint = fingerprint(image, compression)?;
    let note = path.with_extension("fingerprint");
    if path.is_file()
        && let Some(bytes) = read_optional(&note)?
        && let Ok(known) = serde_json::from_slice::<Note>(&bytes)
        && known.fingerprint == fingerprint
    {
        return Ok(known.built);
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let file = File::create(&temporary).map_err(Error::io("write", &temporary))?;
    let written = writer.write(image, BufWriter::with_capacity(1 << 20, &file));
    let built = match written {
        Ok(built) => built,
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            return Err(error.into());
        }
    };
    file.sync_all().map_err(Error::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io("rename", &temporary))?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let note_text = Note {
        fingerprint,
        built: Built {
            name: String::new(),
            file: file.into_owned(),
            reference: built.reference,
            digest: built.manifest_digest,
            id: built.image_id,
            size: built.size,
        },
    };
    let bytes = serde_json::to_vec(&note_text).unwrap_or_default();
    write_atomic(&note, &bytes, PUBLIC)?;
    Ok(note_text.built)
}

/// A digest of what an image is made of: names, sizes and times of its files, cheap.
fn fingerprint(image: &Image, compression: Compression) -> Result<String, Error> {
    let mut hash = Sha256::new();
    hash.update(format!("1 {compression:?} {image:?}"));
    for file in image.all_files() {
        if let Content::File(source) = &file.content {
            let m = std::fs::metadata(source).map_err(Error::io("read", source))?;
            hash.update(format!("{} {} {} ", m.len(), m.mtime(), m.mtime_nsec()));
        }
    }
    Ok(crate::upstream::cache::hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(dir: &Path) -> Programs {
        for name in ["k8sm-pause", "k8sm-hello"] {
            let path = dir.join(name);
            if !path.exists() {
                std::fs::write(path, format!("program {name}")).unwrap();
            }
        }
        Programs::new(Some(dir), dir).unwrap()
    }

    fn build_in(dir: &Path, names: &[&str], repository: Option<&str>) -> Result<List, Error> {
        let programs = programs(dir);
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let choices = Choices {
            repository: repository.map(str::to_owned),
            licenses: true,
            ..Choices::default()
        };
        let out = dir.join("images");
        build(&out, &names, &programs, &choices, Compression::Gzip, |_| {})
    }

    #[test]
    fn images_lie_where_a_mesos_agent_looks_for_them_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = build_in(dir.path(), &["pause"], Some("r.example.org/k8sm")).unwrap();
        let file = &first.images[0].file;
        assert_eq!(file, "r.example.org/k8sm/pause:3.10.2.tar");
        let path = dir.path().join("images").join(file);
        let inode = std::fs::metadata(&path).unwrap().ino();
        // Another image; the first one stays in the list.
        let second = build_in(dir.path(), &["hello"], None).unwrap();
        assert_eq!(second.images.len(), 2, "{second:?}");
        assert_eq!(second, List::read(&dir.path().join("images")).unwrap());
        let again = build_in(dir.path(), &["pause"], Some("r.example.org/k8sm")).unwrap();
        assert_eq!(again, second);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        // A program that changed makes another image.
        std::fs::write(dir.path().join("k8sm-pause"), "newer").unwrap();
        let newer = build_in(dir.path(), &["pause"], Some("r.example.org/k8sm")).unwrap();
        assert_ne!(newer, second);
    }

    #[test]
    fn what_is_missing_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = build_in(dir.path(), &["coredns"], None).unwrap_err();
        assert!(error.to_string().contains("coredns"), "{error}");
        assert!(error.to_string().contains("k8sm upstream build"), "{error}");
        let error = build_in(dir.path(), &["nginx"], None).unwrap_err();
        assert!(
            error.to_string().contains("there is no image `nginx`"),
            "{error}"
        );
        let error = List::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("k8sm images build"), "{error}");
        build_in(dir.path(), &["pause"], None).unwrap();
        let images = dir.path().join("images");
        let list = List::read(&images).unwrap();
        let error = list.of(&images, &["x".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("it has pause"), "{error}");
        std::fs::write(images.join(LIST), "{").unwrap();
        let error = List::read(&images).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
}
