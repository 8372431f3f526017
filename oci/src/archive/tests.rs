use std::collections::BTreeMap;

use packaging::image::{self, Compression, Content, Writer};

use super::*;

fn image_of(name: &str) -> image::Image {
    image::Image {
        reference: name.to_owned(),
        base: vec![vec![image::File {
            path: "/lib/base".to_owned(),
            mode: 0o644,
            content: Content::Bytes(b"base".to_vec()),
        }]],
        files: vec![image::File {
            path: "/bin/app".to_owned(),
            mode: 0o755,
            content: Content::Bytes(b"program".to_vec()),
        }],
        entrypoint: vec!["/bin/app".to_owned()],
        user: 65532,
        labels: BTreeMap::new(),
        working_dir: "/".to_owned(),
    }
}

fn written(dir: &Path, compression: Compression) -> (PathBuf, image::Built) {
    let path = dir.join("image.tar");
    let file = File::create(&path).unwrap();
    let built = Writer::new(compression)
        .write(&image_of("r.example.org/a/app:1"), file)
        .unwrap();
    (path, built)
}

fn wanted() -> Reference {
    "r.example.org/a/app:1".parse().unwrap()
}

/// Unpacks a tar file into a directory, as a layout on disk is.
fn unpacked(path: &Path, dir: &Path) {
    tar::Archive::new(File::open(path).unwrap())
        .unpack(dir)
        .unwrap();
}

#[test]
fn what_packaging_writes_is_read_as_tar_as_directory_and_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, built) = written(dir.path(), Compression::Gzip);
    let whole = Archive::open(&path).unwrap().image(&wanted()).unwrap();
    assert_eq!(whole.id().to_string(), built.image_id);
    assert_eq!(
        Digest::of(whole.manifest.as_ref().unwrap()).to_string(),
        built.manifest_digest
    );
    assert_eq!(whole.size(), built.size);
    assert_eq!(whole.layers.len(), 2);

    unpacked(&path, &dir.path().join("layout"));
    let layout = Archive::open(&dir.path().join("layout")).unwrap();
    assert_eq!(layout.image(&wanted()).unwrap(), whole);

    let squeezed = dir.path().join("image.tar.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(&squeezed).unwrap(), Default::default());
    io::copy(&mut File::open(&path).unwrap(), &mut encoder).unwrap();
    encoder.finish().unwrap();
    let squeezed = Archive::open(&squeezed).unwrap();
    assert_eq!(squeezed.image(&wanted()).unwrap(), whole);
}

#[test]
fn a_docker_archive_without_a_layout_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let (path, built) = written(dir.path(), Compression::None);
    let layout = dir.path().join("docker");
    unpacked(&path, &layout);
    for file in ["index.json", "oci-layout"] {
        std::fs::remove_file(layout.join(file)).unwrap();
    }
    let image = Archive::open(&layout).unwrap().image(&wanted()).unwrap();
    assert_eq!(image.id().to_string(), built.image_id);
    assert!(image.manifest.is_none());
}

#[test]
fn another_image_is_refused_with_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (path, built) = written(dir.path(), Compression::None);
    let archive = Archive::open(&path).unwrap();
    let error = archive.image(&"app:2".parse().unwrap()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("no image app:2; it has r.example.org/a/app:1"),
        "{text}"
    );
    let pinned = format!("elsewhere/app@{}", built.manifest_digest);
    assert!(archive.image(&pinned.parse().unwrap()).is_ok());
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused_or_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = written(dir.path(), Compression::Gzip);
    let bytes = std::fs::read(&path).unwrap();
    // The end of a tar archive is two empty blocks, which may be missing.
    for length in (0..bytes.len() - 1024).step_by(256) {
        let cut = dir.path().join("cut.tar");
        std::fs::write(&cut, &bytes[..length]).unwrap();
        let read = Archive::open(&cut).and_then(|a| a.image(&wanted()));
        if let Ok(image) = read {
            let root = tempfile::tempdir_in(dir.path()).unwrap();
            let archive = Archive::open(&cut).unwrap();
            crate::unpack::image(&archive, &image, root.path(), 1 << 20).unwrap();
            assert!(root.path().join("bin/app").is_file());
        }
    }
    let nothing = dir.path().join("nothing.tar");
    std::fs::write(&nothing, "").unwrap();
    let error = Archive::open(&nothing).unwrap().images().unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = written(dir.path(), Compression::Gzip);
    let good = std::fs::read(&path).unwrap();
    let root = tempfile::tempdir().unwrap();
    let read = |bytes: &[u8]| -> Result<Vec<u8>, String> {
        let bad = dir.path().join("bad.tar");
        std::fs::write(&bad, bytes).unwrap();
        let archive = Archive::open(&bad).map_err(|e| e.to_string())?;
        let image = archive.image(&wanted()).map_err(|e| e.to_string())?;
        let target = root.path().join("root");
        let _ = std::fs::remove_dir_all(&target);
        std::fs::create_dir(&target).unwrap();
        crate::unpack::image(&archive, &image, &target, 1 << 20).map_err(|e| e.to_string())?;
        std::fs::read(target.join("bin/app")).map_err(|e| e.to_string())
    };
    assert_eq!(read(&good).unwrap(), b"program");
    for at in (0..good.len()).step_by(37) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        // Padding and parts that only other programs read may differ; content may not.
        if let Ok(content) = read(&bad) {
            assert_eq!(content, b"program", "byte {at}");
        }
    }
}

#[test]
fn links_stay_in_the_archive() {
    assert_eq!(resolve("a/b", "../c").as_deref(), Some("a/c"));
    assert_eq!(resolve("", "./x/y").as_deref(), Some("x/y"));
    assert_eq!(resolve("a", "../../etc/passwd"), None);
    assert_eq!(join(Path::new("/d"), "../x"), None);
    assert_eq!(join(Path::new("/d"), "/x"), None);
}
