use super::*;

fn image() -> Image {
    Image {
        reference: "example.org/hello:1".to_owned(),
        base: vec![vec![File {
            path: "/usr/lib/base".to_owned(),
            mode: 0o644,
            content: Content::Bytes(b"below".to_vec()),
        }]],
        files: vec![
            File {
                path: "/usr/bin/hello".to_owned(),
                mode: 0o755,
                content: Content::Bytes(b"#!".to_vec()),
            },
            File {
                path: "/etc/passwd".to_owned(),
                mode: 0o644,
                content: Content::Bytes(b"nonroot:x:65532:65532::/:\n".to_vec()),
            },
        ],
        entrypoint: vec!["/usr/bin/hello".to_owned()],
        user: NON_ROOT,
        labels: BTreeMap::new(),
        working_dir: "/".to_owned(),
    }
    .label("org.opencontainers.image.title", "hello")
}

#[test]
fn the_same_files_give_the_same_bytes() {
    for compression in [Compression::None, Compression::Gzip] {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let built = Writer::new(compression)
            .write(&image(), &mut first)
            .unwrap();
        let mut reordered = image();
        reordered.files.reverse();
        let mut writer = Writer::new(compression);
        let again = writer.write(&reordered, &mut second).unwrap();
        assert_eq!(again, built);
        assert!(first == second, "{compression:?}");
        // Layers that were packed before are the same as those that are packed now.
        let mut third = Vec::new();
        writer.write(&image(), &mut third).unwrap();
        assert!(first == third, "{compression:?}");
    }
}

#[test]
fn a_compressed_image_has_the_same_content_and_is_another_image() {
    let mut out = Vec::new();
    let plain = image().write(io::sink()).unwrap();
    let gzip = Writer::new(Compression::Gzip)
        .write(&image(), &mut out)
        .unwrap();
    assert_eq!(plain.image_id, gzip.image_id);
    assert_ne!(plain.manifest_digest, gzip.manifest_digest);
    assert!(gzip.size < plain.size);
}

#[test]
fn an_archive_is_an_oci_layout_and_a_docker_archive_of_both_kinds() {
    let mut out = Vec::new();
    image().write(&mut out).unwrap();
    let mut listing = String::new();
    let mut archive = tar::Archive::new(out.as_slice());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        if path.ends_with("json") || path == "oci-layout" || path == "repositories" {
            entry.read_to_string(&mut text).unwrap();
        }
        if let Some(target) = entry.link_name().unwrap() {
            text = format!("-> {}", target.display());
        }
        listing.push_str(&format!("{path} {} {text}\n", entry.size()));
    }
    if architecture() == "amd64" {
        insta::assert_snapshot!(listing);
    }
}

#[test]
fn a_bad_name_or_path_is_refused() {
    let mut no_tag = image();
    no_tag.reference = "example.org:5000/hello".to_owned();
    assert!(matches!(
        no_tag.write(io::sink()),
        Err(Error::Invalid { .. })
    ));
    let mut escaping = image();
    escaping.files[0].path = "/../etc/shadow".to_owned();
    assert!(matches!(
        escaping.write(io::sink()),
        Err(Error::Invalid { .. })
    ));
    let mut missing = image();
    missing.files[0].content = Content::File("/nonexistent/program".into());
    let error = missing.write(io::sink()).unwrap_err().to_string();
    assert!(error.starts_with("read /nonexistent/program for image example.org/hello:1"));
}

#[test]
fn a_file_that_changes_between_digesting_and_packing_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::fs::write(&program, "one").unwrap();
    let image = Image::of_program("example.org/x:1", "x", &program);
    let mut writer = Writer::new(Compression::None);
    writer.write(&image, io::sink()).unwrap();
    std::fs::write(&program, "two").unwrap();
    let error = writer.write(&image, io::sink()).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
}
