//! Files of an instance: certificates, kubeconfigs, configuration, images, the node payload. All
//! of it is safe to repeat, and only what changed is made again.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use packaging::control_plane::{ControlPlane, Process, ensure_encryption_config};
use packaging::files::{PUBLIC, SECRET, make_dir, read_optional, write_atomic};
use packaging::image::definitions::{self, Choices};
use packaging::image::{Compression, Writer};
use packaging::kubeconfig::{Kubeconfig, Source};
use packaging::payload::{self, Contents};
use packaging::pki::{Authority, Change, Name, Pki};

use super::Error;
use crate::catalog::Catalog;
use crate::images::{self, Programs};
use crate::instance::{Paths, Settings};
use crate::upstream::Versions;

/// The pause image, by the name that kubelet and containerd expect.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";
/// The example's image; `examples/hello/hello.yaml` names it.
pub const HELLO_IMAGE: &str = "k8s.mesosphere.io/hello:v0.1.0";

/// CoreDNS' image, by its upstream name.
pub fn coredns_image(versions: &Versions) -> Result<String, Error> {
    let version = version(versions, "coredns")?;
    Ok(format!("registry.k8s.io/coredns/coredns:{version}"))
}

/// konnectivity's agent's image, by its upstream name.
pub fn konnectivity_image(versions: &Versions) -> Result<String, Error> {
    let version = version(versions, "proxy-agent")?;
    Ok(format!(
        "registry.k8s.io/kas-network-proxy/proxy-agent:{version}"
    ))
}

fn version<'a>(versions: &'a Versions, program: &'static str) -> Result<&'a str, Error> {
    versions.get(program).ok_or(Error::NoVersion(program))
}

/// Whether this machine has a name server.
pub fn has_name_server() -> bool {
    std::fs::read_to_string("/etc/resolv.conf").is_ok_and(|text| {
        text.lines()
            .any(|l| l.split_whitespace().next() == Some("nameserver"))
    })
}

/// The control plane of an instance.
pub fn control_plane(paths: &Paths, settings: &Settings) -> Result<ControlPlane, Error> {
    let (pod_cidr, service_cidr) = settings.cidrs()?;
    Ok(ControlPlane {
        cluster: settings.name.clone(),
        pki: Pki::new(paths.pki()),
        config_dir: paths.config(),
        data_dir: paths.etcd(),
        run_dir: paths.run().to_owned(),
        advertise: settings.address,
        ports: settings.ports,
        pod_cidr,
        service_cidr,
        dns_domain: "cluster.local".to_owned(),
    })
}

/// Certificates, the encryption key and kubeconfigs. Returns what was made or renewed.
pub fn credentials(
    paths: &Paths,
    settings: &Settings,
    control_plane: &ControlPlane,
) -> Result<Vec<Change>, Error> {
    let plan = control_plane.certificate_plan().certificates();
    let changes = control_plane.pki.ensure(&plan, SystemTime::now().into())?;
    ensure_encryption_config(&control_plane.encryption_config())?;
    for (path, name, user) in [
        (paths.super_kubeconfig(), Name::SuperAdmin, "super-admin"),
        (paths.framework_kubeconfig(), Name::Framework, "framework"),
    ] {
        let content = control_plane.program_kubeconfig(name, user).render();
        write_if_changed(&path, content.as_bytes(), SECRET)?;
    }
    user_kubeconfig(paths, settings, control_plane)?;
    Ok(changes)
}

/// The caller's own kubeconfig: complete in itself, readable by nobody else.
fn user_kubeconfig(
    paths: &Paths,
    settings: &Settings,
    control_plane: &ControlPlane,
) -> Result<(), Error> {
    let pki = &control_plane.pki;
    let inline = |path: PathBuf| -> Result<Source, Error> {
        std::fs::read(&path)
            .map(Source::Inline)
            .map_err(|source| Error::Io {
                action: "read",
                path,
                source,
            })
    };
    let kubeconfig = Kubeconfig {
        cluster: settings.name.clone(),
        server: control_plane.local_server(),
        server_name: None,
        authority: inline(pki.authority_certificate(Authority::Cluster))?,
        user: "admin".to_owned(),
        certificate: inline(pki.certificate(Name::Admin))?,
        key: inline(pki.key(Name::Admin))?,
    };
    let path = paths.kubeconfig();
    write_if_changed(&path, kubeconfig.render().as_bytes(), SECRET)?;
    let (uid, gid) = settings.owner;
    std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(|source| Error::Io {
        action: "give to its owner",
        path,
        source,
    })
}

/// Writes the files of processes and makes their directories.
pub fn process_files(processes: &[Process]) -> Result<(), Error> {
    for process in processes {
        for dir in &process.directories {
            // A directory that is there keeps its mode: others may have their sockets in it.
            if !dir.is_dir() {
                make_dir(dir, 0o700)?;
            }
        }
        for file in &process.files {
            write_if_changed(&file.path, file.content.as_bytes(), file.mode)?;
        }
    }
    Ok(())
}

fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    if read_optional(path)?.as_deref() != Some(content) {
        write_atomic(path, content, mode)?;
    }
    Ok(())
}

/// Where the payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The archive, named by its digest.
    pub path: PathBuf,
    /// Whether it was there already.
    pub kept: bool,
}

/// Images and the payload that holds them. Takes seconds when something changed, else nothing.
pub fn payload(paths: &Paths, settings: &Settings, catalog: &Catalog) -> Result<Payload, Error> {
    payload_in(&paths.artifacts(), &settings.images, catalog)
}

/// The same in any directory, with image archives beside those that every cluster needs.
pub fn payload_in(dir: &Path, more: &[PathBuf], catalog: &Catalog) -> Result<Payload, Error> {
    let mut images = images(dir, catalog)?;
    for (number, path) in more.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        images.push((format!("extra-{number}-{name}"), path.clone()));
    }
    let contents = Contents {
        programs: catalog.upstream_dir().to_owned(),
        components: Versions::of(catalog.upstream_dir()).only(&payload::PROGRAMS),
        images,
        pause: PAUSE_IMAGE.to_owned(),
        licenses: licenses(catalog.upstream_dir()),
    };
    let fingerprint = contents.fingerprint()?;
    let note = dir.join("payload.fingerprint");
    if let Some(noted) = read_optional(&note)?
        && let Some((noted, file)) = String::from_utf8_lossy(&noted).split_once(' ')
        && noted == fingerprint
        && dir.join(file).is_file()
    {
        return Ok(Payload {
            path: dir.join(file),
            kept: true,
        });
    }
    let built = contents.write(dir)?;
    let name = format!("{}.tar", built.sha256);
    write_atomic(&note, format!("{fingerprint} {name}").as_bytes(), PUBLIC)?;
    remove_other_payloads(dir, &name);
    Ok(Payload {
        path: built.path,
        kept: false,
    })
}

/// Licence texts of what is packed: `k8sm upstream build` writes them beside the programs' folder.
fn licenses(upstream: &Path) -> Option<PathBuf> {
    let beside = upstream.parent().map(|dir| dir.join("licenses"));
    [Some(upstream.join("licenses")), beside]
        .into_iter()
        .flatten()
        .find(|dir| dir.is_dir())
}

/// Payloads are large, and the agents keep copies of those that they use.
fn remove_other_payloads(dir: &Path, keep: &str) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let digest = name.strip_suffix(".tar").unwrap_or_default();
        let is_payload = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        if (is_payload && name != keep) || name.ends_with(".tmp") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The images that every cluster needs, and the example's; the pause image first.
const NODE_IMAGES: [&str; 4] = ["pause", "coredns", "konnectivity-agent", "hello"];

/// Writes their archives: file name and path of each.
fn images(dir: &Path, catalog: &Catalog) -> Result<Vec<(String, PathBuf)>, Error> {
    let programs = Programs::new(Some(catalog.own_dir()), catalog.upstream_dir())?;
    // On one machine packing takes longer than moving.
    let kind = Compression::None;
    let mut writer = Writer::new(kind);
    let mut files = Vec::new();
    for name in NODE_IMAGES {
        let definition = definitions::of(&[name.to_owned()])
            .map_err(images::Error::from)?
            .remove(0);
        let image = definition
            .image(&programs, &Choices::default())
            .map_err(images::Error::from)?;
        let file = format!("{name}.tar");
        let path = dir.join(&file);
        images::ensure(&mut writer, kind, &image, &path)?;
        files.push((file, path));
    }
    Ok(files)
}
