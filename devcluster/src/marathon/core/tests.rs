//! Tests of the core: with a simulated Mesos, a hand-set clock, and seeds.

mod apps;
mod deployments;
mod groups;
mod residents;
mod rules;
mod storms;
mod world;
