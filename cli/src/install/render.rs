//! Options, choices, artifacts and keys -> apps.

use std::collections::BTreeMap;

use packaging::install::artifacts::Manifest;
use packaging::install::plan::Wanted;
use packaging::install::preflight::{Choice, version};
use packaging::marathon::{App, Artifact, Facts, KeptBy, PkiDelivery, lint, render};
use packaging::run::MemberState;

use super::{Error, Home, Record, Site, keys};

/// What the renderer has to know.
///
/// With a `snapshot` etcd's members begin with it.
pub(crate) fn facts(
    record: &Record,
    site: &Site,
    delivery: PkiDelivery,
    snapshot: Option<&Artifact>,
) -> Result<Facts, Error> {
    let choice: &Choice = &record.choice;
    let states = match snapshot {
        None => record.etcd_states.clone(),
        Some(_) => (0_u8..)
            .zip(&choice.etcd_hosts)
            .map(|(number, _)| (number, MemberState::Restore))
            .collect(),
    };
    Ok(Facts {
        install_id: record.id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes_version: kubernetes_version(&record.artifacts),
        marathon_version: version(&site.info.version),
        mesos_master: site.master.clone(),
        etcd_hosts: choice.etcd_hosts.clone(),
        etcd_storage: choice.etcd_storage,
        etcd_states: states,
        etcd_form_until: Some(record.first_start_until),
        etcd_snapshot: snapshot.cloned(),
        api_hosts: choice.api_hosts.clone(),
        pki: delivery,
        artifacts: artifacts(&record.artifacts, &record.artifacts_url)?,
        kept: record.kept_in_use().map(|kept| KeptBy {
            dir: kept.dir.clone(),
            agents: kept.agents.keys().cloned().collect(),
        }),
        one_app: false,
    })
}

/// The version of Kubernetes among the artifacts.
pub fn kubernetes_version(artifacts: &Manifest) -> String {
    let version = artifacts.components.get("kubelet");
    version.cloned().unwrap_or_else(|| "unknown".to_owned())
}

/// The artifacts as the renderer wants them.
pub fn artifacts(list: &Manifest, base: &str) -> Result<BTreeMap<String, Artifact>, Error> {
    list.complete()?;
    list.files
        .iter()
        .map(|(name, entry)| {
            let artifact = Artifact {
                uri: list.url(Some(base), name)?,
                sha256: entry.sha256.clone(),
                size: entry.size,
            };
            Ok((name.clone(), artifact))
        })
        .collect()
}

/// The apps of an installation. What Marathon would refuse is found here.
pub fn apps(home: &Home, record: &Record, site: &Site) -> Result<Vec<App>, Error> {
    checked(home, record, site, None)
}

fn checked(
    home: &Home,
    record: &Record,
    site: &Site,
    snapshot: Option<&Artifact>,
) -> Result<Vec<App>, Error> {
    let options = record.parsed_options()?;
    let delivery = keys::delivery(home, &options, &record.choice)?;
    let apps = render(&options, &facts(record, site, delivery, snapshot)?)?;
    let findings = lint(&apps);
    if !findings.is_empty() {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        return Err(Error::State(format!(
            "the apps are not as Marathon wants them; this is a mistake of k8sm, please report it:\n{}",
            lines.join("\n")
        )));
    }
    Ok(apps)
}

/// The apps of an installation as the plan compares them. With a `snapshot` etcd's members begin
/// with it.
pub fn wanted(
    home: &Home,
    record: &Record,
    site: &Site,
    snapshot: Option<&Artifact>,
) -> Result<Vec<Wanted>, Error> {
    as_wanted(&checked(home, record, site, snapshot)?)
}

/// Apps as the plan compares them.
pub(crate) fn as_wanted(apps: &[App]) -> Result<Vec<Wanted>, Error> {
    apps.iter()
        .map(|app| {
            let definition = serde_json::to_value(app)
                .map_err(|e| Error::State(format!("write {} down: {e}", app.id)))?;
            Ok(Wanted {
                id: app.id.to_string(),
                definition,
            })
        })
        .collect()
}
