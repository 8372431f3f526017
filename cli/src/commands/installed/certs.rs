//! `k8sm certs` and `k8sm kubeconfig`.

use std::path::Path;
use std::time::SystemTime;

use packaging::install::judge::World;
use packaging::install::plan::{self, Action, Step, Wanted};
use packaging::pki::{Expiry, Pki};
use serde_json::json;

use super::{Session, block_on, confirm, home, print, show_plan, site};
use crate::args::{Certs, CertsCommand, KubeconfigArgs, Manner};
use crate::commands::table;
use crate::error::Error;
use crate::install::actions::End;
use crate::install::{self, Home, Phase, Record, keys, render};
use crate::progress::Progress;

/// How long it may take until it is known where the API is.
const KUBECONFIG_SECONDS: u64 = 20;

/// Those of an upgrade: one part after the other. Nodes stay what they are, and so does an order to
/// leave them alone.
fn steps(name: &str, wanted: &[Wanted], world: &World) -> Vec<Step> {
    let mut steps = plan::upgrade(name, wanted, world);
    steps.retain(|step| *step != Step::Do(Action::Rollout));
    steps
}

/// `k8sm certs`.
pub fn certs(state_dir: &Path, args: &Certs) -> Result<(), Error> {
    let (home, record) = home(state_dir, &args.which)?;
    match &args.command {
        CertsCommand::Status { output } => {
            let rows = expiries(&home, &record)?;
            crate::commands::print(&print::shaped(*output, &json!(rows), || {
                let rows: Vec<Vec<String>> = rows
                    .iter()
                    .map(|row| vec![row.name.clone(), format!("{} days", row.days)])
                    .collect();
                table(&["CERTIFICATE", "EXPIRES IN"], &rows)
            }))
        }
        CertsCommand::Renew { all, manner } => block_on(renew(&home, record, *all, manner)),
        CertsCommand::Export { dir } => {
            let options = record.parsed_options()?;
            let names = keys::export(&home, &options, &record.choice, dir)?;
            let shown: Vec<String> = names
                .iter()
                .map(|n| dir.join(n).display().to_string())
                .collect();
            crate::commands::print(&format!("{}\n", shown.join("\n")))
        }
    }
}

/// `k8sm kubeconfig`.
pub fn kubeconfig(state_dir: &Path, args: &KubeconfigArgs) -> Result<(), Error> {
    let (home, mut record) = home(state_dir, &args.which)?;
    let manner = Manner {
        timeout: KUBECONFIG_SECONDS,
        ..Manner::default()
    };
    block_on(async {
        let site = site(&record).await?;
        let progress = Progress::new(true);
        let end = End::Phase(record.phase);
        let mut session = Session::new(&home, &mut record, &site, &progress, &manner);
        let steps = vec![Step::Do(Action::Kubeconfig)];
        session.run(&[], steps, end).await
    })?;
    let path = home.kubeconfig();
    let text = match args.print {
        true => {
            std::fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))?
        }
        false => format!("{}\n", path.display()),
    };
    crate::commands::print(&text)
}

/// When each certificate expires, the earliest first.
fn expiries(home: &Home, record: &Record) -> Result<Vec<Expiry>, install::Error> {
    let options = record.parsed_options()?;
    let certificates = keys::plan(&options, &record.choice)?.certificates();
    let now = SystemTime::now().into();
    Ok(Pki::new(home.pki()).expiries(&certificates, now)?)
}

/// The first expiry, in a sentence.
pub(super) fn next_expiry(home: &Home, record: &Record) -> Result<String, install::Error> {
    let rows = expiries(home, record)?;
    Ok(match rows.first() {
        Some(Expiry { name, days, .. }) if *days < 0 => {
            format!("{name} has expired: `k8sm certs renew`")
        }
        Some(Expiry { name, days, .. }) => format!("the first expires in {days} days ({name})"),
        None => "there are none".to_owned(),
    })
}

async fn renew(
    home: &Home,
    mut record: Record,
    all: bool,
    manner: &Manner,
) -> Result<(), install::Error> {
    let progress = Progress::new(manner.quiet || manner.dry_run);
    let options = record.parsed_options()?;
    let pki = Pki::new(home.pki());
    let certificates = keys::plan(&options, &record.choice)?.certificates();
    let now = SystemTime::now().into();
    let mut due = Vec::new();
    for certificate in &certificates {
        match pki.due(certificate, now)? {
            Some(reason) => due.push(format!("{}: {reason}", certificate.name)),
            None if all => due.push(format!("{}: asked for", certificate.name)),
            None => {}
        }
    }
    if due.is_empty() && record.phase == Phase::Installed {
        progress.note("no certificate is due; --all renews them all the same");
        return Ok(());
    }
    let site = site(&record).await?;
    if manner.dry_run {
        let wanted = render::wanted(home, &record, &site, None)?;
        let world = site.world(&record.name).await?;
        let steps = steps(&record.name, &wanted, &world);
        return show_plan(manner.output, &[], &steps, &due)
            .map_err(|e| install::Error::State(e.to_string()));
    }
    for line in &due {
        progress.note(&format!("- {line}"));
    }
    confirm(
        manner,
        &format!(
            "Renew {} certificates and restart one part after the other?",
            due.len()
        ),
    )?;
    let _lock = home.lock()?;
    if all {
        for certificate in &certificates {
            let path = pki.certificate(certificate.name);
            // Half a pair is made anew. The key goes with it when the new one is written.
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(install::Error::io("remove", &path)(e));
                }
                _ => {}
            }
        }
    }
    keys::ensure(home, &options, &record.choice)?;
    super::create::tell_about_keys(home, &options, &record, &progress)?;
    let wanted = render::wanted(home, &record, &site, None)?;
    let name = record.name.clone();
    let mut session = Session::new(home, &mut record, &site, &progress, manner);
    session
        .go(
            &wanted,
            |world| steps(&name, &wanted, world),
            End::Phase(Phase::Installed),
        )
        .await
}
