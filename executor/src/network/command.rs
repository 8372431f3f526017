//! Runs the machine's network tools (`ip`, `bridge`, `nft`, `iptables`): a script on standard
//! input, a deadline, and errors that say what to install.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A tool answers in milliseconds; one that waits for a lock gets this long.
const DEADLINE: Duration = Duration::from_secs(15);
/// How much of what a tool complains about goes into an error, in bytes.
const MAX_COMPLAINT: usize = 400;

/// Why a tool did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there.
    #[error("`{program}` is not installed on this machine: install {package}")]
    Missing {
        /// Its name.
        program: String,
        /// The usual package.
        package: &'static str,
    },
    /// It could not be started.
    #[error("starting `{program}`: {source}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("`{command}` did not end within {} s", DEADLINE.as_secs())]
    Deadline {
        /// With its arguments.
        command: String,
    },
    /// It refused.
    #[error("`{command}` failed: {complaint}")]
    Failed {
        /// With its arguments.
        command: String,
        /// What it wrote on standard error.
        complaint: String,
    },
    /// It answered what nobody understands.
    #[error("`{command}` answered what is no JSON of the expected shape: {source}")]
    Answer {
        /// With its arguments.
        command: String,
        /// Where.
        source: serde_json::Error,
    },
}

impl CommandError {
    /// Whether trying again later may help.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Missing { .. })
    }
}

/// Runs a tool and gives what it wrote on standard output.
pub async fn run(
    program: &str,
    args: &[&str],
    input: Option<&str>,
) -> Result<Vec<u8>, CommandError> {
    let shown = || format!("{program} {}", args.join(" "));
    let start = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound {
            CommandError::Missing {
                program: program.to_owned(),
                package: package(program),
            }
        } else {
            CommandError::Start {
                program: program.to_owned(),
                source,
            }
        }
    };
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", TOOL_PATH)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(text)) = (stdin, input) {
            // A tool that stops reading has failed, and says why on standard error.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(DEADLINE, both)
        .await
        .map_err(|_| CommandError::Deadline { command: shown() })?
        .map_err(start)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if complaint.is_empty() {
        complaint = output.status.to_string();
    }
    if complaint.len() > MAX_COMPLAINT {
        let end = (0..=MAX_COMPLAINT)
            .rev()
            .find(|i| complaint.is_char_boundary(*i))
            .unwrap_or(0);
        complaint.truncate(end);
        complaint.push_str("...");
    }
    Err(CommandError::Failed {
        command: shown(),
        complaint,
    })
}

/// Runs a tool and reads its answer as JSON. Nothing at all counts as an empty list.
pub async fn json<T: serde::de::DeserializeOwned>(
    program: &str,
    args: &[&str],
) -> Result<T, CommandError> {
    let out = run(program, args, None).await?;
    let text: &[u8] = if out.iter().all(u8::is_ascii_whitespace) {
        b"[]"
    } else {
        &out
    };
    serde_json::from_slice(text).map_err(|source| CommandError::Answer {
        command: format!("{program} {}", args.join(" ")),
        source,
    })
}

/// Where the tools are looked up. Mesos agents often run with a PATH without `sbin`.
pub const TOOL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a tool is there.
pub fn exists(program: &str) -> bool {
    TOOL_PATH
        .split(':')
        .any(|dir| std::path::Path::new(dir).join(program).is_file())
}

fn package(program: &str) -> &'static str {
    match program {
        "ip" | "bridge" => "iproute2",
        "nft" => "nftables (1.0.1 or later)",
        p if p.starts_with("iptables") => "iptables",
        _ => "the package that brings it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tool_that_is_missing_is_named_with_its_package() {
        let error = run("nft-of-nowhere", &[], None).await.unwrap_err();
        assert!(!error.retryable());
        assert!(
            error
                .to_string()
                .contains("`nft-of-nowhere` is not installed")
        );
        assert_eq!(package("ip"), "iproute2");
    }

    #[tokio::test]
    async fn a_tool_that_refuses_is_quoted() {
        let error = run("sh", &["-c", "echo no way >&2; exit 3"], None).await;
        let error = error.unwrap_err();
        assert!(error.retryable());
        assert!(error.to_string().ends_with("failed: no way"), "{error}");
    }

    #[tokio::test]
    async fn a_script_goes_in_and_an_answer_comes_out() {
        let out = run("cat", &[], Some("a\nb\n")).await.unwrap();
        assert_eq!(out, b"a\nb\n");
        let none: Vec<u32> = json("true", &[]).await.unwrap();
        assert!(none.is_empty());
    }
}
