//! `k8sm package build`: a directory that any web server serves.
//!
//!     repo/repo-v5.json (v4, v3)           the repository, and beside each `.content_type`,
//!                                          what the server has to say of it
//!     repo/packages/K/kubernetes/<n>/      the package's own files, for the Universe
//!     icons/                               what the catalog shows
//!     artifacts/                           the programs, unless they are served elsewhere

use std::path::Path;

use packaging::install::artifacts::{FILE, Manifest, SUMS};
use packaging::universe::repository::FORMATS;
use packaging::universe::source::SOURCES;

use super::args::Build;
use super::{Error, built, checked, print};

/// Runs the command.
pub(super) fn run(args: &Build) -> Result<(), Error> {
    let files = built(&args.from, &args.url)?;
    // Nothing unfit is left lying about.
    checked(&files)?;
    let package = files.package(args.from.release)?;
    let repo = args.dir.join("repo");
    let first = package.name().chars().next().unwrap_or('K');
    let own = repo
        .join("packages")
        .join(first.to_ascii_uppercase().to_string())
        .join(package.name())
        .join(args.from.release.to_string());
    for (name, text) in files.named() {
        write(&own.join(name), text.as_bytes())?;
    }
    for format in FORMATS {
        let path = repo.join(format.file());
        let text = format.repository([&package]).to_string();
        write(&path, text.as_bytes())?;
        let kind = format!("{}\n", format.media_type());
        let path = repo.join(format!("{}.content_type", format.file()));
        write(&path, kind.as_bytes())?;
    }
    for (name, icon) in SOURCES.icons {
        write(&args.dir.join("icons").join(name), icon)?;
    }
    let manifest = crate::artifacts::manifest(&args.from.artifacts)?;
    if manifest.base_url.is_none() && args.from.artifacts_url.is_none() {
        place(&args.from.artifacts, &args.dir.join("artifacts"), &manifest)?;
    }
    print(&format!("{}\n", args.dir.display()))
}

/// Writes a file by one rename.
fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    packaging::files::write_atomic(path, content, 0o644).map_err(|e| Error::Io {
        action: "write",
        path: path.to_owned(),
        source: std::io::Error::other(e),
    })
}

/// Puts the artifacts beside the repository: links to the same files where that is possible.
fn place(from: &Path, to: &Path, manifest: &Manifest) -> Result<(), Error> {
    let paths = manifest.files.keys().filter_map(|name| manifest.path(name));
    for path in paths.chain([FILE.to_owned(), SUMS.to_owned()]) {
        let (source, target) = (from.join(&path), to.join(&path));
        let dir = target.parent().unwrap_or(to);
        std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
        match std::fs::remove_file(&target) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("replace", &target)(e));
            }
            _ => {}
        }
        if std::fs::hard_link(&source, &target).is_err() {
            std::fs::copy(&source, &target).map_err(Error::io("copy", &source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::args::Origin;
    use super::*;

    /// An artifacts directory with little in it.
    pub(in super::super) fn artifacts(dir: &Path) {
        use sha2::{Digest as _, Sha256};
        let mut files = serde_json::Map::new();
        for name in packaging::universe::source::artifact_names() {
            let content = format!("the program {name}");
            let digest = Sha256::digest(content.as_bytes());
            let sha256: String = crate::upstream::cache::hex(&digest);
            std::fs::create_dir_all(dir.join(&sha256)).unwrap();
            std::fs::write(dir.join(&sha256).join(name), &content).unwrap();
            files.insert(
                name.to_owned(),
                serde_json::json!({"sha256": sha256, "size": content.len()}),
            );
        }
        let list = serde_json::json!({
            "version": 1, "files": files, "components": {"kubelet": "v1.37.1"},
        });
        std::fs::write(dir.join(FILE), list.to_string()).unwrap();
        std::fs::write(dir.join(SUMS), "").unwrap();
    }

    pub(in super::super) fn from(dir: &Path) -> Origin {
        Origin {
            artifacts: dir.to_owned(),
            artifacts_url: None,
            release: 7,
            images: None,
            upgrades_from: Vec::new(),
            downgrades_to: Vec::new(),
        }
    }

    #[test]
    fn a_directory_for_a_web_server_is_written_and_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        artifacts(&source);
        let args = Build {
            from: from(&source),
            url: "https://files.example.org/k8sm/".to_owned(),
            dir: dir.path().join("out"),
        };
        run(&args).unwrap();
        run(&args).unwrap();
        let read = |path: &str| std::fs::read_to_string(args.dir.join(path)).unwrap();
        let own = "repo/packages/K/kubernetes/7";
        let resource: serde_json::Value =
            serde_json::from_str(&read(&format!("{own}/resource.json"))).unwrap();
        let etcd = resource["assets"]["uris"]["etcd"].as_str().unwrap();
        let path = etcd
            .strip_prefix("https://files.example.org/k8sm/")
            .unwrap();
        assert_eq!(read(path), "the program etcd");
        assert!(read("repo/repo-v5.json.content_type").contains("version=v5"));
        let repo: serde_json::Value = serde_json::from_str(&read("repo/repo-v4.json")).unwrap();
        assert_eq!(repo["packages"][0]["releaseVersion"], 7);
        assert!(args.dir.join("icons/icon-small.png").is_file());
    }
}
