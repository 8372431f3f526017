//! When certificates end, and which components need new ones: one component after the other, so
//! that the cluster goes on. Pure; whoever renews brings the new bundle to the app and waits until
//! it is healthy before the next.

use time::OffsetDateTime;

use super::authorities::{Authorities, Pair};
use super::bundle::Bundle;
use super::component::Component;
use super::issue;
use super::plan::Certificate;

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Expiry {
    /// Whose it is.
    pub component: Component,
    /// Its file.
    pub file: String,
    /// When it ends, seconds since 1970.
    pub ends: i64,
    /// Days until then, rounded down; negative when it is over.
    pub days: i64,
}

/// When the certificates of a bundle end, those of authorities included; the earliest first.
pub fn expiries(bundle: &Bundle, now: OffsetDateTime) -> Vec<Expiry> {
    let mut found: Vec<Expiry> = bundle
        .names()
        .filter(|name| name.ends_with(".crt"))
        .filter_map(|name| {
            let ends = bundle.file(name).and_then(issue::not_after)?;
            Some(Expiry {
                component: bundle.component(),
                file: name.to_owned(),
                ends,
                days: (ends - now.unix_timestamp()).div_euclid(86_400),
            })
        })
        .collect();
    found.sort_by(|a, b| (a.ends, &a.file).cmp(&(b.ends, &b.file)));
    found
}

/// A component that needs new certificates.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Renewal {
    /// Which.
    pub component: Component,
    /// Why: for each file a reason for a person.
    pub reasons: Vec<(String, String)>,
}

/// The components whose certificates are due, in the order in which to renew them: etcd's members
/// one by one, then API servers, controller managers, front doors, framework. `all` renews good
/// ones too. `plan` says what a component's certificates should be.
pub fn renewals(
    authorities: &Authorities,
    bundles: &[Bundle],
    plan: impl Fn(Component) -> Vec<Certificate>,
    all: bool,
    now: OffsetDateTime,
) -> Vec<Renewal> {
    let mut renewals: Vec<Renewal> = bundles
        .iter()
        .map(|bundle| Renewal {
            component: bundle.component(),
            reasons: reasons(authorities, bundle, &plan(bundle.component()), all, now),
        })
        .filter(|renewal| !renewal.reasons.is_empty())
        .collect();
    renewals.sort_by_key(|renewal| renewal.component);
    renewals
}

fn reasons(
    authorities: &Authorities,
    bundle: &Bundle,
    plan: &[Certificate],
    all: bool,
    now: OffsetDateTime,
) -> Vec<(String, String)> {
    let component = bundle.component();
    let mut reasons = Vec::new();
    for authority in component.authorities() {
        let file = authority.certificate_file();
        if bundle.file(&file) != Some(authorities.certificate(*authority)) {
            reasons.push((file, "the authority is another now".to_owned()));
        }
    }
    for wanted in plan {
        if !component.certificates().contains(&wanted.name) {
            continue;
        }
        let file = wanted.name.certificate_file();
        let pair = bundle.file(&file).zip(bundle.file(&wanted.name.key_file()));
        let verdict = match pair {
            None => Err("it was missing".to_owned()),
            Some((certificate, key)) => {
                let pair = Pair {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                };
                authorities.verdict(wanted, &pair, now)
            }
        };
        match verdict {
            Err(reason) => reasons.push((file, reason)),
            Ok(()) if all => reasons.push((file, "asked for".to_owned())),
            Ok(()) => {}
        }
    }
    reasons
}
