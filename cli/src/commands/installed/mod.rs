//! Commands for clusters on a Mesos with Marathon.

mod backup;
mod certs;
mod create;
mod doctor;
mod files;
mod lifecycle;
mod print;
mod session;
mod status;
mod upgrade;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use packaging::install::plan::{AppPlan, Step, What};
use packaging::options::{Layers, Options};
use serde_json::{Value, json};

use crate::args::{Args, Manner, Said, Shape, Which};
use crate::error::Error;
use crate::install::{self, Home, Record, Site};
use crate::instance::{DEFAULT_STATE_DIR, INSTALLED};

pub use backup::{backup, restore};
pub use certs::{certs, kubeconfig};
pub use create::{install, put};
pub use doctor::doctor;
pub use files::{completion, man, options, render};
pub use lifecycle::{start, stop, uninstall};
pub use status::{AppLine, about_nodes, app_table, apps, are_healthy, status};
pub use upgrade::upgrade;

use session::Session;

/// The directory that was given, if one was: the global flag has a default for the one-machine
/// cluster.
pub(super) fn given_dir(state_dir: &Path) -> Option<&Path> {
    (state_dir != Path::new(DEFAULT_STATE_DIR)).then_some(state_dir)
}

/// The installation that a command means: `None` when it means the cluster of this machine.
pub(super) fn selected(args: &Args, which: &Which) -> Result<Option<Home>, Error> {
    let given = given_dir(&args.state_dir);
    if let Some(name) = &which.name {
        return Ok(Some(Home::new(given, name)?));
    }
    match given {
        Some(dir) => {
            let home = Home::new(Some(dir), "")?;
            Ok(home.exists().then_some(home))
        }
        None => Ok(None),
    }
}

/// The installation that a command means, which must exist.
pub(super) fn home(state_dir: &Path, which: &Which) -> Result<(Home, Record), Error> {
    let name = which.name.as_deref().unwrap_or("kubernetes");
    let mut home = Home::new(given_dir(state_dir), name)?;
    if !home.exists() && which.name.is_none() {
        // That of `k8sm up --marathon`.
        let of_this_machine = Home::new(Some(&state_dir.join(INSTALLED)), name)?;
        if of_this_machine.exists() {
            home = of_this_machine;
        }
    }
    let record = home.existing()?;
    Ok((home, record))
}

/// Marathon and Mesos of an installation.
pub(super) async fn site(record: &Record) -> Result<Site, install::Error> {
    Site::connect(
        &record.marathon,
        record.marathon_ca.clone(),
        record.mesos.as_deref(),
    )
    .await
}

/// Options over others.
pub(super) fn layered(base: Option<&Value>, said: &Said) -> Result<Options, install::Error> {
    let mut layers = Layers::new();
    if let Some(base) = base {
        layers.value(base.clone())?;
    }
    for file in &said.files {
        let text = std::fs::read_to_string(file).map_err(|source| install::Error::OptionsFile {
            path: file.clone(),
            source,
        })?;
        layers.document(&text)?;
    }
    for set in &said.sets {
        layers.set(set)?;
    }
    Ok(layers.finish()?)
}

/// Runs until Ctrl-C.
pub(super) fn block_on<T>(
    work: impl Future<Output = Result<T, install::Error>>,
) -> Result<T, Error> {
    super::runtime()?.block_on(async {
        tokio::select! {
            done = work => Ok(done?),
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(Error::io("wait for Ctrl-C"))?;
                Err(install::Error::Interrupted.into())
            }
        }
    })
}

/// Shows a plan.
pub(super) fn show_plan(
    shape: Shape,
    apps: &[AppPlan],
    steps: &[Step],
    why: &[String],
) -> Result<(), Error> {
    let value = json!({
        "apps": apps,
        "steps": steps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "choices": why,
    });
    let text = print::shaped(shape, &value, || {
        let mut text = String::new();
        for why in why {
            text.push_str(&format!("- {why}\n"));
        }
        if !why.is_empty() {
            text.push('\n');
        }
        for app in apps {
            let sign = match app.what {
                What::Create => "+ create",
                What::Update => "~ change",
                What::Keep => "  keep  ",
                What::Remove => "- remove",
            };
            text.push_str(&format!("{sign} {}\n", app.app));
            for change in &app.changes {
                text.push_str(&format!("           {change}\n"));
            }
        }
        text.push_str("\nsteps:\n");
        for (n, step) in steps.iter().enumerate() {
            text.push_str(&format!("{:>3}. {step}\n", n + 1));
        }
        text
    });
    super::print(&text)
}

/// Asks a person, unless that was answered on the command line.
pub(super) fn confirm(manner: &Manner, question: &str) -> Result<(), install::Error> {
    if manner.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(install::Error::Usage(format!(
            "{question} Nobody can be asked here: say --yes"
        )));
    }
    let mut error = std::io::stderr().lock();
    // A closed terminal answers no below.
    let _ = write!(error, "{question} [y/N] ");
    let _ = error.flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(install::Error::State("nothing was changed".to_owned())),
    }
}
