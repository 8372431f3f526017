//! A disk that is too small or full: it is said where and how much, nothing is lost, and with room
//! again everything goes on. The disk is a tmpfs, whose size can be changed while it is used.

use std::path::{Path, PathBuf};

use crate::support::{BUSYBOX, Cluster, processes};

const UNFIT: i32 = 3;
const TIMEOUT: i32 = 5;
const NOT_UP: i32 = 6;

/// Seconds. kubelet keeps a pressure that it has seen for a minute
/// (`evictionPressureTransitionPeriod`), and whether it sees one before etcd ends is a race.
const PRESSURE_ENDS: u64 = 180;

#[test]
fn without_space_it_is_said_and_with_space_it_goes_on() {
    // Ends after the cluster, whose logs lie on it.
    let disk;
    let cluster = Cluster::prepare(&["--agents=1", "--mesos-port=0"]);
    disk = Disk::mount(cluster.dir(), "512m");
    cluster.write_images();
    up_says_how_much_is_missing(&cluster);
    disk.resize("6g");
    cluster.up_again();
    a_full_disk_loses_nothing(&cluster, &disk);
    a_node_without_room_says_so(&cluster);
    cluster.finish_on(disk);
}

/// A tmpfs over a folder.
pub struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Self {
        nix::mount::mount(
            Some("k8sm-e2e"),
            at,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(format!("size={size},mode=755").as_str()),
        )
        .unwrap();
        Self(at.to_owned())
    }

    fn resize(&self, size: &str) {
        nix::mount::mount(
            None::<&str>,
            &self.0,
            None::<&str>,
            nix::mount::MsFlags::MS_REMOUNT,
            Some(format!("size={size}").as_str()),
        )
        .unwrap();
    }

    /// Leaves this many bytes.
    fn shrink_to_free(&self, free: u64) {
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let used = (stat.blocks() - stat.blocks_free()) * stat.fragment_size();
        self.resize(&(used + free).to_string());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        if std::thread::panicking() {
            // The cluster went before and could not remove it.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn up_says_how_much_is_missing(cluster: &Cluster) {
    let said = cluster.k8sm_fails(&cluster.up_args(), UNFIT);
    assert!(said.contains("GiB free, 4.0 GiB are needed"), "{said}");
    assert!(said.contains("--state-dir"), "the remedy: {said}");
    assert!(!cluster.dir().join("state/settings.json").exists());
}

/// etcd, Mesos and the node end or evict while they cannot write; what was stored is there again
/// afterwards, and everything converges.
fn a_full_disk_loses_nothing(cluster: &Cluster, disk: &Disk) {
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}");
    disk.shrink_to_free(0);
    let mut status = String::new();
    cluster.wait(
        "a process ends for want of space, and status names it",
        120,
        || {
            let output = cluster.command(&["status"]).output().unwrap();
            status = String::from_utf8_lossy(&output.stdout).into_owned();
            output.status.code() == Some(NOT_UP)
        },
    );
    // What ends gives back what it had set aside: etcd up to 64 MiB for its next log.
    let free = status
        .lines()
        .find_map(|line| line.strip_prefix("! ")?.split_once(" MiB are free below"))
        .and_then(|(free, _)| free.parse::<u64>().ok());
    assert!(
        free.is_some_and(|free| free < 200) && status.contains("free some space"),
        "{status}"
    );
    disk.resize("6g");
    cluster.wait("every process is ready again", 180, || {
        let output = cluster.command(&["status"]).output().unwrap();
        output.status.success()
    });
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["a"], "b");
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: roomy}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: c, image: {BUSYBOX}, command: [/bin/busybox, sleep, '100000']}}
"
    ));
    cluster.wait_ready("roomy", PRESSURE_ENDS);
    cluster.wait("hello is ready", 120, || cluster.ready("app=hello") == 2);
    let running = processes::with_variable("POD_NAMESPACE", "default")
        .into_iter()
        .filter(|it| it.program() == "hello")
        .filter(|it| {
            cluster
                .containers("app=hello")
                .iter()
                .any(|(pod, _)| it.has("POD_NAME", pod))
        })
        .count();
    assert_eq!(running, 2, "each of hello's pods runs once");
    cluster.kubectl(&["delete", "pod", "roomy", "--timeout=60s"]);
}

/// The executor's data directory on a disk of its own that is too small for the payload.
fn a_node_without_room_says_so(cluster: &Cluster) {
    cluster.k8sm(&["stop"]);
    let small = Disk::mount(&cluster.dir().join("state/node"), "20m");
    let said = cluster.k8sm_fails(&["start", "--timeout=45"], TIMEOUT);
    assert!(
        said.contains("nodes are ready") || said.contains("every node"),
        "{said}"
    );
    let events = cluster.kubectl(&["get", "events", "-A"]);
    assert!(
        events.contains("make room") && events.contains("bytes below"),
        "the node's events: {events}"
    );
    small.resize("3g");
    cluster.k8sm(&["start"]);
    cluster.wait("hello runs on the new node", 120, || {
        cluster.ready("app=hello") == 2
    });
    cluster.k8sm(&["stop"]);
    drop(small);
}
