//! Registries: the HTTP API that Docker's, Harbor's, Nexus' and the clouds' registries share.
//!
//! [`Registry`] is one registry with who one is there; [`push()`], [`resolve()`] and [`fetch()`] move whole images.
//! Calls that fail for a moment (no connection, 429, 5xx) are repeated with growing, random pauses;
//! blobs that are there are not sent again; everything that is received is checked against its digest.

mod auth;
mod client;
mod pull;
mod push;
mod retry;

pub use client::{Options, Registry};
pub use pull::{Resolved, fetch, resolve};
pub use push::{Format, Pushed, push};

use std::io;
use std::path::PathBuf;

use crate::archive;
use crate::digest::Digest;

/// Why something did not work with a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense.
    #[error("registry {registry}: {why}")]
    SetUp {
        /// Host and port.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// No connection, or one that broke.
    #[error("{attempt}: {}", chain(source))]
    Transport {
        /// What was attempted, with the URL's host.
        attempt: String,
        /// What happened.
        source: reqwest::Error,
    },
    /// It took too long.
    #[error("{attempt}: no answer within {seconds} s")]
    Deadline {
        /// What was attempted.
        attempt: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The registry does not let us.
    #[error(
        "{attempt}: {why}; give a user and a password that may do this (docker's config.json, or --user with --password-file)"
    )]
    Unauthorized {
        /// What was attempted.
        attempt: String,
        /// What the registry said.
        why: String,
    },
    /// There is no such thing.
    #[error("{attempt}: the registry has no such image or blob")]
    NotFound {
        /// What was attempted.
        attempt: String,
    },
    /// Another answer than expected.
    #[error("{attempt}: the registry answered {status}{detail}")]
    Status {
        /// What was attempted.
        attempt: String,
        /// The status.
        status: u16,
        /// What it said, beginning with `: `, or nothing.
        detail: String,
        /// How long it wants to be left alone, seconds.
        retry_after: Option<u64>,
    },
    /// What came is not what was asked for.
    #[error("{attempt}: {why}")]
    Content {
        /// What was attempted.
        attempt: String,
        /// What is wrong.
        why: String,
    },
    /// A blob's content has another digest.
    #[error("{attempt}: received {size} bytes with the digest {found}")]
    Digest {
        /// What was attempted.
        attempt: String,
        /// Bytes that came.
        size: u64,
        /// Their digest.
        found: Digest,
    },
    /// A file of this machine.
    #[error("{attempt} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive that is pushed.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

impl Error {
    /// Whether the same may work a moment later.
    pub fn retryable(&self) -> bool {
        match self {
            // A certificate that is not trusted does not become so.
            Self::Transport { source, .. } => !chain(source).contains("certificate"),
            Self::Deadline { .. } | Self::Digest { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// An error with what is behind it; the URL is said by the attempt.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        next = cause.source();
    }
    match text.is_empty() {
        true => error.to_string(),
        false => text,
    }
}

#[cfg(test)]
mod tests;
