//! The framework's process, and what the kernel says about it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every Linux that Rust supports.
const TICKS: u64 = 100;

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

/// Ends with its handle.
pub struct Framework {
    child: Child,
    log: PathBuf,
}

impl Framework {
    /// Starts it; the API server's kubeconfig lies in the folder.
    pub fn start(folder: &Path, master: &str, nodes: usize) -> Result<Self> {
        let program = std::env::var_os("K8SM_FRAMEWORK_BIN")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_k8sm-framework").into());
        let log = folder.join("framework.log");
        let child = Command::new(program)
            .arg(format!("--mesos-master={master}"))
            .arg(format!(
                "--kubeconfig={}",
                folder.join("kubeconfig").display()
            ))
            .args([
                // Nobody fetches them: agents are played.
                "--executor-uri=http://127.0.0.1:1/k8sm-executor",
                "--payload=http://127.0.0.1:1/payload.tar",
                "--payload-size=1",
                "--listen=127.0.0.1:0",
                "--cluster-cidr=10.0.0.0/8",
            ])
            .arg(format!("--payload-sha256={}", "0".repeat(64)))
            .arg(format!("--nodes-min={nodes}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("start the framework")?;
        Ok(Self { child, log })
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{status}; it said:\n{}", self.log_end()),
        }
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// What its status page says.
    pub fn health(&self) -> String {
        let page = || -> std::io::Result<String> {
            let log = std::fs::read_to_string(&self.log)?;
            let port = log.split(" port=").nth(1).unwrap_or_default();
            let port = port.split_whitespace().next().unwrap_or_default();
            let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /v1/health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        page().unwrap_or_else(|error| format!("no status page: {error}"))
    }

    /// What it has used.
    pub fn usage(&self) -> Result<Usage> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(proc.join("status"))?;
        let bytes = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib * 1024)
        };
        // Fields 14 and 15, counted after the name in parentheses, which may hold blanks.
        let stat = std::fs::read_to_string(proc.join("stat"))?;
        let (_, after) = stat.rsplit_once(')').context("read stat")?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok());
        let ticks = ticks(11).zip(ticks(12)).context("read CPU time")?;
        Ok(Usage {
            cpu: Duration::from_millis((ticks.0 + ticks.1) * 1000 / TICKS),
            resident: bytes("VmRSS:").context("read VmRSS")?,
            peak: bytes("VmHWM:").context("read VmHWM")?,
        })
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Framework {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
