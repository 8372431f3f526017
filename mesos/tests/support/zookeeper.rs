//! Debian's ZooKeeper, for tests; also the end-to-end tests' (`cli/tests/e2e`).
//!
//! Needs `java` and the `zookeeper` package (`/usr/share/zookeeper`, or the directory named by
//! `K8SM_ZOOKEEPER_HOME`, in whose `lib` or itself the jars are). Without them the tests fail
//! and say so; `K8SM_SKIP_ZOOKEEPER=1` leaves them out.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A ZooKeeper server of its own. Ends with the test.
pub struct ZooKeeper {
    process: Child,
    port: u16,
    directory: tempfile::TempDir,
    classpath: String,
}

/// `None` if it is to be left out.
fn classpath() -> Option<String> {
    if std::env::var_os("K8SM_SKIP_ZOOKEEPER").is_some_and(|value| value == "1") {
        eprintln!("left out: K8SM_SKIP_ZOOKEEPER=1");
        return None;
    }
    let java = Command::new("java")
        .arg("-version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(
        java.is_ok_and(|status| status.success()),
        "`java` is missing: apt-get install zookeeper, or set K8SM_SKIP_ZOOKEEPER=1"
    );
    let home = std::env::var_os("K8SM_ZOOKEEPER_HOME")
        .map_or_else(|| PathBuf::from("/usr/share/zookeeper"), PathBuf::from);
    let mut found = Vec::new();
    let packaged = Path::new("/usr/share/java/zookeeper.jar");
    if home.join("bin/zkEnv.sh").exists() && packaged.exists() {
        // Debian's jar names the jars that it needs.
        found.push(format!("/etc/zookeeper/conf:{}", packaged.display()));
    } else if home.is_dir() {
        found.push(format!("{}/*:{}/lib/*", home.display(), home.display()));
    }
    assert!(
        !found.is_empty(),
        "no ZooKeeper in {}: apt-get install zookeeper, set K8SM_ZOOKEEPER_HOME, or set \
         K8SM_SKIP_ZOOKEEPER=1",
        home.display()
    );
    Some(found.join(":"))
}

impl ZooKeeper {
    /// Starts one; it answers after a second or two. `None` if it is to be left out.
    pub fn start() -> Option<Self> {
        let classpath = classpath()?;
        let directory = tempfile::tempdir().expect("a directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        Some(Self {
            process: Self::spawn(&classpath, directory.path(), port),
            port,
            directory,
            classpath,
        })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn spawn(classpath: &str, directory: &Path, port: u16) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join("log"))
            .expect("a file");
        Command::new("java")
            .args(["-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", classpath])
            .args([
                "-Dzookeeper.admin.enableServer=false",
                "-Dzookeeper.log.dir=.",
                "org.apache.zookeeper.server.ZooKeeperServerMain",
            ])
            .arg(port.to_string())
            .arg(directory.join("data"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("java runs")
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again, with the data that it had.
    pub fn restart(&mut self) {
        self.process = Self::spawn(&self.classpath, self.directory.path(), self.port);
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.stop();
    }
}
