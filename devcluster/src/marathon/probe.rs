//! Asking tasks whether they are well.

use std::time::Duration;

use super::core::{Probe, ProbeResult};

/// How much of an answer is kept.
const MAX_BODY: usize = 64 << 10;

/// A client that asks tasks: it follows no redirects and, as Marathon, does not verify
/// certificates, which tasks sign themselves.
pub fn client() -> reqwest::Result<reqwest::Client> {
    crate::client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(true)
        .user_agent(concat!("Marathon/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(0)
        .build()
}

/// Asks and says what was found.
pub async fn run(client: &reqwest::Client, probe: Probe) -> ProbeResult {
    let result = match &probe {
        Probe::Http { url, timeout } => within(*timeout, http(client, url)).await,
        Probe::Tcp {
            host,
            port,
            timeout,
        } => within(*timeout, tcp(host, *port)).await,
    };
    result.unwrap_or_else(|reason| ProbeResult::Failed { reason })
}

async fn within(
    timeout: Duration,
    work: impl Future<Output = Result<ProbeResult, String>>,
) -> Result<ProbeResult, String> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

async fn http(client: &reqwest::Client, url: &str) -> Result<ProbeResult, String> {
    let chain = |error: reqwest::Error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = cause.to_string();
            source = cause.source();
        }
        text
    };
    let mut answer = client.get(url).send().await.map_err(chain)?;
    let content_type = answer
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while body.len() < MAX_BODY {
        match answer.chunk().await.map_err(chain)? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    body.truncate(MAX_BODY);
    Ok(ProbeResult::Http {
        status,
        content_type,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

async fn tcp(host: &str, port: u16) -> Result<ProbeResult, String> {
    match tokio::net::TcpStream::connect((host, port)).await {
        Ok(_) => Ok(ProbeResult::Connected),
        Err(error) => Err(error.to_string()),
    }
}
