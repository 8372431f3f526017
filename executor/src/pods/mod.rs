//! This node's pods and its Node, as the API server shows them. Watched with kubelet's identity,
//! which may see nothing else; of each object only what the executor needs is kept.

pub mod node;
pub mod removal;
pub mod view;
pub mod watch;
