//! How keys get to the apps: by DC/OS' secret store where there is one that this app may use, else
//! in the apps' environment.

use std::collections::BTreeMap;

use packaging::install::preflight::Choice;
use packaging::marathon::{PkiDelivery, pki_secret};
use packaging::options::Options;
use packaging::pki::Component;
use sha2::{Digest as _, Sha256};

use super::store::{self, Store};
use super::{Attempt, Service, state};
use crate::install::{Home, Site, keys};

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As secrets of DC/OS' store.
    Store,
    /// In the definitions of the apps.
    Env,
}

/// Why the store that was asked for cannot be used. Worth a retry: Marathon may be started with
/// another feature.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody to be there.
    #[error(
        "pki.source is secrets, but this app is no service account, which DC/OS' secret store wants: set service.principal and service.secret_name"
    )]
    NoAccount,
    /// Marathon does not know them.
    #[error(
        "pki.source is secrets, but this Marathon has none (/v2/info does not list the feature `secrets`, as that of DC/OS Enterprise does); leave it at auto"
    )]
    NoFeature,
}

/// What the options want: `source` is `pki.source`, `feature` whether Marathon has secrets, `account`
/// whether this app is a service account.
pub(super) fn wanted(source: &str, feature: bool, account: bool) -> Result<Way, Error> {
    match (source, feature, account) {
        ("secrets", _, false) => Err(Error::NoAccount),
        ("secrets", false, true) => Err(Error::NoFeature),
        ("secrets" | "auto", true, true) => Ok(Way::Store),
        _ => Ok(Way::Env),
    }
}

impl Way {
    /// For people: where keys are.
    pub fn describe(self, service: &str) -> String {
        match self {
            Self::Store => format!(
                "in DC/OS' secret store: {}/pki-*, {}, {}",
                store::folder(service),
                store::state(service),
                store::kubeconfig(service)
            ),
            Self::Env => "in the environment of Marathon's apps, where everybody who may read the apps or Mesos' state can read them".to_owned(),
        }
    }
}

/// The way of this attempt. A cluster whose keys are in the environment because its account was
/// never allowed to use the store stays so, and says it: its framework is not to stand still for
/// that. One that begins does not begin so.
pub(super) async fn choose(
    service: &Service,
    wanted: Way,
    store: Option<&Store>,
    found: Option<&state::Found>,
) -> Result<Way, Attempt> {
    let (Way::Store, Some(store)) = (wanted, store) else {
        return Ok(Way::Env);
    };
    let moves = found.is_some_and(|f| f.way == Way::Env);
    if !moves || service.options.pki.source == "secrets" {
        return Ok(Way::Store);
    }
    match store.get(&store::state(service.name())).await {
        Ok(_) => {
            tracing::info!("the keys move from the apps' environment to DC/OS' secret store");
            Ok(Way::Store)
        }
        Err(error @ store::Error::Forbidden { .. }) => {
            tracing::warn!("the keys stay in the apps' environment: {error}");
            Ok(Way::Env)
        }
        Err(error) => Err(error.into()),
    }
}

/// What the renderer has to know of the way of the keys, and the secrets by their paths that have
/// to be there for it.
pub(super) fn delivery(
    way: Way,
    home: &Home,
    options: &Options,
    choice: &Choice,
) -> Result<(PkiDelivery, BTreeMap<String, String>), Attempt> {
    let mut secrets = BTreeMap::new();
    if way == Way::Env {
        return Ok((keys::delivery(home, options, choice)?, secrets));
    }
    let path = store::folder(&options.service.name);
    let mut digests = BTreeMap::new();
    for component in keys::components(options, choice) {
        if component == Component::Framework {
            // This app is the framework's parent.
            continue;
        }
        let text = keys::bundle(home, component)?.to_json();
        digests.insert(
            component,
            crate::upstream::cache::hex(&Sha256::digest(&text)),
        );
        secrets.insert(pki_secret(&path, &options.service.name, component), text);
    }
    Ok((PkiDelivery::Secrets { path, digests }, secrets))
}

/// Whether Marathon has secrets.
pub(super) fn has_secrets(site: &Site) -> bool {
    site.info.has("secrets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_used_where_marathon_and_the_account_allow_it_and_demanded_by_name() {
        for (source, feature, account, way) in [
            ("auto", true, true, Ok(Way::Store)),
            ("auto", true, false, Ok(Way::Env)),
            ("auto", false, true, Ok(Way::Env)),
            ("secrets", true, true, Ok(Way::Store)),
            ("secrets", true, false, Err(Error::NoAccount)),
            ("secrets", false, true, Err(Error::NoFeature)),
            ("env", true, true, Ok(Way::Env)),
        ] {
            assert_eq!(
                wanted(source, feature, account),
                way,
                "{source} {feature} {account}"
            );
        }
    }
}
