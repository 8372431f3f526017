//! The project's images with programs of others: skopeo and containerd read, import and run them,
//! Debian's docker-registry takes them and gives them back, and a Mesos agent runs a part of the
//! control plane from them. Run by `make e2e`, as root.

mod apps;
mod artifacts;
mod readers;
mod registries;
mod support;
