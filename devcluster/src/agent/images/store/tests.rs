use std::collections::BTreeMap;

use oci::credentials::Credentials;

use super::*;
use crate::agent::images::{Bind, Manner, rootfs::Rootfs};

/// Writes an image of one file by hand: what an archive must have at least.
fn write_archive(path: &Path, name: &str, content: &str) {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "app", content.as_bytes());
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": oci::model::Platform::here().architecture, "os": "linux",
        "config": {"Entrypoint": ["/app"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
    })
    .to_string();
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"],
    }]);
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    append(&mut archive, "config.json", config.as_bytes());
    append(&mut archive, "layer.tar", &layer);
    append(
        &mut archive,
        "manifest.json",
        manifest.to_string().as_bytes(),
    );
    archive.finish().unwrap();
}

fn append<W: std::io::Write>(archive: &mut tar::Builder<W>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, path, content).unwrap();
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new(store_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        let store = Self::open(dir.path(), store_bytes);
        Self { dir, store }
    }

    fn open(dir: &Path, store_bytes: u64) -> Store {
        let config = ImagesConfig {
            origin: Origin::Directory(dir.join("images")),
            store_dir: dir.join("store"),
            store_bytes,
            credentials: Credentials::default(),
            authority: None,
            docker_containerizer: false,
        };
        Store::open(config, Layout::below(&dir.join("agent"))).unwrap()
    }

    fn archive(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("images/{name}.tar"))
    }

    fn unpacked(&self) -> usize {
        disk::list_dir(&self.dir.path().join("store/images"))
            .unwrap()
            .len()
    }

    async fn get(&self, name: &str) -> Result<Stored, Error> {
        self.store.get(&wanted(name)).await
    }
}

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.parse().unwrap(),
        cached: true,
        manner: Manner::Mesos,
        privileged: false,
        credentials: None,
        binds: Vec::new(),
    }
}

#[tokio::test]
async fn an_image_is_unpacked_once_and_again_when_its_archive_changes() {
    let world = World::new(1 << 30);
    write_archive(&world.archive("a:1"), "a:1", "one");
    let (first, second) = tokio::join!(world.get("a:1"), world.get("a:1"));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.rootfs, second.rootfs);
    assert_eq!(first.run.entrypoint, ["/app"]);
    assert_eq!(fs::read_to_string(first.rootfs.join("app")).unwrap(), "one");
    write_archive(&world.archive("a:1"), "a:1", "another");
    let third = world.get("a:1").await.unwrap();
    assert_eq!(
        fs::read_to_string(third.rootfs.join("app")).unwrap(),
        "another"
    );
    // An agent that is started again finds what there is.
    let again = World::open(world.dir.path(), 1 << 30);
    assert_eq!(
        again.get(&wanted("a:1")).await.unwrap().rootfs,
        third.rootfs
    );
    assert_eq!(world.unpacked(), 2);
}

#[tokio::test]
async fn what_is_missing_cut_off_or_another_image_is_said_and_leaves_nothing() {
    let world = World::new(1 << 30);
    let error = world.get("a:1").await.unwrap_err().to_string();
    assert!(
        error.starts_with("Failed to find archive for image 'a:1' at '"),
        "{error}"
    );
    let path = world.archive("a:1");
    write_archive(&path, "b:2", "x");
    let error = world.get("a:1").await.unwrap_err().to_string();
    assert!(error.contains("has no image a:1; it has b:2"), "{error}");
    write_archive(&path, "a:1", "x");
    let whole = fs::read(&path).unwrap();
    for length in [0, 300, 900, 1800, 2500] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = world.get("a:1").await.unwrap_err().to_string();
        assert!(error.contains("damaged"), "{length}: {error}");
    }
    assert_eq!(world.unpacked(), 0);
    let work = disk::list_dir(&world.dir.path().join("store/work")).unwrap();
    assert!(work.is_empty(), "{work:?}");
}

#[tokio::test]
async fn images_that_nobody_uses_go_when_there_are_too_many() {
    let world = World::new(1);
    for name in ["a:1", "b:1", "c:1"] {
        write_archive(&world.archive(name), name, name);
    }
    let held = world.get("a:1").await.unwrap();
    let mounted = world.get("b:1").await.unwrap();
    // A container of an earlier process, of which only its note is known.
    let container = world.dir.path().join("agent/run/containers/c1");
    fs::create_dir_all(&container).unwrap();
    let note = ContainerImage {
        rootfs: Rootfs {
            lower: mounted.rootfs.clone(),
            dir: container.clone(),
            sandbox: "/s".into(),
            binds: Vec::<Bind>::new(),
            privileged: false,
        },
        run: RunConfig::default(),
        manner: Manner::Mesos,
        user: None,
        helper: Vec::new(),
    };
    disk::write_json(&container.join(ContainerImage::FILE), &note).unwrap();
    let used = mounted.rootfs.clone();
    drop(mounted);
    let third = world.get("c:1").await.unwrap();
    assert!(held.rootfs.is_dir() && used.is_dir() && third.rootfs.is_dir());
    fs::remove_dir_all(&container).unwrap();
    let gone = third.rootfs.clone();
    drop(third);
    world.get("a:1").await.unwrap();
    assert!(
        used.is_dir(),
        "nothing is removed for an image that is there"
    );
    write_archive(&world.archive("d:1"), "d:1", "d");
    let fourth = world.get("d:1").await.unwrap();
    assert!(!used.exists() && !gone.exists());
    assert!(held.rootfs.is_dir() && fourth.rootfs.is_dir());
    assert_eq!(world.store.leases.lock().unwrap().len(), 2);
    drop((held, fourth));
    assert_eq!(*world.store.leases.lock().unwrap(), BTreeMap::new());
}
