//! `k8sm upstream`: builds, lists and locates the upstream components.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::build::{Go, Plan, build, select};
use super::table::Set;
use super::{Cache, Result};

/// Arguments of `k8sm upstream`.
#[derive(Debug, Args)]
pub struct UpstreamArgs {
    /// Folder of the cache [default: $XDG_CACHE_HOME/k8sm or ~/.cache/k8sm]
    #[arg(long, global = true, env = "K8SM_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds what is missing from the pinned Go modules; goes on where an interrupt stopped it
    Build(Selection),
    /// Lists the components, their versions, and whether each is built
    List(Selection),
    /// Prints the folder that holds all programs (after a build)
    Path(Selection),
}

/// Which components.
#[derive(Debug, Args)]
struct Selection {
    /// Which set of components
    #[arg(long, value_enum, default_value = "cluster")]
    set: Set,
    /// Only these components
    #[arg(value_name = "COMPONENT")]
    only: Vec<String>,
}

/// Runs the command. Blocks; the caller keeps it off an asynchronous thread.
pub fn run(args: &UpstreamArgs) -> Result<()> {
    let cache = Cache::new(args.cache.clone());
    match &args.verb {
        Verb::Build(selection) => {
            let ready = build(&cache, &select(selection.set, &selection.only)?)?;
            if ready.built.is_empty() {
                eprintln!("all upstream components are built already");
            }
            println!("{}", ready.bin.display());
        }
        Verb::Path(selection) => {
            let ready = build(&cache, &select(selection.set, &selection.only)?)?;
            println!("{}", ready.bin.display());
        }
        Verb::List(selection) => {
            let wanted = select(selection.set, &selection.only)?;
            let plan = Plan::new(&cache, &Go::find(&wanted)?, &wanted);
            print!("{}", table(&plan));
        }
    }
    Ok(())
}

fn table(plan: &Plan) -> String {
    let mut rows = vec![format!(
        "{:<24} {:<9} {:<8} {}\n",
        "COMPONENT", "VERSION", "STATE", "PATH"
    )];
    for (component, _, path) in &plan.ready {
        rows.push(format!(
            "{:<24} {:<9} {:<8} {}\n",
            component.name,
            component.version(),
            "built",
            path.display()
        ));
    }
    for (component, _) in &plan.missing {
        rows.push(format!(
            "{:<24} {:<9} {:<8} (about {} s)\n",
            component.name,
            component.version(),
            "missing",
            component.seconds
        ));
    }
    rows.concat()
}
