//! Replaces a member of etcd whose data is lost: the old one is removed, the new one added without
//! data. Each looks first, so a run that was killed goes on.

use packaging::control_plane::Member;

use super::actions::Outcome;
use super::etcd::{Ctl, Listed};
use super::work::Work;
use super::{Error, etcd};

/// What has to be known about the member that is replaced.
struct Place {
    ctl: Ctl,
    name: String,
    /// Where the new one will be reached by the others.
    url: String,
    /// Where it will be reached by clients.
    client: String,
}

impl Place {
    /// Asks the other members only.
    fn new(work: &Work<'_>, number: u8) -> Result<Self, Error> {
        let (options, choice) = (work.options, &work.record.choice);
        let Some(host) = choice.etcd_hosts.get(usize::from(number)) else {
            return Err(Error::State(format!("etcd has no member {number}")));
        };
        let client = format!("https://{}:{}", host.address, options.etcd.client_port);
        let ctl = Ctl::new(work.home, options, choice, work.programs)?.without(&client);
        Ok(Self {
            ctl,
            name: format!("etcd-{number}"),
            url: Member::peer_url(host.address.into(), options.etcd.peer_port),
            client,
        })
    }
}

/// Removes the old member, unless the new one has taken its place already.
pub async fn remove(work: &Work<'_>, number: u8) -> Result<Outcome, Error> {
    let place = Place::new(work, number)?;
    let bad = place.ctl.unhealthy().await?;
    let members = place.ctl.members().await?;
    if !bad.is_empty() {
        return Ok(Outcome::NotYet(format!(
            "the other members have to answer before one is replaced: {}",
            bad.join(", ")
        )));
    }
    let mut removed = Vec::new();
    for member in &members {
        if is_old(member, &place) && !place.ctl.answers(&place.client).await? {
            place.ctl.remove(member.id).await?;
            removed.push(format!("{:x}", member.id));
        }
    }
    Ok(Outcome::Done(removed.join(", ")))
}

/// Whether it is the one that has to go: a member that was added but has not started has neither a
/// name nor addresses for clients.
fn is_old(member: &Listed, place: &Place) -> bool {
    let named = member.name == place.name;
    let there = member.peer_urls.contains(&place.url);
    let started = !member.client_urls.is_empty();
    (named && !there) || (there && started)
}

/// Adds the new member.
pub async fn add(work: &Work<'_>, number: u8) -> Result<Outcome, Error> {
    let place = Place::new(work, number)?;
    let members = place.ctl.members().await?;
    if members.iter().any(|m| m.peer_urls.contains(&place.url)) {
        return Ok(Outcome::Done("it is known".to_owned()));
    }
    match place.ctl.add(&place.name, &place.url).await {
        Ok(()) => Ok(Outcome::Done(place.url)),
        // A cluster that has just lost one is not always ready for another at once.
        Err(error @ etcd::Error::Failed { .. }) => Ok(Outcome::NotYet(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, peer: &str, clients: &[&str]) -> Listed {
        Listed {
            id: 1,
            name: name.to_owned(),
            peer_urls: vec![peer.to_owned()],
            client_urls: clients.iter().map(|c| (*c).to_owned()).collect(),
        }
    }

    #[test]
    fn a_member_goes_by_its_name_or_place_until_its_successor_is_added() {
        let place = Place {
            ctl: Ctl::nowhere(),
            name: "etcd-1".to_owned(),
            url: "https://192.0.2.4:2380".to_owned(),
            client: "https://192.0.2.4:2379".to_owned(),
        };
        let here = "https://192.0.2.4:2380";
        let elsewhere = "https://192.0.2.2:2380";
        assert!(is_old(&listed("etcd-1", elsewhere, &["c"]), &place));
        assert!(is_old(&listed("etcd-1", here, &["c"]), &place));
        assert!(!is_old(&listed("", here, &[]), &place));
        assert!(!is_old(&listed("etcd-0", elsewhere, &["c"]), &place));
    }
}
