//! Programs that tests start, and what they leave.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take. The machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The program under test.
pub fn k8sm() -> PathBuf {
    std::env::var_os("K8SM_BIN").map_or_else(|| env!("CARGO_BIN_EXE_k8sm").into(), PathBuf::from)
}

/// The folder of the upstream programs.
pub fn upstream() -> PathBuf {
    match std::env::var_os("K8SM_UPSTREAM_BIN") {
        Some(dir) => dir.into(),
        None => run(&k8sm(), ["upstream", "path"]).trim().into(),
    }
}

/// A folder whose sockets' paths are short enough, removed in the end.
pub fn folder() -> tempfile::TempDir {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests start containers: run them as root (make e2e does)"
    );
    tempfile::Builder::new()
        .prefix("k8sm-img-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/var/tmp")
        .unwrap()
}

/// Runs a program that must succeed, and gives its output.
pub fn run<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> String {
    let args: Vec<S> = args.into_iter().collect();
    let output = outcome(program, &args);
    let shown: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    assert!(
        output.status.success(),
        "{} {}: {}\n{}{}",
        program.display(),
        shown.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program.
pub fn outcome<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> Output {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()))
}

/// Builds images of these names into a folder.
pub fn build(dir: &Path, names: &[&str], more: &[&str]) {
    let upstream = format!("--upstream-dir={}", upstream().display());
    let dir = dir.display().to_string();
    let args = ["images", "build", &dir].into_iter();
    let args = args
        .chain(names.iter().copied())
        .chain(more.iter().copied());
    run(&k8sm(), args.chain([upstream.as_str()]));
}

pub use seam::testing::free_port;

/// A process that ends with the test.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program whose output goes to a log.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
        Self { child, log }
    }

    /// Waits until something holds, while the process lives.
    pub fn until<T>(&mut self, what: &str, ready: impl FnMut() -> Option<T>) -> T {
        let child = &mut self.child;
        let alive = || child.try_wait().unwrap().is_none();
        wait(alive, ready).unwrap_or_else(|| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("{what}: not in time, or the process ended\n{log}")
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // In order first: containerd and agents clean up.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let ended = wait(|| true, || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn wait<T>(mut alive: impl FnMut() -> bool, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = ready() {
            return Some(found);
        }
        if !alive() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// What a URL answers, with curl: status and body.
pub fn curl(args: &[&str]) -> (u16, String) {
    let mut all = vec!["-sS", "-m", "10", "-w", "\n%{http_code}"];
    all.extend(args);
    let output = outcome(Path::new("curl"), &all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    (status.parse().unwrap_or(0), body.to_owned())
}
