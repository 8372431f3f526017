//! agent_loop (being written).
