//! sweep (being written).
