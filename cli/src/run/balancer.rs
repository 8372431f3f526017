//! A way to whichever API server answers: clients of the API know one address only, and API
//! servers come and go on a few agents.

use std::net::{Ipv4Addr, SocketAddr};

use proxy::balancer::{Balancer, BalancerError};
use tokio_util::sync::CancellationToken;

/// Listens on a free port of loopback and passes connections on until the runtime ends.
pub async fn start(servers: Vec<String>) -> std::io::Result<SocketAddr> {
    // The list is part of the app: another one is another process.
    let keep = |_: &[String]| {};
    let balancer = Balancer::start(0, &servers, &[], keep, CancellationToken::new())
        .await
        .map_err(|BalancerError::Listen { source, .. }| source)?;
    Ok((Ipv4Addr::LOCALHOST, balancer.port()).into())
}
