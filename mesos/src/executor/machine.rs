//! The subscription of an executor, as a pure state machine.
