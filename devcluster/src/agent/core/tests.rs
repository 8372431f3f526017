//! The core's rules, without any I/O.
