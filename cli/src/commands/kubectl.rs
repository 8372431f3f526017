//! `k8sm kubectl`: upstream's kubectl with the cluster's kubeconfig.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::error::Error;
use crate::instance::Paths;

/// Becomes kubectl.
pub fn run(paths: &Paths, args: &[OsString]) -> Result<ExitCode, Error> {
    // An installed cluster's directory has no settings, and its kubeconfig under the same name.
    let program = match paths.state().join(crate::install::record::FILE).is_file() {
        true => {
            crate::install::etcd::program(None, "kubectl").map_err(crate::install::Error::from)?
        }
        false => super::settings(paths)?.upstream.join("kubectl"),
    };
    let error = Command::new(&program)
        .args(args)
        .env("KUBECONFIG", paths.kubeconfig())
        .exec();
    Err(Error::io(format!("run {}", program.display()))(error))
}
