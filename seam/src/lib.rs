//! What the framework and the executor say to each other, and the names that both, the
//! installer and the user see.
//!
//! The framework (`k8sm-framework`) and the executor (`k8sm-executor`) are different programs,
//! on different machines, and after an upgrade of different versions. All they share is in this
//! crate: the data of Mesos tasks ([`node::NodeConfig`], [`pod::PodTask`]), the messages between
//! them ([`message`]), task ids ([`id`]), and annotations, labels and names ([`names`]).
//!
//! Everything here is JSON. Unknown members are ignored, members that were added later have
//! defaults, so an old executor understands a new framework and the other way round.

pub mod id;
pub mod message;
pub mod names;
pub mod node;
pub mod pod;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
