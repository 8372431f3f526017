//! The subscription of a scheduler, as a pure state machine.

use std::time::Duration;

/// Times of a subscription.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// First back-off. Default: 250 ms.
    pub backoff: Duration,
    /// Longest back-off. Default: 15 s.
    pub backoff_max: Duration,
    /// How many heartbeat intervals of silence end a subscription. Default: 5.
    pub missed_heartbeats: u32,
    /// How long SUBSCRIBED may take after SUBSCRIBE was accepted. Default: 15 s.
    pub subscribe_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(15),
            missed_heartbeats: 5,
            subscribe_timeout: Duration::from_secs(15),
        }
    }
}
