//! What each component's processes are, from its specification.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use packaging::control_plane::{
    ApiServer, Beginning, CONTROLLER_MANAGER_USER, ControllerManager, Konnectivity, Member,
    Process, kubeconfig_file,
};
use packaging::files::{SECRET, read_optional, write_atomic};
use packaging::kubeconfig::{Kubeconfig, Source};
use packaging::pki::component::ENCRYPTION_FILE;
use packaging::pki::plan::{FRAMEWORK_USER, KONNECTIVITY_USER};
use packaging::pki::{Authority, Name, Pki};
use packaging::run::{
    ApiServerRun, ControllerManagerRun, EtcdRun, FrameworkRun, MemberState, ProxyRun, RunSpec,
    SNAPSHOT_FILE,
};

use super::children::{self, Program, Ready};
use super::etcd::{self, Known, Start, Told};
use super::{Error, Sandbox, balancer};
use crate::cluster::prepare::process_files;
use crate::service_account::{self, Account};

/// Beside an API server's own delay: its requests are drained.
const DRAIN: u64 = 15;

/// A program with what it inherits.
fn program(sandbox: &Sandbox, process: &Process) -> Result<Program, Error> {
    Ok(Program {
        name: process.name.clone(),
        path: sandbox.program(&process.program)?,
        args: process.args.iter().map(OsString::from).collect(),
        env: process.env.clone(),
        grace: Duration::from_secs(process.stop_seconds),
        ready: None,
    })
}

/// Writes what processes read.
fn write_files(sandbox: &Sandbox, processes: &[Process]) -> Result<(), Error> {
    packaging::files::make_dir(&sandbox.config_dir(), 0o700)?;
    Ok(process_files(processes)?)
}

async fn stay(programs: Vec<Program>) -> Result<ExitCode, Error> {
    children::run(programs).await.map(ExitCode::from)
}

/// A kubeconfig for a program in the sandbox.
fn kubeconfig(pki: &Pki, cluster: &str, server: String, name: Name, user: &str) -> Kubeconfig {
    Kubeconfig {
        cluster: cluster.to_owned(),
        server,
        server_name: None,
        authority: Source::File(pki.authority_certificate(Authority::Cluster)),
        user: user.to_owned(),
        certificate: Source::File(pki.certificate(name)),
        key: Source::File(pki.key(name)),
    }
}

/// An etcd member.
pub(super) async fn etcd(sandbox: &Sandbox, run: &EtcdRun) -> Result<ExitCode, Error> {
    let data = Path::new(&run.data_dir);
    let data_dir = match data.is_absolute() {
        true => data.to_owned(),
        false => sandbox.dir().join(data),
    };
    let Some(own) = run.members.get(usize::from(run.number)) else {
        return Err(Error::Address(format!("there is no member {}", run.number)));
    };
    let pki = sandbox.pki();
    let found = etcd::look(&data_dir).map_err(|source| Error::Read {
        path: data_dir.clone(),
        source,
    })?;
    let others = match found {
        etcd::Data::Present => Vec::new(),
        etcd::Data::Empty => ask_others(&pki, run).await?,
    };
    let told = match run.state {
        MemberState::New => Told::New {
            until: run.form_until,
        },
        MemberState::Existing => Told::Existing,
        MemberState::Formed => Told::Formed,
        MemberState::Restore => Told::Restore,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let owner = read_optional(&data_dir.join(etcd::OWNER_FILE))?;
    let owner = owner.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let itself = etcd::Member {
        dir: &data_dir,
        data: found,
        owner: owner.as_deref(),
        token: &run.token,
    };
    let start = etcd::decide(itself, told, &others, now)?;
    tracing::info!("etcd: {start:?}");
    let member = Member {
        name: own.name.clone(),
        pki,
        data_dir,
        address: IpAddr::V4(own.address),
        client_port: run.client_port,
        peer_port: run.peer_port,
        metrics_port: run.metrics_port,
        members: run
            .members
            .iter()
            .map(|m| (m.name.clone(), IpAddr::V4(m.address)))
            .collect(),
        beginning: Some(Beginning {
            token: run.token.clone(),
            existing: start == Start::Join,
        }),
        quota_bytes: run.quota_bytes,
        // Marathon's grace counts: it becomes etcd itself.
        stop_seconds: 0,
        extra_args: run.extra_args.clone(),
    };
    if start == Start::Restore {
        restore(sandbox, &member).await?;
    }
    let process = member.process();
    write_files(sandbox, std::slice::from_ref(&process))?;
    if owner.is_none() && start != Start::Restore {
        mark(&member.data_dir, &run.token)?;
    }
    Err(children::become_program(&program(sandbox, &process)?))
}

/// Notes whose a data directory is.
fn mark(dir: &Path, token: &str) -> Result<(), Error> {
    let path = dir.join(etcd::OWNER_FILE);
    Ok(write_atomic(&path, token.as_bytes(), SECRET)?)
}

/// Makes the data directory from the fetched snapshot. It appears by one rename, so a restore that
/// is killed begins anew.
async fn restore(sandbox: &Sandbox, member: &Member) -> Result<(), Error> {
    let snapshot = sandbox.dir().join(SNAPSHOT_FILE);
    let mut half = member.data_dir.clone().into_os_string();
    half.push(".restoring");
    let half = std::path::PathBuf::from(half);
    let io = |source| Error::Read {
        path: half.clone(),
        source,
    };
    match std::fs::remove_dir_all(&half) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let cluster: Vec<String> = member
        .members
        .iter()
        .map(|(name, a)| format!("{name}={}", Member::peer_url(*a, member.peer_port)))
        .collect();
    let token = member.beginning.as_ref().map_or("", |b| b.token.as_str());
    let output = tokio::process::Command::new(sandbox.program("etcdutl")?)
        .arg("snapshot")
        .arg("restore")
        .arg(&snapshot)
        .arg(format!("--data-dir={}", half.display()))
        .arg(format!("--name={}", member.name))
        .arg(format!("--initial-cluster={}", cluster.join(",")))
        .arg(format!("--initial-cluster-token={token}"))
        .arg(format!(
            "--initial-advertise-peer-urls={}",
            Member::peer_url(member.address, member.peer_port)
        ))
        .kill_on_drop(true)
        .output()
        .await
        .map_err(io)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let end: Vec<&str> = text.lines().rev().take(5).collect();
        return Err(Error::Failed {
            program: "etcdutl snapshot restore".to_owned(),
            status: output.status.to_string(),
            output: end.into_iter().rev().collect::<Vec<_>>().join("; "),
        });
    }
    mark(&half, token)?;
    // What is there is empty of members, as was looked at before.
    match std::fs::remove_dir_all(&member.data_dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    std::fs::rename(&half, &member.data_dir).map_err(io)
}

/// What the other members say about this one.
async fn ask_others(pki: &Pki, run: &EtcdRun) -> Result<Vec<Known>, Error> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let own = &run.members[usize::from(run.number)];
    let urls = vec![Member::peer_url(IpAddr::V4(own.address), run.peer_port)];
    let client = crate::http::client_with_identity(
        &pki.authority_certificate(Authority::Etcd),
        &pki.certificate(Name::EtcdPeer),
        &pki.key(Name::EtcdPeer),
        PATIENCE,
    )?;
    let others = run.members.iter().filter(|m| m.name != own.name);
    let asks = others.map(|other| {
        let url = Member::peer_url(IpAddr::V4(other.address), run.peer_port);
        let request = client.get(format!("{url}/members"));
        let urls = &urls;
        async move {
            let Ok(answer) = request.send().await else {
                return Known::Silent;
            };
            match answer.json::<serde_json::Value>().await {
                Ok(members) => etcd::known(&members, urls),
                Err(_) => Known::Silent,
            }
        }
    });
    Ok(futures::future::join_all(asks).await)
}

/// An API server with its konnectivity server.
pub(super) async fn api_server(sandbox: &Sandbox, run: &ApiServerRun) -> Result<ExitCode, Error> {
    let pki = sandbox.pki();
    let config_dir = sandbox.config_dir();
    let socket = sandbox.socket("konnectivity.sock");
    let authority = pki.authority_certificate(Authority::Cluster);
    let local = format!("https://127.0.0.1:{}", run.port);
    let reviewer = kubeconfig(
        &pki,
        "kubernetes",
        local,
        Name::KonnectivityClient,
        KONNECTIVITY_USER,
    );
    let konnectivity = Konnectivity {
        pki: pki.clone(),
        kubeconfig: kubeconfig_file(&config_dir, &reviewer, Name::KonnectivityClient),
        socket: socket.clone(),
        agent_port: run.konnectivity.agent,
        admin_port: run.konnectivity.admin,
        health_port: run.konnectivity.health,
        servers: run.instances,
        extra_args: run.konnectivity_extra_args.clone(),
    }
    .process();
    let server = ApiServer {
        encryption_config: sandbox.pki_dir().join(ENCRYPTION_FILE),
        pki,
        config_dir,
        konnectivity_socket: socket,
        advertise: sandbox.address()?,
        port: run.port,
        etcd: run.etcd.clone(),
        service_cidr: run.service_cidr.parse()?,
        node_ports: run.node_port_range.clone(),
        dns_domain: run.dns_domain.clone(),
        shutdown_delay: run.shutdown_delay,
        stop_seconds: u64::from(run.shutdown_delay) + DRAIN,
        admission_plugins: run.admission_plugins.clone(),
        feature_gates: run.feature_gates.clone(),
        oidc: run.oidc.clone(),
        audit: run
            .audit
            .clone()
            .map(|audit| (audit, sandbox.dir().join("audit.log"))),
        extra_args: run.extra_args.clone(),
    }
    .process();
    // In this order: the API server ends first, and needs the other until then.
    let processes = [konnectivity, server];
    write_files(sandbox, &processes)?;
    let programs: Result<Vec<_>, _> = processes.iter().map(|p| program(sandbox, p)).collect();
    let mut programs = programs?;
    if let Some(server) = programs.last_mut() {
        server.ready = Some(Ready {
            url: format!("https://127.0.0.1:{}/readyz", run.port),
            authority: Some(authority),
        });
    }
    stay(programs).await
}

/// A controller manager, with a balancer to the API servers.
pub(super) async fn controller_manager(
    sandbox: &Sandbox,
    cluster: &str,
    run: &ControllerManagerRun,
) -> Result<ExitCode, Error> {
    let pki = sandbox.pki();
    let server = balancer::start(run.api_servers.clone())
        .await
        .map_err(Error::Balancer)?;
    let own = kubeconfig(
        &pki,
        cluster,
        format!("https://{server}"),
        Name::ControllerManager,
        CONTROLLER_MANAGER_USER,
    );
    let process = ControllerManager {
        cluster: cluster.to_owned(),
        kubeconfig: kubeconfig_file(&sandbox.config_dir(), &own, Name::ControllerManager),
        pki,
        port: run.port,
        elect: run.instances > 1,
        pod_cidr: run.pod_cidr.parse()?,
        service_cidr: run.service_cidr.parse()?,
        stop_seconds: 10,
        feature_gates: run.feature_gates.clone(),
        extra_args: run.extra_args.clone(),
    }
    .process();
    write_files(sandbox, std::slice::from_ref(&process))?;
    stay(vec![program(sandbox, &process)?]).await
}

/// What Mesos knows the framework by.
pub(crate) enum MesosSecret {
    /// The principal's password, or DC/OS' service account.
    Text(String),
    /// A file with a token of DC/OS, which somebody keeps good.
    Token(PathBuf),
}

impl MesosSecret {
    /// The framework's flag for it, and the file.
    async fn into_file(self, sandbox: &Sandbox) -> Result<(&'static str, PathBuf), Error> {
        let text = match self {
            Self::Token(path) => return Ok(("token-file", path)),
            Self::Text(text) => text,
        };
        let path = sandbox.pki_dir().join("mesos-secret");
        let Some(account) = Account::parse(&text) else {
            write_atomic(&path, text.as_bytes(), SECRET)?;
            return Ok(("secret-file", path));
        };
        let account = account.map_err(Error::Account)?;
        let kept = service_account::keep(account, path.clone()).await;
        kept.map_err(Error::Account)?;
        Ok(("token-file", path))
    }
}

/// The framework, with a balancer to the API servers.
pub(crate) async fn framework(
    sandbox: &Sandbox,
    spec: &RunSpec,
    run: &FrameworkRun,
    secret: Option<MesosSecret>,
) -> Result<ExitCode, Error> {
    let pki = sandbox.pki();
    let server = balancer::start(run.api_servers.clone())
        .await
        .map_err(Error::Balancer)?;
    let own = kubeconfig(
        &pki,
        &spec.cluster,
        format!("https://{server}"),
        Name::Framework,
        FRAMEWORK_USER,
    );
    let file = kubeconfig_file(&sandbox.config_dir(), &own, Name::Framework);
    packaging::files::make_dir(&sandbox.config_dir(), 0o700)?;
    write_atomic(&file.path, file.content.as_bytes(), file.mode)?;
    let mut args: Vec<OsString> = run.args.iter().map(OsString::from).collect();
    // Those of the kubeconfig are this task's own.
    args.extend(
        run.api_servers
            .iter()
            .map(|s| format!("--api-server={s}").into()),
    );
    args.push(format!("--kubeconfig={}", file.path.display()).into());
    args.push(format!("--listen=0.0.0.0:{}", run.port).into());
    args.push(format!("--advertise={}:{}", sandbox.address()?, run.port).into());
    if let Some(secret) = secret {
        let (flag, path) = secret.into_file(sandbox).await?;
        args.push(format!("--{flag}={}", path.display()).into());
    }
    stay(vec![Program {
        name: "k8sm-framework".to_owned(),
        path: sandbox.program("k8sm-framework")?,
        args,
        env: vec![("RUST_LOG".to_owned(), spec.log_level.clone())],
        grace: Duration::from_secs(10),
        ready: None,
    }])
    .await
}

/// A front door.
pub(super) fn proxy(sandbox: &Sandbox, spec: &RunSpec, run: &ProxyRun) -> Result<ExitCode, Error> {
    let pki = sandbox.pki();
    let mut args: Vec<String> = vec![
        format!("--listen=0.0.0.0:{}", run.port),
        format!("--http-listen=0.0.0.0:{}", run.http_port),
        format!("--status-listen=0.0.0.0:{}", run.metrics_port),
        format!("--max-connections={}", run.max_connections),
        format!(
            "--ca-file={}",
            pki.authority_certificate(Authority::Cluster).display()
        ),
    ];
    args.extend(run.api_servers.iter().map(|s| format!("--backend={s}")));
    if let Some(port) = run.legacy_port {
        args.extend([
            format!("--legacy-listen=127.0.0.1:{port}"),
            format!(
                "--legacy-certificate={}",
                pki.certificate(Name::LegacyApi).display()
            ),
            format!("--legacy-key={}", pki.key(Name::LegacyApi).display()),
        ]);
    }
    args.extend(run.extra_args.iter().cloned());
    Err(children::become_program(&Program {
        name: "k8sm-proxy".to_owned(),
        path: sandbox.program("k8sm-proxy")?,
        args: args.into_iter().map(OsString::from).collect(),
        env: vec![("RUST_LOG".to_owned(), spec.log_level.clone())],
        grace: Duration::ZERO,
        ready: None,
    }))
}
