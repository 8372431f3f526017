//! `k8sm kubectl`: upstream's kubectl with the cluster's kubeconfig.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::error::Error;
use crate::instance::Paths;

/// Becomes kubectl.
pub fn run(paths: &Paths, args: &[OsString]) -> Result<ExitCode, Error> {
    let settings = super::settings(paths)?;
    let program = settings.upstream.join("kubectl");
    let error = Command::new(&program)
        .args(args)
        .env("KUBECONFIG", paths.kubeconfig())
        .exec();
    Err(Error::io(format!("run {}", program.display()))(error))
}
