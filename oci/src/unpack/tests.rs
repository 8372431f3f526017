use std::io::Cursor;

use super::*;

/// Entries: a path with its content, `dir/`, `link -> target`, `hard => target`.
fn layer(entries: &[(&str, &str)]) -> (Vec<u8>, Layer) {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let set = |header: &mut tar::Header, path: &str| {
            // As written, also what the library would refuse.
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
        };
        header.set_size(0);
        if let Some((name, target)) = path.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name_literal(target).unwrap();
            set(&mut header, name);
        } else if let Some((name, target)) = path.split_once(" => ") {
            header.set_entry_type(tar::EntryType::Link);
            header.set_link_name_literal(target).unwrap();
            set(&mut header, name);
        } else if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            set(&mut header, path);
        } else {
            header.set_size(content.len() as u64);
            set(&mut header, path);
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    let layer = Layer {
        path: String::new(),
        digest: None,
        diff_id: Digest::of(&bytes),
        size: bytes.len() as u64,
    };
    (bytes, layer)
}

fn apply_all(root: &Path, layers: &[&[(&str, &str)]]) -> Result<(), Error> {
    for entries in layers {
        let (bytes, layer) = layer(entries);
        apply(Cursor::new(bytes), &layer, root, 1 << 20)?;
    }
    Ok(())
}

fn tree(root: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                found.push(format!(
                    "{name} -> {}",
                    fs::read_link(&path).unwrap().display()
                ));
            } else if kind.is_dir() {
                found.push(format!("{name}/"));
                walk(root, &path, found);
            } else {
                found.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found
}

#[test]
fn upper_layers_replace_and_hide_lower_ones() {
    let dir = tempfile::tempdir().unwrap();
    apply_all(
        dir.path(),
        &[
            &[
                ("a/", ""),
                ("a/one", "1"),
                ("a/two", "2"),
                ("b/", ""),
                ("b/x", "x"),
                ("f", "f"),
            ],
            &[
                ("a/.wh.one", ""),
                ("a/three", "3"),
                ("b/new", "n"),
                ("b/.wh..wh..opq", ""),
                ("f/", ""),
                ("f/inside", "i"),
                (".wh.absent", ""),
            ],
        ],
    )
    .unwrap();
    assert_eq!(
        tree(dir.path()),
        [
            "a/",
            "a/three=3",
            "a/two=2",
            "b/",
            "b/new=n",
            "f/",
            "f/inside=i"
        ]
    );
}

#[test]
fn a_whiteout_hides_nothing_of_its_own_layer() {
    let dir = tempfile::tempdir().unwrap();
    apply_all(
        dir.path(),
        &[
            &[("d/", ""), ("d/sub/", ""), ("d/sub/old", "o")],
            &[
                ("d/sub/new", "n"),
                ("d/.wh.sub", ""),
                ("d/.wh..wh..opq", ""),
            ],
        ],
    )
    .unwrap();
    assert_eq!(tree(dir.path()), ["d/", "d/sub/", "d/sub/new=n"]);
}

#[test]
fn nothing_is_written_outside_the_root() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(outer.path().join("victim"), "safe").unwrap();
    let victim = outer.path().join("victim").display().to_string();
    apply_all(
        &root,
        &[
            &[
                ("../victim", "hit"),
                ("up -> ..", ""),
                ("up/victim", "hit"),
                ("abs -> /", ""),
                ("abs/etc/x", "inside"),
                (&format!("direct -> {victim}"), ""),
                ("direct", "replaced"),
                ("loop -> loop", ""),
            ],
            &[("abs/.wh.victim", ""), ("up/.wh..wh..opq", "")],
        ],
    )
    .unwrap();
    assert_eq!(
        fs::read_to_string(outer.path().join("victim")).unwrap(),
        "safe"
    );
    // The opaque directory was the root, reached through a link.
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let error = apply_all(&root, &[&[("loop -> loop", ""), ("loop/x", "")]]).unwrap_err();
    assert!(
        error.to_string().contains("too many symbolic links"),
        "{error}"
    );
    let error = apply_all(&root, &[&[("hard => ../victim", "")]]).unwrap_err();
    assert!(error.to_string().contains("unpack hard"), "{error}");
}

#[test]
fn hard_and_symbolic_links_work_within_the_image() {
    let dir = tempfile::tempdir().unwrap();
    apply_all(
        dir.path(),
        &[&[
            ("usr/", ""),
            ("usr/bin/tool", "t"),
            ("bin -> usr/bin", ""),
            ("bin/other => bin/tool", ""),
            ("var/run -> /run", ""),
            ("var/run/pid", "7"),
        ]],
    )
    .unwrap();
    assert_eq!(
        tree(dir.path()),
        [
            "bin -> usr/bin",
            "run/",
            "run/pid=7",
            "usr/",
            "usr/bin/",
            "usr/bin/other=t",
            "usr/bin/tool=t",
            "var/",
            "var/run -> /run"
        ]
    );
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, mut told) = layer(&[("a", "1")]);
    told.diff_id = Digest::of(b"other");
    let error = apply(Cursor::new(bytes.clone()), &told, dir.path(), 1 << 20).unwrap_err();
    assert!(
        error.to_string().contains("the image's configuration says"),
        "{error}"
    );
    let (_, good) = layer(&[("a", "1")]);
    let error = apply(Cursor::new(&bytes[..700]), &good, dir.path(), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    let error = apply(Cursor::new(bytes), &good, dir.path(), 100).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0];
    let error = apply(Cursor::new(zstd), &good, dir.path(), 100).unwrap_err();
    assert!(error.to_string().contains("zstd"), "{error}");
}
