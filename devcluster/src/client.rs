//! HTTP clients of the agent's side.

/// Starts a client that goes straight to its peer: a proxy of the machine's environment is not
/// meant for neighbours.
pub fn builder() -> reqwest::ClientBuilder {
    // Whoever made a TLS provider the process' own first may have done so already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}
