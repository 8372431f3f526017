//! Container images as files and on registries.
//!
//! | part | module |
//! |---|---|
//! | names of images | [`reference`] |
//! | digests, and readers that check them | [`digest`] |
//! | what manifests and configurations say | [`model`] |
//! | OCI layouts and Docker archives, tar files or directories | [`archive`] |
//! | layers become a root file system | [`unpack`] |
//! | push to and pull from registries | [`registry`] |
//! | who one is on which registry | [`credentials`] |
//!
//! What is written here and by `packaging::image` is read by containerd, skopeo and Mesos. Nothing
//! is trusted that others wrote: sizes are bounded, digests are checked while reading, and no path
//! of a layer leaves the directory that it is unpacked into.

pub mod archive;
pub mod credentials;
pub mod digest;
pub mod model;
pub mod reference;
pub mod registry;
pub mod unpack;

pub use archive::{Archive, Image};
pub use digest::Digest;
pub use reference::Reference;
