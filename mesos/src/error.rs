//! The error of every operation of this crate that talks to a master or an agent.

use std::time::Duration;

use http::StatusCode;

use crate::codec::DecodeError;
use crate::http::ConfigError;
use crate::master::DetectError;
use crate::recordio::RecordIoError;

/// What was attempted and why it did not work.
///
/// [`Error::retryable`] says whether the same call may be sent again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client cannot work with the configuration that it was given.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The leading master could not be found.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// No answer: connection refused or broken, name not found, TLS refused.
    #[error("{attempt} at {url}: {reason}")]
    Transport {
        /// What was attempted.
        attempt: &'static str,
        /// Where, without credentials.
        url: String,
        /// The chain of causes.
        reason: String,
    },
    /// No answer within the time that was allowed. The call may have been carried out.
    #[error("{attempt} at {url}: no answer within {after:?}")]
    Timeout {
        /// What was attempted.
        attempt: &'static str,
        /// Where, without credentials.
        url: String,
        /// How long it was waited.
        after: Duration,
    },
    /// The peer answered with something other than success.
    #[error("{attempt} at {url}: {status}: {text}")]
    Status {
        /// What was attempted.
        attempt: &'static str,
        /// Where, without credentials.
        url: String,
        /// The status.
        status: StatusCode,
        /// The start of what the peer wrote about it.
        text: String,
    },
    /// The peer is not the leader and named another one.
    #[error("{attempt} at {url}: redirected to {location}")]
    Redirect {
        /// What was attempted.
        attempt: &'static str,
        /// Where, without credentials.
        url: String,
        /// Where to go instead.
        location: String,
    },
    /// The peer answered with success, but not with what Mesos answers.
    #[error("{attempt} at {url}: {reason}")]
    Protocol {
        /// What was attempted.
        attempt: &'static str,
        /// Where, without credentials.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An event stream is not RecordIO.
    #[error("event stream: {0}")]
    RecordIo(#[from] RecordIoError),
    /// A message could not be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The peer ended the event stream.
    #[error("{url} ended the event stream")]
    StreamEnded {
        /// Who.
        url: String,
    },
    /// Nothing arrived on the event stream although heartbeats were promised.
    #[error("nothing heard from {url} for {silence:?}, though it promised heartbeats")]
    HeartbeatsMissed {
        /// From whom.
        url: String,
        /// For how long.
        silence: Duration,
    },
    /// Another master leads now, so the event stream of the former one was given up.
    #[error("another master leads instead of {url}")]
    LeaderChanged {
        /// The former one.
        url: String,
    },
    /// The master sent ERROR: this subscription is over, and the same one will not be accepted.
    #[error("the master refused the subscription: {message}")]
    Refused {
        /// What it means.
        refusal: Refusal,
        /// The words of the master.
        message: String,
    },
    /// There is no subscription at the moment; one is being established.
    #[error("not subscribed at the moment")]
    NotSubscribed,
    /// The call is incomplete and was not sent.
    #[error("call not sent: {reason}")]
    InvalidCall {
        /// What is missing.
        reason: String,
    },
    /// The client was shut down.
    #[error("the client was shut down")]
    Stopped,
}

/// What an ERROR event means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Another scheduler subscribed with the same framework id and goes on in place of this one.
    FailedOver,
    /// The framework was torn down, or was away longer than its failover timeout. Its id is
    /// used up (until the master restarts): subscribe as a new framework.
    Removed,
    /// The role, the principal or the user is not allowed.
    Unauthorized,
    /// FrameworkInfo, or the change of it, is not valid.
    Invalid,
}

impl Refusal {
    /// Classifies the text of an ERROR event. The texts are those of Mesos 1.12; what is not
    /// known is [`Refusal::Invalid`].
    pub fn classify(message: &str) -> Self {
        let lower = message.to_ascii_lowercase();
        if lower.contains("failed over") {
            Self::FailedOver
        } else if lower.contains("has been removed") || lower.contains("framework is completed") {
            Self::Removed
        } else if lower.contains("not authorized") || lower.contains("unauthorized") {
            Self::Unauthorized
        } else {
            Self::Invalid
        }
    }
}

impl Error {
    /// Whether the same call, sent again after a while, may succeed.
    ///
    /// After [`Error::Timeout`], and after a [`Error::Transport`] that broke an established
    /// connection, the first attempt may nevertheless have been carried out. Every Mesos call
    /// can be repeated safely, save that an ACCEPT which did go through uses up its offers, so
    /// that the second one is answered with TASK_DROPPED for tasks that run.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Transport { .. }
            | Self::Timeout { .. }
            | Self::Redirect { .. }
            | Self::StreamEnded { .. }
            | Self::HeartbeatsMissed { .. }
            | Self::LeaderChanged { .. }
            | Self::NotSubscribed
            | Self::RecordIo(_) => true,
            Self::Detect(error) => error.retryable(),
            Self::Status { status, .. } => is_temporary(*status, self),
            Self::Config(_)
            | Self::Protocol { .. }
            | Self::Decode(_)
            | Self::Refused { .. }
            | Self::InvalidCall { .. }
            | Self::Stopped => false,
        }
    }

    /// Whether the peer said that this scheduler or executor is not subscribed (any more),
    /// though we thought it was.
    pub fn says_not_subscribed(&self) -> bool {
        matches!(self, Self::Status { status, text, .. }
            if *status == StatusCode::FORBIDDEN && text.contains("is not subscribed"))
    }
}

fn is_temporary(status: StatusCode, error: &Error) -> bool {
    status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
        || error.says_not_subscribed()
}

#[cfg(test)]
mod tests;
