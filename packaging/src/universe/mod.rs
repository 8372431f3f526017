//! The DC/OS package: made from the sources in `universe/`, checked, and put into repositories of
//! the formats that Cosmos reads.
//!
//! | module | what |
//! |---|---|
//! | [`command`] | how options reach the package's one app |
//! | [`source`] | sources, artifacts -> the four files of a package |
//! | [`repository`] | files of packages -> a repository; what Cosmos asks for |
//! | [`lint`] | what the Universe, Cosmos or Marathon would refuse or silently get wrong |

pub mod command;
pub mod lint;
pub mod repository;
pub mod source;

pub use source::{Files, Release, Sources};

#[cfg(test)]
mod tests;
