//! Licence texts of what is in an image, below `/licenses`: our own licence, and for each
//! upstream program the list that `k8sm upstream build` writes beside it with the texts it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Content, File};

/// The licence of this project.
const OWN: &str = include_str!("../../../LICENSE");
/// The crates that our programs contain, with the texts of their licences. `tests/rust_licenses.rs`
/// writes it, and sees to it that it is what `Cargo.lock` says.
const CRATES: &str = include_str!("rust-crates.txt");
/// What a program's list is called beside it.
const LIST: &str = "LICENSES.tsv";
/// Where the texts are, beside the folders of the programs.
const TEXTS: &str = "licenses";

/// Why licences cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A list or a text cannot be read.
    #[error("read the licences {path}: {source}; `k8sm upstream build` writes them", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The licences of an image.
#[derive(Debug, Default)]
pub struct Licenses {
    files: BTreeMap<String, Content>,
}

impl Licenses {
    /// Adds what a program contains. Programs without a list are our own, with one for all.
    pub fn add(&mut self, program: &str, path: &Path) -> Result<(), Error> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Read { path, source }
        };
        // Programs are shown to us as links into the folders where they were built.
        let real = fs::canonicalize(path).map_err(read(path))?;
        let folder = real.parent().unwrap_or(Path::new("/"));
        let list = folder.join(LIST);
        let text = match fs::read_to_string(&list) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let path = "/licenses/rust-crates.txt".to_owned();
                self.files.insert(path, Content::Bytes(CRATES.into()));
                return Ok(());
            }
            Err(e) => return Err(read(&list)(e)),
        };
        let texts = folder.parent().unwrap_or(folder).join(TEXTS);
        for (module, version, names) in rows(&text) {
            let dir = format!("{}@{}", escape(module), escape(version));
            // What is a directory in a module is named by the list, but its text is not kept.
            let mut missing = None;
            let mut kept = false;
            for name in names {
                let source = texts.join(&dir).join(name);
                match fs::metadata(&source) {
                    Ok(m) if m.is_file() => {
                        let path = format!("/licenses/{dir}/{name}");
                        self.files.insert(path, Content::File(source));
                        kept = true;
                    }
                    Ok(_) => {}
                    Err(e) => missing = Some((source, e)),
                }
            }
            if let Some((source, e)) = missing.filter(|_| !kept) {
                return Err(read(&source)(e));
            }
        }
        let path = format!("/licenses/{program}.tsv");
        self.files.insert(path, Content::Bytes(text.into_bytes()));
        Ok(())
    }

    /// The files, our own licence among them.
    pub fn files(self) -> Vec<File> {
        let own = ("/licenses/LICENSE".to_owned(), Content::Bytes(OWN.into()));
        let mut files = self.files;
        files.extend([own]);
        files
            .into_iter()
            .map(|(path, content)| File {
                path,
                mode: 0o644,
                content,
            })
            .collect()
    }
}

/// Module, version and names of files, from lines that tabs part.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str, Vec<&str>)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (module, version) = (fields.next()?, fields.next()?);
            let names = fields.nth(1)?.split_whitespace();
            let plain = |name: &&str| !name.contains('/') && *name != "..";
            Some((module, version, names.filter(plain).collect()))
        })
}

/// A module's name as the folders of Go's module cache have it: upper-case letters are `!x`.
pub fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            escaped.push('!');
        }
        escaped.push(letter.to_ascii_lowercase());
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_brings_the_texts_that_its_list_names() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("etcd-v3.7.3-abc");
        let texts = dir.path().join("licenses/github.com/!azure/go@v1.0.0");
        fs::create_dir_all(&built).unwrap();
        fs::create_dir_all(&texts).unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::write(built.join("etcd"), "program").unwrap();
        let list = "# heading\ngithub.com/Azure/go\tv1.0.0\tMIT\tLICENSE\nk8s.io/x\tv1\tnone\t\n";
        fs::write(built.join(LIST), list).unwrap();
        let link = dir.path().join("bin/etcd");
        std::os::unix::fs::symlink(built.join("etcd"), &link).unwrap();
        let mut licenses = Licenses::default();
        let error = licenses.add("etcd", &link).unwrap_err().to_string();
        assert!(error.contains("go@v1.0.0/LICENSE"), "{error}");
        fs::write(texts.join("LICENSE"), "text").unwrap();
        licenses.add("etcd", &link).unwrap();
        licenses.add("k8sm", Path::new("/bin/sh")).unwrap();
        let paths: Vec<String> = licenses.files().into_iter().map(|f| f.path).collect();
        assert_eq!(
            paths,
            [
                "/licenses/LICENSE",
                "/licenses/etcd.tsv",
                "/licenses/github.com/!azure/go@v1.0.0/LICENSE",
                "/licenses/rust-crates.txt"
            ]
        );
    }

    #[test]
    fn upper_case_letters_are_escaped_as_the_module_cache_does() {
        assert_eq!(
            escape("github.com/Azure/go-ANSI"),
            "github.com/!azure/go-!a!n!s!i"
        );
        assert_eq!(escape("k8s.io/api"), "k8s.io/api");
    }
}
