//! The installation's certificates and keys, and what each app gets of them. They are made on
//! this machine and stay in its record; apps get bundles.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use packaging::cidr::Cidr;
use packaging::control_plane::ensure_encryption_config;
use packaging::files::{SECRET, make_dir, read_optional, write_atomic};
use packaging::install::preflight::Choice;
use packaging::marathon::{AgentHost, PkiDelivery};
use packaging::options::Options;
use packaging::pki::component::ENCRYPTION_FILE;
use packaging::pki::{Bundle, Change, Component, Pki, Plan};
use serde_json::{Value, json};

use super::{Error, Home};

/// Place of konnectivity's service among the services' addresses: the one after the DNS service's.
pub const KONNECTIVITY_SERVICE: u32 = 11;

/// What the certificates must say.
pub fn plan(options: &Options, choice: &Choice) -> Result<Plan, Error> {
    let services: Cidr = options.kubernetes.service_cidr.parse()?;
    let addresses = |hosts: &[AgentHost]| hosts.iter().map(|h| IpAddr::V4(h.address)).collect();
    let mut api_addresses: Vec<IpAddr> = addresses(&choice.api_hosts);
    let mut api_names = Vec::new();
    for name in &options.apiserver.names {
        match name.parse() {
            Ok(address) => api_addresses.push(address),
            Err(_) => api_names.push(name.clone()),
        }
    }
    let service = |n: u32| -> Result<IpAddr, Error> {
        let address = services.nth(n).ok_or_else(|| {
            Error::Cidr(packaging::cidr::BadCidr(
                options.kubernetes.service_cidr.clone(),
            ))
        })?;
        Ok(IpAddr::V4(address))
    };
    let mut konnectivity_addresses: Vec<IpAddr> = addresses(&choice.api_hosts);
    konnectivity_addresses.push(service(KONNECTIVITY_SERVICE)?);
    Ok(Plan {
        api_addresses,
        api_names,
        api_service_address: service(1)?,
        dns_domain: options.kubernetes.dns.domain.clone(),
        etcd_addresses: addresses(&choice.etcd_hosts),
        konnectivity_addresses,
    })
}

/// Makes what is missing and renews what is due.
pub fn ensure(home: &Home, options: &Options, choice: &Choice) -> Result<Vec<Change>, Error> {
    let pki = Pki::new(home.pki()).with_life(options.pki.certificate_life());
    let now = SystemTime::now().into();
    if !options.pki.ca.is_empty() {
        pki.bring(Path::new(&options.pki.ca), now)?;
    }
    let certificates = plan(options, choice)?.certificates();
    let changes = pki.ensure(&certificates, now)?;
    let encryption = home.pki().join(ENCRYPTION_FILE);
    ensure_encryption_config(&encryption)?;
    shape_encryption(&encryption, options)?;
    Ok(changes)
}

/// Brings the EncryptionConfiguration to what the options say: which resources, and whether new
/// values are encrypted. The keys in it stay.
fn shape_encryption(path: &Path, options: &Options) -> Result<(), Error> {
    let bytes = read_optional(path)?.unwrap_or_default();
    let damaged = |reason: String| Error::Damaged {
        path: path.to_owned(),
        reason,
    };
    let mut config: Value = serde_yaml::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    let before = config.clone();
    let mut resources = vec!["secrets".to_owned()];
    resources.extend(options.encryption.resources.iter().cloned());
    config["resources"][0]["resources"] = json!(resources);
    let plain = |provider: &Value| provider.get("identity").is_some();
    if let Some(providers) = config["resources"][0]["providers"].as_array_mut() {
        // The first one writes, all of them read.
        providers.sort_by_key(|p| plain(p) == options.encryption.enabled);
    }
    if config != before {
        let text = serde_yaml::to_string(&config).map_err(|e| damaged(e.to_string()))?;
        write_atomic(path, text.as_bytes(), SECRET)?;
    }
    Ok(())
}

/// The bundle of one component.
pub fn bundle(home: &Home, component: Component) -> Result<Bundle, Error> {
    Ok(Pki::new(home.pki()).bundle(component)?)
}

/// The components of this cluster.
pub fn components(options: &Options, choice: &Choice) -> Vec<Component> {
    let members = u8::try_from(choice.etcd_hosts.len()).unwrap_or(u8::MAX);
    Component::all(members)
        .into_iter()
        .filter(|c| *c != Component::Proxy || options.proxy.enabled)
        .collect()
}

/// How keys get to the apps.
pub fn delivery(home: &Home, options: &Options, choice: &Choice) -> Result<PkiDelivery, Error> {
    Ok(match choice.pki.as_str() {
        "secrets" => PkiDelivery::Secrets {
            digests: Default::default(),
            path: options.pki.secret_path.clone(),
        },
        "file" => PkiDelivery::File {
            directory: options.pki.file.clone(),
        },
        "uri" => PkiDelivery::Uri {
            base: options.pki.uri.clone(),
        },
        _ => {
            let mut bundles = BTreeMap::new();
            for component in components(options, choice) {
                bundles.insert(component, bundle(home, component)?.to_json());
            }
            PkiDelivery::Env { bundles }
        }
    })
}

/// Writes the bundles for an operator to bring to a secret store, to agents or to a server.
pub fn export(
    home: &Home,
    options: &Options,
    choice: &Choice,
    dir: &Path,
) -> Result<Vec<String>, Error> {
    make_dir(dir, 0o700)?;
    let mut names = Vec::new();
    for component in components(options, choice) {
        let name = format!("{component}.json");
        let text = bundle(home, component)?.to_json();
        write_atomic(&dir.join(&name), text.as_bytes(), SECRET)?;
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use packaging::marathon::EtcdStorage;
    use packaging::options::Layers;

    fn choice() -> Choice {
        let host = |n: u8| AgentHost {
            hostname: format!("agent-{n}"),
            address: std::net::Ipv4Addr::new(192, 0, 2, n),
        };
        Choice {
            etcd_hosts: vec![host(1)],
            etcd_storage: EtcdStorage::HostPath,
            api_hosts: vec![host(1), host(2)],
            pki: "env".to_owned(),
            why: Vec::new(),
        }
    }

    #[test]
    fn every_component_gets_exactly_its_files_and_a_second_run_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(Some(dir.path()), "k").unwrap();
        home.create().unwrap();
        let options = Options::default();
        assert!(!ensure(&home, &options, &choice()).unwrap().is_empty());
        let first = delivery(&home, &options, &choice()).unwrap();
        assert!(ensure(&home, &options, &choice()).unwrap().is_empty());
        assert_eq!(delivery(&home, &options, &choice()).unwrap(), first);
        let PkiDelivery::Env { bundles } = first else {
            panic!("{first:?}");
        };
        let text = bundles.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            text.join(" "),
            "etcd-0 apiserver controller-manager proxy framework"
        );
    }

    #[test]
    fn turning_encryption_off_keeps_the_key_that_reads() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(Some(dir.path()), "k").unwrap();
        home.create().unwrap();
        ensure(&home, &Options::default(), &choice()).unwrap();
        let path = home.pki().join(ENCRYPTION_FILE);
        let on = std::fs::read_to_string(&path).unwrap();
        let mut layers = Layers::new();
        layers.set("encryption.enabled=false").unwrap();
        ensure(&home, &layers.finish().unwrap(), &choice()).unwrap();
        let off = std::fs::read_to_string(&path).unwrap();
        let order = |text: &str| text.find("identity") < text.find("secretbox");
        assert!(!order(&on) && order(&off), "{off}");
        ensure(&home, &Options::default(), &choice()).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            on,
            "the same key again"
        );
    }
}
