//! Gets the archive's bytes onto disk, checked.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::{PayloadError, Source};

/// How often the whole list of places is tried.
const ROUNDS: u32 = 4;
/// Pause after the first round; doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that go to disk at once: each write is a trip to another thread.
const WRITE_SIZE: usize = 1 << 20;
/// Longest silence while bytes come.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

enum Failure {
    /// The next place, or the same one later, may do better.
    Elsewhere(String),
    /// Nothing will help: our own disk.
    Fatal(PayloadError),
}

/// Fetches into `archive` from the first place that has it whole and right.
pub async fn fetch(source: &Source, archive: &Path) -> Result<(), PayloadError> {
    let mut failures = Vec::new();
    let mut pause = PAUSE;
    for round in 0..ROUNDS {
        failures.clear();
        for url in &source.urls {
            match one(url, source, archive).await {
                Ok(()) => return Ok(()),
                Err(Failure::Elsewhere(why)) => {
                    tracing::warn!("payload from {url}: {why}");
                    failures.push(format!("{url}: {why}"));
                }
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
        if round + 1 < ROUNDS {
            tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
            pause *= 2;
        }
    }
    if failures.is_empty() {
        failures.push("the node task names no place to fetch it from".to_owned());
    }
    Err(PayloadError::Fetch {
        sha256: source.sha256.clone(),
        failures,
    })
}

struct Sink<'a> {
    file: BufWriter<tokio::fs::File>,
    hash: Sha256,
    taken: u64,
    source: &'a Source,
    archive: &'a Path,
}

impl Sink<'_> {
    async fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.taken += bytes.len() as u64;
        if self.taken > self.source.size {
            return Err(Failure::Elsewhere(format!(
                "more than the declared {} bytes",
                self.source.size
            )));
        }
        self.hash.update(bytes);
        self.file
            .write_all(bytes)
            .await
            .map_err(|e| Failure::Fatal(PayloadError::writing("writing", self.archive)(e)))
    }

    async fn finish(mut self) -> Result<(), Failure> {
        if self.taken < self.source.size {
            return Err(Failure::Elsewhere(format!(
                "{} bytes instead of {}",
                self.taken, self.source.size
            )));
        }
        let digest: String = self
            .hash
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if digest != self.source.sha256 {
            return Err(Failure::Elsewhere(format!(
                "wrong digest: {digest} instead of {}",
                self.source.sha256
            )));
        }
        let synced = async {
            self.file.flush().await?;
            self.file.get_ref().sync_all().await
        };
        synced
            .await
            .map_err(|e| Failure::Fatal(PayloadError::writing("writing", self.archive)(e)))
    }
}

async fn one(url: &str, source: &Source, archive: &Path) -> Result<(), Failure> {
    let file = tokio::fs::File::create(archive)
        .await
        .map_err(|e| Failure::Fatal(PayloadError::writing("making", archive)(e)))?;
    let mut sink = Sink {
        file: BufWriter::with_capacity(WRITE_SIZE, file),
        hash: Sha256::new(),
        taken: 0,
        source,
        archive,
    };
    if let Some(path) = url
        .strip_prefix("file://")
        .or_else(|| url.starts_with('/').then_some(url))
    {
        let elsewhere = |e: std::io::Error| Failure::Elsewhere(e.to_string());
        let mut file = tokio::fs::File::open(path).await.map_err(elsewhere)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).await.map_err(elsewhere)? {
                0 => break,
                n => sink.take(buffer.get(..n).unwrap_or_default()).await?,
            }
        }
    } else if url.starts_with("http://") || url.starts_with("https://") {
        http(url, source, &mut sink).await?;
    } else {
        return Err(Failure::Elsewhere(
            "only file, http and https are understood".to_owned(),
        ));
    }
    sink.finish().await
}

async fn http(url: &str, source: &Source, sink: &mut Sink<'_>) -> Result<(), Failure> {
    // With its causes, but without the URL, which is named already.
    let elsewhere = |error: reqwest::Error| Failure::Elsewhere(chain(&error.without_url()));
    let bad = |reason: String| {
        Failure::Fatal(PayloadError::BadCa {
            sha256: source.sha256.clone(),
            reason,
        })
    };
    let mut client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT);
    if !source.ca.is_empty() {
        let certificates = reqwest::Certificate::from_pem_bundle(source.ca.as_bytes())
            .map_err(|e| bad(e.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("there is none in them".to_owned()));
        }
        client = client.tls_certs_only(certificates);
    }
    // What is between the marks of a certificate is looked at here.
    let client = client.build().map_err(|error| {
        if source.ca.is_empty() {
            elsewhere(error)
        } else {
            bad(chain(&error.without_url()))
        }
    })?;
    let answer = client.get(url).send().await.map_err(elsewhere)?;
    if !answer.status().is_success() {
        return Err(Failure::Elsewhere(format!(
            "HTTP status {}",
            answer.status()
        )));
    }
    let mut bytes = answer.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        sink.take(&chunk.map_err(elsewhere)?).await?;
    }
    Ok(())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
