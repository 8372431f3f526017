//! `k8sm artifacts`.

use std::path::{Path, PathBuf};

use super::{print, runtime};
use crate::args::{ArtifactsBuild, ArtifactsCommand};
use crate::artifacts::build::Sources;
use crate::artifacts::{self, build};
use crate::error::Error;
use crate::progress::Progress;
use crate::upstream::{Cache, Set};

/// Runs the command.
pub fn run(command: &ArtifactsCommand) -> Result<(), Error> {
    match command {
        ArtifactsCommand::Build(args) => {
            let sources = sources(args)?;
            let progress = Progress::new(false);
            let mut step = progress.step("artifacts");
            let list = build(&args.dir, args.base_url.as_deref(), &sources, |file| {
                step.detail(file);
            })?;
            step.done(&format!("{} files", list.files.len()));
            print(&format!("{}\n", args.dir.display()))
        }
        ArtifactsCommand::Serve(args) => runtime()?.block_on(async {
            let server = artifacts::serve(&args.dir, args.listen).await?;
            eprintln!(
                "serving {} at http://{}",
                args.dir.display(),
                server.address()
            );
            server.wait().await;
            Ok(())
        }),
    }
}

fn sources(args: &ArtifactsBuild) -> Result<Sources, Error> {
    Ok(Sources {
        programs: args.programs_dir.clone(),
        upstream: upstream_dir(args.upstream_dir.as_deref())?,
        images: args.images.clone(),
    })
}

/// The folder of the upstream programs; they are built where they are missing.
pub fn upstream_dir(given: Option<&Path>) -> Result<PathBuf, Error> {
    match given {
        Some(dir) => Ok(dir.to_owned()),
        None => {
            let cache = Cache::new(None);
            let selection = crate::upstream::build::select(Set::Cluster, &[])?;
            Ok(crate::upstream::build(&cache, &selection)?.bin)
        }
    }
}
