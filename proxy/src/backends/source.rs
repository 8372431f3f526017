//! Where the list of API servers comes from: arguments, a file that is read again when it
//! changes, or the addresses of a DNS name.
//!
//! A list that cannot be read, or is empty, changes nothing: servers that were known keep being
//! probed, and probes know better than a name server that is down.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::Backends;
use super::pool::{Backend, InvalidBackend, MAX_BACKENDS};
use crate::config::Source;

/// How often a file is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a name is asked for.
const DNS_INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take.
const DNS_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a list; a name has at most 253.
const FILE_LIMIT: u64 = 64 * 1024;

/// Why there is no list now.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file.
    #[error("read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A line of the file.
    #[error("{path}, line {line}: {source}")]
    Line {
        /// Which.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        source: InvalidBackend,
    },
    /// The name.
    #[error("resolve {name}: {source}")]
    Dns {
        /// Which.
        name: Backend,
        /// Why not.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{from} lists no API server")]
    Empty {
        /// What.
        from: String,
    },
}

/// Keeps the list current until `stop`.
pub async fn run(source: Source, backends: Backends, stop: CancellationToken) {
    let interval = match &source {
        Source::Fixed(list) => {
            backends.update(list);
            return;
        }
        Source::File(_) => FILE_INTERVAL,
        Source::Dns(_) => DNS_INTERVAL,
    };
    let mut said = String::new();
    loop {
        match read(&source).await {
            Ok(list) => {
                said.clear();
                backends.update(&list);
            }
            Err(error) => {
                // Once per kind of trouble, not once per second.
                let text = error.to_string();
                if text != said {
                    tracing::warn!(%error, "the list of API servers stays as it was");
                    said = text;
                }
            }
        }
        let pause = interval.mul_f64(rand::rng().random_range(0.9..1.1));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn read(source: &Source) -> Result<Vec<Backend>, SourceError> {
    let (from, list) = match source {
        Source::Fixed(list) => ("the command line".to_owned(), list.clone()),
        Source::File(path) => {
            let text = read_file(path).map_err(|source| SourceError::File {
                path: path.display().to_string(),
                source,
            })?;
            let shown = path.display().to_string();
            (shown.clone(), parse(&shown, &text)?)
        }
        Source::Dns(name) => (name.to_string(), resolve(name).await?),
    };
    if list.is_empty() {
        return Err(SourceError::Empty { from });
    }
    Ok(list)
}

fn read_file(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_LIMIT)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// One server per line; empty lines and lines that begin with `#` are left out.
fn parse(path: &str, text: &str) -> Result<Vec<Backend>, SourceError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'))
        .map(|(at, line)| {
            Backend::parse(line).map_err(|source| SourceError::Line {
                path: path.to_owned(),
                line: at + 1,
                source,
            })
        })
        .collect()
}

async fn resolve(name: &Backend) -> Result<Vec<Backend>, SourceError> {
    let failed = |source| SourceError::Dns {
        name: name.clone(),
        source,
    };
    let lookup = tokio::net::lookup_host(name.as_str());
    let addresses = tokio::time::timeout(DNS_DEADLINE, lookup)
        .await
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    // Name servers turn their answers; a list in order changes only when something changed.
    let sorted: BTreeSet<std::net::SocketAddr> = addresses.collect();
    Ok(sorted
        .into_iter()
        .map(Backend::from)
        .take(MAX_BACKENDS)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_file_has_one_server_per_line_and_a_bad_line_is_named() {
        let list = parse("f", "# ours\n192.0.2.1:6443\n\n api:6443 \n").unwrap();
        assert_eq!(list.len(), 2);
        let error = parse("f", "192.0.2.1:6443\nnonsense\n").unwrap_err();
        assert!(error.to_string().starts_with("f, line 2:"), "{error}");
    }

    #[tokio::test]
    async fn a_name_becomes_its_addresses_in_order() {
        let list = resolve(&Backend::parse("127.0.0.1:6443").unwrap())
            .await
            .unwrap();
        assert_eq!(list, [Backend::parse("127.0.0.1:6443").unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_and_an_empty_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        std::fs::write(&path, "a:1\n").unwrap();
        let backends = Backends::new(Metrics::default());
        let mut list = backends.watch();
        let stop = CancellationToken::new();
        tokio::spawn(run(
            Source::File(path.clone()),
            backends.clone(),
            stop.clone(),
        ));
        let wanted = |text: &str| vec![Backend::parse(text).unwrap()];
        list.wait_for(|l| *l == wanted("a:1")).await.unwrap();
        std::fs::write(&path, "").unwrap();
        tokio::time::sleep(FILE_INTERVAL * 5).await;
        assert_eq!(*list.borrow(), wanted("a:1"));
        std::fs::write(&path, "b:1\n").unwrap();
        list.wait_for(|l| *l == wanted("b:1")).await.unwrap();
        stop.cancel();
    }
}
