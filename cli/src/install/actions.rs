//! Steps that are no change of an app: what goes through the Kubernetes API, Mesos and etcd.
//! Each may be done any number of times, and says "not yet" where waiting helps.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use packaging::addons::{Addons, coredns, konnectivity};
use packaging::cidr::Cidr;
use packaging::install::judge::Standing;
use packaging::install::leftovers::reserved_for;
use packaging::install::plan::{Action, Part, group};
use packaging::kubeconfig::{Kubeconfig, Source};
use packaging::options::Options;
use packaging::pki::{Authority, Name, Pki};
use serde_json::json;

use super::work::Work;
use super::{Error, Phase, etcd, executors, keep, keys, members, rolling};
use crate::cluster::api::{Cluster, node_is_ready};
use crate::cluster::{prepare, teardown};
use crate::upstream::Versions;

/// How long pods get to end, beside their own grace.
const PODS_PATIENCE: Duration = Duration::from_secs(60);
/// How long a list may take.
const API_PATIENCE: Duration = Duration::from_secs(10);

/// How an action went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; the text is for people and may be empty.
    Done(String),
    /// Not yet, and why.
    NotYet(String),
    /// Not yet, but it has come further; what is waited for now.
    Moved(String),
}

/// What is noted at the end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// This phase.
    Phase(Phase),
    /// Nothing is left to be remembered.
    Forget,
}

fn done() -> Result<Outcome, Error> {
    Ok(Outcome::Done(String::new()))
}

/// Does an action.
pub async fn act(work: &mut Work<'_>, action: &Action) -> Result<Outcome, Error> {
    match action {
        Action::Access => access(work).await,
        Action::Kubeconfig => kubeconfig(work).await,
        Action::Nodes(wanted) => nodes(work, *wanted).await,
        Action::Snapshot => snapshot(work).await,
        Action::Quorum => quorum(work).await,
        Action::RemoveMember(number) => members::remove(work, *number).await,
        Action::AddMember(number) => members::add(work, *number).await,
        Action::EndPods => end_pods(work).await,
        Action::Teardown => remove_framework(work).await,
        Action::ForgetFramework => forget_framework(work).await,
        Action::Sweep => keep::sweep(work).await,
        Action::RemoveGroup => {
            work.site
                .marathon
                .delete_group(&group(&work.record.name))
                .await?;
            done()
        }
        Action::VerifyGone => verify_gone(work).await,
        Action::Rollout => rolling::follow(work).await,
        Action::Complete => complete(work),
    }
}

/// Addresses of agents on which apps of a part run, as far as Mesos knows them.
async fn addresses(work: &Work<'_>, part: Part) -> Result<Vec<String>, Error> {
    let name = &work.record.name;
    let world = work.site.world(name).await?;
    let hosts: Vec<String> = world
        .apps
        .iter()
        .filter(|(id, _)| Part::of(name, id) == Some(part))
        .flat_map(|(_, seen)| seen.hosts.clone())
        .collect();
    let agents = work.site.mesos.agents(None).await?;
    Ok(hosts
        .iter()
        .map(|host| {
            let agent = agents.iter().find(|a| a.hostname == *host);
            let address = agent.and_then(|a| a.address).map(|ip| ip.to_string());
            address.unwrap_or_else(|| host.clone())
        })
        .collect())
}

/// A client with all rights, to an API server that runs; `None` where none does.
pub async fn super_client(work: &Work<'_>) -> Result<Option<Cluster>, Error> {
    let port = work.options.apiserver.port;
    for host in addresses(work, Part::ApiServer).await? {
        let server = format!("https://{host}:{port}");
        let content = person(work, Name::SuperAdmin, "super-admin", server)?.render();
        let path = work.home.super_kubeconfig();
        packaging::files::write_atomic(&path, content.as_bytes(), packaging::files::SECRET)?;
        let cluster = Cluster::connect(&path).await?;
        if cluster.client().apiserver_version().await.is_ok() {
            return Ok(Some(cluster));
        }
    }
    Ok(None)
}

/// A kubeconfig that holds everything.
fn person(work: &Work<'_>, name: Name, user: &str, server: String) -> Result<Kubeconfig, Error> {
    let pki = Pki::new(work.home.pki());
    let inline = |path: std::path::PathBuf| -> Result<Source, Error> {
        Ok(Source::Inline(
            std::fs::read(&path).map_err(Error::io("read", &path))?,
        ))
    };
    Ok(Kubeconfig {
        cluster: work.record.name.clone(),
        server,
        // Front doors and API servers move between agents, the name stays.
        server_name: Some("kubernetes.default.svc".to_owned()),
        authority: inline(pki.authority_certificate(Authority::Cluster))?,
        user: user.to_owned(),
        certificate: inline(pki.certificate(name))?,
        key: inline(pki.key(name))?,
    })
}

async fn access(work: &mut Work<'_>) -> Result<Outcome, Error> {
    let Some(mut cluster) = super_client(work).await? else {
        return Ok(Outcome::NotYet(
            "no API server answers this machine".to_owned(),
        ));
    };
    let objects = manifests(work)?;
    // The machine around this repeats it; a kind's API may only just be coming up.
    cluster
        .apply(&objects, Instant::now() + Duration::from_secs(20))
        .await?;
    Ok(Outcome::Done(format!("{} objects", objects.len())))
}

/// What runs in every cluster beside the control plane.
fn manifests(work: &Work<'_>) -> Result<Vec<serde_json::Value>, Error> {
    let options: &Options = work.options;
    let services: Cidr = options.kubernetes.service_cidr.parse()?;
    let dns = &options.kubernetes.dns;
    let nth = |n: u32| services.nth(n).unwrap_or(std::net::Ipv4Addr::LOCALHOST);
    let api_hosts = &work.record.choice.api_hosts;
    let port = options.apiserver.konnectivity_port;
    let (host, more) = match api_hosts.as_slice() {
        [only] => (only.address, Vec::new()),
        several => {
            let address = nth(keys::KONNECTIVITY_SERVICE);
            let servers: Vec<std::net::Ipv4Addr> = several.iter().map(|h| h.address).collect();
            (address, konnectivity::service(address, port, &servers))
        }
    };
    let versions = Versions::listed(&work.record.artifacts.components);
    let addons = Addons {
        framework_name: work.record.name.clone(),
        dns_address: dns.service_ip.parse().unwrap_or_else(|_| nth(10).into()),
        dns_domain: dns.domain.clone(),
        dns_upstream: upstream(&dns.nameservers),
        coredns_image: prepare::coredns_image(&versions)?,
        konnectivity_image: prepare::konnectivity_image(&versions)?,
        konnectivity_host: host.into(),
        konnectivity_port: port,
    };
    let mut objects = addons.manifests();
    if !dns.enabled {
        objects.retain(|o| {
            o["metadata"]["name"]
                .as_str()
                .is_none_or(|n| !n.contains("dns"))
        });
    }
    objects.extend(more);
    Ok(objects)
}

fn upstream(servers: &[String]) -> coredns::Upstream {
    let parsed: Vec<std::net::IpAddr> = servers.iter().filter_map(|s| s.parse().ok()).collect();
    match parsed.is_empty() {
        false => coredns::Upstream::Servers(parsed),
        true if crate::cluster::prepare::has_name_server() => coredns::Upstream::NodeResolvConf,
        true => coredns::Upstream::None,
    }
}

async fn kubeconfig(work: &mut Work<'_>) -> Result<Outcome, Error> {
    let options = work.options;
    let (part, port) = match options.proxy.enabled {
        true => (Part::Proxy, options.proxy.port),
        false => (Part::ApiServer, options.apiserver.port),
    };
    let Some(host) = addresses(work, part).await?.into_iter().next() else {
        return Ok(Outcome::NotYet("nothing serves the API yet".to_owned()));
    };
    let server = format!("https://{host}:{port}");
    let content = person(work, Name::Admin, "admin", server)?.render();
    let path = work.home.kubeconfig();
    packaging::files::write_atomic(&path, content.as_bytes(), packaging::files::SECRET)?;
    Ok(Outcome::Done(path.display().to_string()))
}

async fn nodes(work: &mut Work<'_>, wanted: u32) -> Result<Outcome, Error> {
    let cluster = Cluster::connect(&work.home.super_kubeconfig()).await?;
    let ready = cluster
        .nodes()
        .await?
        .iter()
        .filter(|n| node_is_ready(n))
        .count();
    if ready >= usize::try_from(wanted).unwrap_or(usize::MAX) {
        return Ok(Outcome::Done(format!("{ready} ready")));
    }
    Ok(Outcome::NotYet(format!("{ready} of {wanted} are ready")))
}

async fn snapshot(work: &mut Work<'_>) -> Result<Outcome, Error> {
    if etcd::endpoints(work.options, &work.record.choice).is_empty() {
        return Ok(Outcome::Done("etcd is not ours".to_owned()));
    }
    let ctl = etcd::Ctl::new(work.home, work.options, &work.record.choice, work.programs)?;
    let path = work.home.backups().join(etcd::file_name());
    let size = ctl.snapshot(&path).await?;
    Ok(Outcome::Done(format!(
        "{} ({} KiB)",
        path.display(),
        size / 1024
    )))
}

async fn quorum(work: &mut Work<'_>) -> Result<Outcome, Error> {
    let ctl = etcd::Ctl::new(work.home, work.options, &work.record.choice, work.programs)?;
    match ctl.unhealthy().await? {
        bad if bad.is_empty() => done(),
        bad => Ok(Outcome::NotYet(format!(
            "does not answer: {}",
            bad.join(", ")
        ))),
    }
}

/// Whether an API server is meant to run at all.
async fn api_runs(work: &Work<'_>) -> Result<bool, Error> {
    let name = &work.record.name;
    let world = work.site.world(name).await?;
    Ok(world.apps.iter().any(|(id, seen)| {
        Part::of(name, id) == Some(Part::ApiServer)
            && matches!(
                Standing::of(Some(seen)),
                Standing::Healthy | Standing::Unhealthy(_)
            )
    }))
}

async fn end_pods(work: &mut Work<'_>) -> Result<Outcome, Error> {
    if !api_runs(work).await? {
        return Ok(Outcome::Done(
            "the API does not run; they end with their nodes".to_owned(),
        ));
    }
    let Some(cluster) = super_client(work).await? else {
        return Ok(Outcome::Done(
            "no API server answers; they end with their nodes".to_owned(),
        ));
    };
    // An API server without etcd answers some questions, and is silent at others.
    let Ok(Ok(nodes)) = tokio::time::timeout(API_PATIENCE, cluster.nodes()).await else {
        return Ok(Outcome::Done(
            "the API does not say which there are; they end with their nodes".to_owned(),
        ));
    };
    if let Some(id) = teardown::framework_id(&cluster, &work.record.name).await? {
        work.record.framework_id = Some(id);
        work.home.write(work.record)?;
    }
    let api: Api<Node> = Api::all(cluster.client());
    for node in nodes {
        // Nothing new on them, whoever may still ask for it.
        let name = node.metadata.name.unwrap_or_default();
        let cordon = json!({"spec": {"unschedulable": true}});
        let cordoned = api
            .patch(&name, &PatchParams::default(), &Patch::Merge(&cordon))
            .await;
        cordoned.map_err(|e| crate::cluster::Error::api(format!("cordon {name}"), &e))?;
    }
    let begun = Instant::now();
    let mut asked = false;
    loop {
        let pods: Vec<Pod> = cluster
            .pods(None, None)
            .await?
            .into_iter()
            .filter(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some()))
            .filter(|p| !has_ended(p))
            .collect();
        if pods.is_empty() {
            return done();
        }
        if begun.elapsed() > PODS_PATIENCE {
            return Ok(Outcome::Done(format!(
                "{} have not ended in time and end with their nodes",
                pods.len()
            )));
        }
        if !asked {
            for pod in &pods {
                delete(&cluster, pod).await?;
            }
            asked = true;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

async fn delete(cluster: &Cluster, pod: &Pod) -> Result<(), Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(e) => {
            Err(crate::cluster::Error::api(format!("delete pod {namespace}/{name}"), &e).into())
        }
    }
}

/// Its framework ends while no scheduler of it runs: one that does would subscribe again.
async fn remove_framework(work: &mut Work<'_>) -> Result<Outcome, Error> {
    let found = work.site.mesos.frameworks().await?;
    let ours: Vec<_> = found
        .iter()
        .filter(|f| f.name == work.record.name)
        .filter(|f| match &work.record.framework_id {
            Some(id) => f.id == *id,
            None => true,
        })
        .collect();
    match ours.as_slice() {
        [] => {
            // Whoever comes next on these agents finds ports and links free.
            let left = match &work.record.framework_id {
                Some(id) => executors::agents_with(work.site, id).await,
                None => Vec::new(),
            };
            match left.as_slice() {
                [] => Ok(Outcome::Done("it is gone".to_owned())),
                [first, ..] => Ok(Outcome::NotYet(format!(
                    "its executors are ending on {} agents, {first} among them",
                    left.len()
                ))),
            }
        }
        [one] if one.connected => Ok(Outcome::NotYet(
            "its scheduler is still connected".to_owned(),
        )),
        [one] => {
            work.record.framework_id = Some(one.id.clone());
            work.home.write(work.record)?;
            work.site.mesos.teardown(&one.id).await?;
            Ok(Outcome::NotYet("its tasks are ending".to_owned()))
        }
        several => Err(Error::State(format!(
            "several frameworks are named {}: {}; remove those that are not needed (POST /master/teardown with the id), then repeat this",
            work.record.name,
            several
                .iter()
                .map(|f| f.id.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

/// The next start gets a new id: the old one is refused for ever.
async fn forget_framework(work: &mut Work<'_>) -> Result<Outcome, Error> {
    work.record.framework_id = None;
    work.home.write(work.record)?;
    if !api_runs(work).await? {
        return Ok(Outcome::Done("the API does not run".to_owned()));
    }
    let Some(cluster) = super_client(work).await? else {
        return Ok(Outcome::NotYet("no API server answers".to_owned()));
    };
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "kube-system");
    let name = format!("k8sm-{}", work.record.name);
    match maps.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(e) => return Err(crate::cluster::Error::api("forget the framework's id", &e).into()),
        Ok(_) => {}
    }
    // Their executors are gone; kept, they would be taken for nodes that may come back.
    let nodes: Api<Node> = Api::all(cluster.client());
    for node in cluster.nodes().await? {
        let name = node.metadata.name.unwrap_or_default();
        match nodes.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(e) => {
                return Err(crate::cluster::Error::api(format!("delete node {name}"), &e).into());
            }
            Ok(_) => {}
        }
    }
    done()
}

async fn verify_gone(work: &mut Work<'_>) -> Result<Outcome, Error> {
    let name = work.record.name.clone();
    let frameworks = work.site.mesos.frameworks().await?;
    if frameworks.iter().any(|f| f.name == name) {
        return Ok(Outcome::NotYet(format!(
            "Mesos still has the framework {name}"
        )));
    }
    let world = work.site.world(&name).await?;
    let kept = matches!(work.end, End::Phase(Phase::Kept));
    let left: Vec<&str> = world
        .apps
        .iter()
        .filter(|(id, seen)| {
            !(kept
                && Part::of(&name, id) == Some(Part::Etcd)
                && Standing::of(Some(seen)) == Standing::Stopped)
        })
        .map(|(id, _)| id.as_str())
        .collect();
    if !left.is_empty() {
        return Ok(Outcome::NotYet(format!(
            "Marathon still has {}",
            left.join(", ")
        )));
    }
    // Marathon calls tasks by the reverse of their path.
    let suffix = format!(".{name}-cp");
    let tasks = work.site.mesos.tasks().await?;
    let tasks: Vec<String> = tasks
        .into_iter()
        .map(|task| task.name)
        .filter(|task| *task == name || task.ends_with(&suffix))
        .collect();
    if !tasks.is_empty() {
        return Ok(Outcome::NotYet(format!(
            "tasks are ending: {}",
            tasks.join(", ")
        )));
    }
    let reserved = work.site.mesos.reserved().await?;
    let reserved: Vec<String> = reserved_for(&name, &reserved)
        .filter(|_| !kept)
        .map(ToString::to_string)
        .collect();
    if !reserved.is_empty() {
        return Ok(Outcome::NotYet(format!(
            "Mesos still holds {}",
            reserved.join(", ")
        )));
    }
    done()
}

fn complete(work: &mut Work<'_>) -> Result<Outcome, Error> {
    match work.end {
        End::Forget => work.home.forget()?,
        End::Phase(phase) => {
            work.record.phase = phase;
            work.record.before = None;
            work.record.replacing = None;
            work.home.write(work.record)?;
        }
    }
    done()
}
