//! The runtime of a command or an app.

/// One thread: nothing here is bound by the processor, and the kernel takes the thread that starts
/// a child for its parent, whose end the child is told of.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
