//! The pause program: the first process of every pod. It holds the pod's namespaces open, reaps
//! orphans where containers share the pod's process namespace, and ends at SIGTERM or SIGINT.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "-v" || a == "--version") {
        println!("pause {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // As process 1 a signal with its default action would be dropped; a blocked one waits.
    if let Err(error) = signals.thread_block() {
        eprintln!("pause: block signals: {error}");
        return ExitCode::FAILURE;
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGTERM | Signal::SIGINT) => return ExitCode::SUCCESS,
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("pause: wait for a signal: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// Takes every child that has ended: one SIGCHLD may stand for many.
fn reap() {
    while !matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive) | Err(_)
    ) {}
}
