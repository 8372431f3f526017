//! What tests of a whole node need: isolation, a control plane, a payload.
//!
//! The programs are upstream's, found in the directory that `K8SM_UPSTREAM_BIN` names (`k8sm upstream
//! build` fills one). Without it, or without root, a test says so and passes.

#![allow(dead_code, missing_docs)] // Each test binary uses a part of it.

pub mod control_plane;
pub mod image;
pub mod pki;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Address of the machine that a test is, on its only link.
pub const ADDRESS: &str = "192.0.2.1";

const ISOLATED: &str = "K8SM_TEST_ISOLATED";
const BIN: &str = "K8SM_UPSTREAM_BIN";

/// Runs the test of that name again in namespaces of its own (mounts, network, processes), so that
/// links, rules, mounts and processes end with it. Whether the caller is that second run; in the
/// first one the second has passed already (or the test was skipped) when this returns.
pub fn isolated(test: &str) -> bool {
    if std::env::var_os(ISOLATED).is_some() {
        return true;
    }
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: needs root");
        return false;
    }
    let exe = std::env::current_exe().unwrap();
    // The first process of the namespace keeps other mounts than the test, as on a machine.
    let inside = "ip link set lo up && ip link add up0 type veth peer name up1 && \
                  ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up && ip link set up1 up && \
                  ip route add default dev up0; \
                  unshare --mount --propagation private \"$@\"; exit $?";
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", inside, "sh"])
        .arg(exe)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ISOLATED, "1")
        .status()
        .unwrap();
    assert!(status.success(), "the isolated run failed: {status}");
    false
}

/// Where upstream's programs are; `None` (and a word about it) when that is not known.
pub fn upstream(programs: &[&str]) -> Option<PathBuf> {
    let Some(dir) = std::env::var_os(BIN).map(PathBuf::from) else {
        println!("skipped: {BIN} names no directory with upstream's programs");
        return None;
    };
    for program in programs {
        if !dir.join(program).exists() {
            println!("skipped: no {program} in {}", dir.display());
            return None;
        }
    }
    Some(dir)
}

/// A payload as the executor unpacks it, made of links.
pub fn payload(upstream: &Path, dir: &Path) {
    let bin = [
        "containerd",
        "containerd-shim-runc-v2",
        "runc",
        "ctr",
        "kubelet",
        "kube-proxy",
    ];
    let cni = ["ptp", "host-local", "portmap"];
    for (folder, programs) in [("bin", &bin[..]), ("cni", &cni[..])] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
        for program in programs {
            symlink(upstream.join(program), dir.join(folder).join(program)).unwrap();
        }
    }
    std::fs::create_dir_all(dir.join("images")).unwrap();
    image::busybox(
        &dir.join("images/pause.tar"),
        "registry.k8s.io/pause:3.10.2",
        &["/bin/busybox", "sleep", "2147483647"],
    );
    image::busybox(
        &dir.join("images/busybox.tar"),
        "example.org/busybox:1",
        &["/bin/busybox", "sh"],
    );
    let description = r#"{"version":1,"components":{},"images":["images/pause.tar","images/busybox.tar"],"pause":"registry.k8s.io/pause:3.10.2"}"#;
    std::fs::write(dir.join("payload.json"), description).unwrap();
}

/// Asks again and again until there is an answer.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub use seam::testing::free_port;
