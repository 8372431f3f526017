//! `k8sm package bundle`: one archive for clusters without Internet. Whoever has unpacked it needs
//! nothing else: `k8sm` is in it, and serves the repository and the artifacts itself.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use packaging::install::artifacts::{FILE, SUMS};
use packaging::universe::source::{kubernetes_version, package_version};
use tar::{Builder, EntryType, Header};

use super::args::Bundle;
use super::{Error, print};

const README: &str = "\
Kubernetes on Mesos, everything that a cluster without Internet needs.

DC/OS: on a machine that the masters and agents reach, here HOST:
  ./k8sm package serve --artifacts artifacts --listen 0.0.0.0:8080 --url http://HOST:8080
and where the dcos command is:
  dcos package repo add --index=0 k8sm http://HOST:8080/repo
  dcos package install kubernetes --options=options.json
The server is needed whenever an app starts on an agent for the first time.

Mesos with Marathon:
  ./k8sm install --marathon http://MARATHON:8080 --artifacts artifacts --serve

`sha256sum -c SHA256SUMS` in artifacts/ checks what arrived.
";

/// Runs the command.
pub(super) fn run(args: &Bundle) -> Result<(), Error> {
    let manifest = crate::artifacts::manifest(&args.artifacts)?;
    manifest.complete()?;
    let version = package_version(env!("CARGO_PKG_VERSION"), &kubernetes_version(&manifest)?)?;
    let top = format!("kubernetes-{version}");
    let failed = |e| Error::io("write", &args.file)(e);
    let mut half = args.file.clone().into_os_string();
    half.push(".part");
    let half = std::path::PathBuf::from(half);
    let file = File::create(&half).map_err(failed)?;
    let mut archive = Builder::new(BufWriter::with_capacity(1 << 20, file));
    text(&mut archive, &format!("{top}/README"), README).map_err(failed)?;
    let copy = |archive: &mut Builder<BufWriter<File>>, name: &str, mode, path: &Path| {
        let source = File::open(path).map_err(Error::io("open", path))?;
        let size = source.metadata().map_err(Error::io("read", path))?.len();
        let mut header = header(size, mode);
        archive
            .append_data(&mut header, name, source)
            .map_err(|e| Error::io("write", &args.file)(e))
    };
    for name in manifest.files.keys() {
        let path = manifest.path(name).unwrap_or_default();
        let (inside, there) = (
            format!("{top}/artifacts/{path}"),
            args.artifacts.join(&path),
        );
        copy(&mut archive, &inside, 0o755, &there)?;
        if name == "k8sm" {
            copy(&mut archive, &format!("{top}/k8sm"), 0o755, &there)?;
        }
    }
    // Where it will be served is decided where it is unpacked.
    let list = packaging::install::artifacts::Manifest {
        base_url: None,
        ..manifest.clone()
    };
    let list = serde_json::to_string_pretty(&list)
        .map_err(std::io::Error::other)
        .map_err(failed)?;
    text(&mut archive, &format!("{top}/artifacts/{FILE}"), &list).map_err(failed)?;
    text(
        &mut archive,
        &format!("{top}/artifacts/{SUMS}"),
        &manifest.sums(),
    )
    .map_err(failed)?;
    let mut file = archive.into_inner().map_err(failed)?;
    file.flush().map_err(failed)?;
    std::fs::rename(&half, &args.file).map_err(failed)?;
    print(&format!("{}\n", args.file.display()))
}

/// The same inputs give the same archive.
fn header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn text(archive: &mut Builder<BufWriter<File>>, name: &str, text: &str) -> std::io::Result<()> {
    let mut header = header(text.len() as u64, 0o644);
    archive.append_data(&mut header, name, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::build::tests::artifacts;
    use super::*;

    #[test]
    fn the_archive_holds_everything_and_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        artifacts(&source);
        let bundle = |name: &str| {
            let file = dir.path().join(name);
            let artifacts = source.clone();
            run(&Bundle {
                artifacts,
                file: file.clone(),
            })
            .unwrap();
            std::fs::read(file).unwrap()
        };
        let bytes = bundle("a.tar");
        assert_eq!(bytes, bundle("b.tar"));
        tar::Archive::new(bytes.as_slice())
            .unpack(dir.path())
            .unwrap();
        let top = dir.path().join("kubernetes-0.1.0-1.37.1");
        assert_eq!(
            std::fs::read_to_string(top.join("k8sm")).unwrap(),
            "the program k8sm"
        );
        let list = crate::artifacts::manifest(&top.join("artifacts")).unwrap();
        list.complete().unwrap();
        for name in list.files.keys() {
            let path = top.join("artifacts").join(list.path(name).unwrap());
            assert_eq!(
                std::fs::read_to_string(path).unwrap(),
                format!("the program {name}")
            );
        }
    }
}
