//! The Mesos v1 API as prost types, generated from `proto/` at build time.
//!
//! `pb::` is the common part (`mesos.v1`), the submodules are the five APIs. Every type also
//! implements [`prost_reflect::ReflectMessage`], from which [`crate::codec`] derives JSON.

#![allow(
    missing_docs,
    clippy::all,
    rustdoc::all,
    reason = "generated; the interface is Mesos' own and documented there"
)]

use std::sync::LazyLock;

/// Descriptors of every message of this crate.
pub static POOL: LazyLock<prost_reflect::DescriptorPool> = LazyLock::new(|| {
    prost_reflect::DescriptorPool::decode(
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_ref(),
    )
    .expect("the build script wrote these descriptors")
});

/// The same under JSON's rules, see the build script.
pub(crate) static JSON_POOL: LazyLock<prost_reflect::DescriptorPool> = LazyLock::new(|| {
    prost_reflect::DescriptorPool::decode(
        include_bytes!(concat!(env!("OUT_DIR"), "/json.bin")).as_ref(),
    )
    .expect("the build script wrote these descriptors")
});

mod generated {
    include!(concat!(env!("OUT_DIR"), "/mesos_pb.rs"));
}

pub use generated::mesos::v1::*;
