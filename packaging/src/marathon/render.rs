//! Options and facts -> apps. Pure: no clock, no chance, no disk, and maps in order, so that the
//! same inputs give the same bytes.

use std::collections::BTreeMap;

use super::app::{
    App, AppId, Container, Containerizer, EnvValue, Fetch, Image, PortDefinition, SecretSource,
    UnreachableStrategy, UpgradeStrategy, Volume, VolumeMode,
};
use super::parts::literal;
use super::{Facts, PkiDelivery, framework, parts};
use crate::install::INSTALL_LABEL;
use crate::options::{Format, Options};
use crate::pki::Component;
use crate::run::{
    FrameworkRun, PKI_ENV, PKI_FILE, PKI_FILE_ENV, RUN_ENV, RUN_VERSION, Run, RunSpec,
};

/// Label of every app: which component it is.
pub const COMPONENT_LABEL: &str = "K8SM_COMPONENT";
/// Label of every app: version of our programs.
pub const VERSION_LABEL: &str = "K8SM_VERSION";
/// Label of every app: version of Kubernetes.
pub const KUBERNETES_LABEL: &str = "K8SM_KUBERNETES_VERSION";
/// Label of apps whose keys are secrets that k8sm stores: their SHA-256.
pub const PKI_LABEL: &str = "K8SM_PKI_SHA256";
/// Oldest Marathon: before it, apps are written down in another way and lose volumes.
const OLDEST_MARATHON: (u32, u32) = (1, 5);
/// The first Marathon whose apps have a role.
pub(super) const APPS_WITH_ROLES: (u32, u32) = (1, 9);

/// Why nothing can be rendered. None of it is mended by a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(crate::options::Problems),
    /// The Marathon is too old.
    #[error("Marathon {}.{} is too old: {}.{} or later is needed", found.0, found.1, OLDEST_MARATHON.0, OLDEST_MARATHON.1)]
    Marathon {
        /// Its version.
        found: (u32, u32),
    },
    /// An option needs a later Marathon.
    #[error("{option} needs Marathon {}.{} or later, this is {}.{}; leave it empty", needs.0, needs.1, found.0, found.1)]
    Later {
        /// Which.
        option: &'static str,
        /// From when on.
        needs: (u32, u32),
        /// What is there.
        found: (u32, u32),
    },
    /// A DC/OS package without ports.
    #[error(
        "marathon.require_ports=false does not go with a DC/OS package: its admin router finds the framework by its port"
    )]
    OneApp,
    /// A choice of the pre-flight's is missing.
    #[error("{what}: {wanted} needed, {found} chosen; {remedy}")]
    Hosts {
        /// For what.
        what: &'static str,
        /// How many.
        wanted: usize,
        /// How many.
        found: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A program or the payload has no place from where it can be fetched.
    #[error(
        "nobody said where `{0}` can be fetched: build the directory with `k8sm artifacts build` and set artifacts.base_url, or install with --serve"
    )]
    Artifact(String),
    /// A component's keys are missing.
    #[error("there are no keys for {0}; make them with `k8sm certs` or choose another pki.source")]
    Keys(Component),
    /// The installation's id is not usable in a path, a label and a flag.
    #[error("`{0}` is no installation id: lower-case letters, digits and - are allowed")]
    InstallId(String),
    /// Nobody knows the Mesos masters, or their address holds a password, which everybody would
    /// see among the app's arguments. The address is not shown for that reason.
    #[error(
        "the address of the Mesos masters is missing, not understood, or holds a password; set mesos.master, with a password to a file on the agents that holds the address"
    )]
    Master,
    /// A name that Marathon would refuse; the options' own checks come before.
    #[error(transparent)]
    AppId(#[from] super::BadAppId),
}

/// The apps in the order in which they are started: etcd, API servers, controller managers,
/// framework, front door.
pub fn render(options: &Options, facts: &Facts) -> Result<Vec<App>, RenderError> {
    check(options, facts)?;
    let cluster = Cluster { options, facts };
    let mut apps = Vec::new();
    for number in 0..cluster.members() {
        apps.push(parts::etcd(&cluster, number)?);
    }
    apps.push(parts::api_server(&cluster)?);
    apps.push(parts::controller_manager(&cluster)?);
    apps.push(framework::app(&cluster)?);
    if options.proxy.enabled {
        apps.push(parts::proxy(&cluster)?);
    }
    Ok(apps)
}

/// What the framework's task does, for a package's app, which is told the options only and learns
/// the rest when it runs.
pub fn framework_run(options: &Options, facts: &Facts) -> Result<FrameworkRun, RenderError> {
    check(options, facts)?;
    framework::run(&Cluster { options, facts })
}

fn check(options: &Options, facts: &Facts) -> Result<(), RenderError> {
    let problems = options.validate();
    if !problems.is_empty() {
        return Err(RenderError::Options(crate::options::Problems(problems)));
    }
    let found = facts.marathon_version;
    if found < OLDEST_MARATHON {
        return Err(RenderError::Marathon { found });
    }
    if !options.marathon.role.is_empty() && found < APPS_WITH_ROLES {
        return Err(RenderError::Later {
            option: "marathon.role",
            needs: APPS_WITH_ROLES,
            found,
        });
    }
    if facts.one_app && !options.marathon.require_ports {
        return Err(RenderError::OneApp);
    }
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let id = &facts.install_id;
    if id.is_empty() || id.len() > 63 || !id.bytes().all(good) {
        return Err(RenderError::InstallId(id.clone()));
    }
    if options.mesos.master.is_empty() && !Format::MesosMaster.matches(&facts.mesos_master) {
        return Err(RenderError::Master);
    }
    let wanted = usize::from(Cluster { options, facts }.members());
    if facts.etcd_hosts.len() != wanted {
        return Err(RenderError::Hosts {
            what: "agents for etcd",
            wanted,
            found: facts.etcd_hosts.len(),
            remedy: "set etcd.count to what the cluster has room for, or name the agents in etcd.agents",
        });
    }
    let wanted = usize::try_from(options.apiserver.instances).unwrap_or(usize::MAX);
    if facts.api_hosts.len() < wanted {
        return Err(RenderError::Hosts {
            what: "agents for API servers",
            wanted,
            found: facts.api_hosts.len(),
            remedy: "lower apiserver.instances, or loosen apiserver.constraints",
        });
    }
    Ok(())
}

/// Path of a component's app.
pub fn app_id(cluster: &str, component: Component) -> Result<AppId, super::BadAppId> {
    AppId::new(match component {
        Component::Framework => format!("/{cluster}"),
        other => format!("/{cluster}-cp/{other}"),
    })
}

/// The secret with a component's keys, below a path of the store; with an empty one below the folder
/// of the component's app, which is where DC/OS lets that app use it.
pub fn pki_secret(path: &str, cluster: &str, component: Component) -> String {
    match (path, component) {
        ("", Component::Framework) => format!("{cluster}/pki-{component}"),
        ("", _) => format!("{cluster}-cp/pki-{component}"),
        (path, _) => format!("{path}/pki-{component}"),
    }
}

/// Programs that a component's task needs besides `k8sm`, by file name.
pub fn programs(component: Component) -> &'static [&'static str] {
    match component {
        Component::Etcd(_) => &["etcd", "etcdctl", "etcdutl"],
        Component::ApiServer => &["kube-apiserver", "proxy-server"],
        Component::ControllerManager => &["kube-controller-manager"],
        Component::Proxy => &["k8sm-proxy"],
        Component::Framework => &["k8sm-framework"],
    }
}

/// User of the apps' images, by the name that agents know (65534 in `docker/images.yaml`).
const IMAGE_USER: &str = "nobody";

/// Name of a component's image, without registry and tag.
pub fn image_name(component: Component) -> &'static str {
    match component {
        Component::Etcd(_) | Component::ApiServer | Component::ControllerManager => {
            "k8sm-control-plane"
        }
        Component::Proxy => "k8sm-proxy",
        Component::Framework => "k8sm-framework",
    }
}

/// A component's image: `registry.example.org/k8sm/k8sm-proxy:0.1.0`.
pub fn image(options: &Options, version: &str, component: Component) -> String {
    image_called(options, version, image_name(component))
}

/// The image of this name in the operator's repository.
pub(super) fn image_called(options: &Options, version: &str, name: &str) -> String {
    let images = &options.images;
    let tag = match images.tag.as_str() {
        "" => version,
        tag => tag,
    };
    let repository = images.repository.trim_end_matches('/');
    format!("{repository}/{name}:{tag}")
}

/// Who runs the images; none where apps are plain artifacts.
pub fn containerizer(options: &Options) -> Option<Containerizer> {
    match options.images.runtime.as_str() {
        "mesos_image" => Some(Containerizer::Mesos),
        "docker" => Some(Containerizer::Docker),
        _ => None,
    }
}

/// What every app is made of.
pub(super) struct Cluster<'a> {
    pub options: &'a Options,
    pub facts: &'a Facts,
}

impl Cluster<'_> {
    /// Members of etcd that are apps of ours.
    pub fn members(&self) -> u8 {
        match self.facts.etcd_storage {
            super::EtcdStorage::External => 0,
            _ => u8::try_from(self.options.etcd.count).unwrap_or(u8::MAX),
        }
    }

    pub fn id(&self, component: Component) -> Result<AppId, RenderError> {
        Ok(app_id(&self.options.service.name, component)?)
    }

    /// Where API servers may be, `address:port`.
    pub fn api_servers(&self) -> Vec<String> {
        let port = self.options.apiserver.port;
        self.facts
            .api_hosts
            .iter()
            .map(|host| format!("{}:{port}", host.address))
            .collect()
    }

    /// An app with everything that all have: programs, configuration, keys, labels.
    pub fn app(&self, component: Component, run: Run, size: Size) -> Result<App, RenderError> {
        let options = self.options;
        let mut app = self.frame(component, size)?;
        let mut digests = BTreeMap::new();
        self.command(&mut app, component, &run, &mut digests)?;
        let spec = RunSpec {
            version: RUN_VERSION,
            cluster: options.service.name.clone(),
            install: self.facts.install_id.clone(),
            log_level: options.service.log_level.clone(),
            programs: digests,
            run,
        };
        app.env.insert(RUN_ENV.to_owned(), spec.to_json().into());
        self.keys(&mut app, component)?;
        app.labels
            .insert(INSTALL_LABEL.to_owned(), self.facts.install_id.clone());
        Ok(app)
    }

    /// An app with what all have besides their programs and keys.
    pub fn frame(&self, component: Component, size: Size) -> Result<App, RenderError> {
        let options = self.options;
        let mut app = App::new(
            self.id(component)?,
            size.cpus,
            size.mem.into(),
            size.disk.into(),
        );
        app.user = some(&options.service.user);
        app.role = some(&options.marathon.role);
        let roles = &options.marathon.resource_roles;
        app.accepted_resource_roles = (!roles.is_empty()).then(|| roles.clone());
        app.labels = [
            (COMPONENT_LABEL, component.to_string()),
            (VERSION_LABEL, self.facts.version.clone()),
            (KUBERNETES_LABEL, self.facts.kubernetes_version.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        app.backoff_seconds = Some(options.marathon.backoff);
        app.backoff_factor = Some(2.0);
        app.max_launch_delay_seconds = Some(
            options
                .marathon
                .max_launch_delay
                .max(options.marathon.backoff),
        );
        // A lost one is replaced at once: whoever comes back finds its ports taken or the
        // election lost, and Mesos ends it.
        app.unreachable_strategy = Some(UnreachableStrategy::After {
            inactive_after_seconds: 0,
            expunge_after_seconds: 0,
        });
        Ok(app)
    }

    fn command(
        &self,
        app: &mut App,
        component: Component,
        run: &Run,
        digests: &mut BTreeMap<String, String>,
    ) -> Result<(), RenderError> {
        let Some(kind) = containerizer(self.options) else {
            self.fetch(app, "k8sm", true)?;
            for program in programs(component) {
                self.fetch(app, program, true)?;
                digests.insert(
                    (*program).to_owned(),
                    self.artifact(program)?.sha256.clone(),
                );
            }
            app.cmd = Some(format!("exec ./k8sm run {}", run.component()));
            return Ok(());
        };
        if kind == Containerizer::Docker {
            // Docker runs the image's user, Mesos gives the sandbox to the app's: the same one.
            app.user.get_or_insert_with(|| IMAGE_USER.to_owned());
        }
        app.args = Some(vec!["run".to_owned(), run.component().to_owned()]);
        app.container = Some(Container {
            kind,
            docker: Some(Image {
                image: image(self.options, &self.facts.version, component),
                force_pull_image: self.options.images.force_pull,
            }),
            volumes: Vec::new(),
        });
        Ok(())
    }

    /// A file that agents fetch.
    pub fn artifact(&self, name: &str) -> Result<&super::Artifact, RenderError> {
        self.facts
            .artifacts
            .get(name)
            .ok_or_else(|| RenderError::Artifact(name.to_owned()))
    }

    /// Adds a file to what an app fetches.
    pub fn fetch(&self, app: &mut App, name: &str, executable: bool) -> Result<(), RenderError> {
        app.fetch.push(Fetch {
            uri: self.artifact(name)?.uri.clone(),
            extract: false,
            executable,
            // A file of the agent's is copied in any case.
            cache: self.options.artifacts.cache && self.facts.kept.is_none(),
            dest_path: Some(name.to_owned()),
        });
        Ok(())
    }

    /// Constraints of an app: `own` ones, the operator's, and that its agent has the artifacts.
    pub fn constraints(&self, own: Vec<Vec<String>>, given: &[Vec<String>]) -> Vec<Vec<String>> {
        let mut all = constraints(own, given);
        if let Some(kept) = &self.facts.kept {
            let hosts: Vec<String> = kept.agents.iter().map(|host| literal(host)).collect();
            let row = ["hostname", "LIKE", &hosts.join("|")].map(str::to_owned);
            all = constraints(all, &[row.into()]);
        }
        all
    }

    /// How the app gets its keys.
    fn keys(&self, app: &mut App, component: Component) -> Result<(), RenderError> {
        match &self.facts.pki {
            PkiDelivery::Secrets { path, digests } => {
                let source = pki_secret(path, &self.options.service.name, component);
                self.secret(app, PKI_ENV, "pki", &source);
                if let Some(digest) = digests.get(&component) {
                    app.labels.insert(PKI_LABEL.to_owned(), digest.clone());
                }
            }
            PkiDelivery::Env { bundles } => {
                let bundle = bundles
                    .get(&component)
                    .ok_or(RenderError::Keys(component))?;
                app.env
                    .insert(PKI_ENV.to_owned(), EnvValue::Plain(bundle.clone()));
            }
            PkiDelivery::Uri { base } => app.fetch.push(Fetch {
                uri: format!("{}/{component}.json", base.trim_end_matches('/')),
                extract: false,
                executable: false,
                // Keys do not stay on an agent longer than the task.
                cache: false,
                dest_path: Some(PKI_FILE.to_owned()),
            }),
            PkiDelivery::File { directory } => {
                let file = format!("{}/{component}.json", directory.trim_end_matches('/'));
                if let Some(container) = &mut app.container {
                    // This one file, not its neighbours.
                    container.volumes.push(Volume {
                        container_path: file.clone(),
                        host_path: Some(file.clone()),
                        persistent: None,
                        mode: VolumeMode::Ro,
                    });
                }
                app.env.insert(PKI_FILE_ENV.to_owned(), file.into());
            }
        }
        Ok(())
    }

    /// A variable that is a secret of the store's.
    pub fn secret(&self, app: &mut App, variable: &str, key: &str, source: &str) {
        app.env.insert(
            variable.to_owned(),
            EnvValue::Secret {
                secret: key.to_owned(),
            },
        );
        app.secrets.insert(
            key.to_owned(),
            SecretSource {
                source: source.to_owned(),
            },
        );
    }

    /// Takes ports from what agents offer, unless that is not wanted.
    pub fn ports(&self, app: &mut App, ports: &[(&str, u16)]) {
        let required = self.options.marathon.require_ports;
        let definitions = ports.iter().map(|(name, port)| PortDefinition {
            port: *port,
            name: Some((*name).to_owned()),
            protocol: "tcp".to_owned(),
            labels: BTreeMap::new(),
        });
        app.require_ports = required;
        app.port_definitions = Some(definitions.take_while(|_| required).collect());
    }
}

/// Constraints of ours and the operator's, each once.
pub(super) fn constraints(own: Vec<Vec<String>>, given: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut all = own;
    for row in given {
        if !all.contains(row) {
            all.push(row.clone());
        }
    }
    all
}

/// A task's size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub cpus: f64,
    pub mem: u32,
    pub disk: u32,
}

/// `None` for the empty text.
pub(super) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// One task at a time is replaced, and never is there one more than wanted: ports are fixed.
pub(super) fn one_at_a_time(instances: u32) -> UpgradeStrategy {
    // Marathon rounds the number of tasks that stay up: so a share below (n-1)/n, never above,
    // or no task could be replaced.
    let hundredths = u32::saturating_sub(instances, 1) * 100 / instances.max(1);
    UpgradeStrategy {
        minimum_health_capacity: f64::from(hundredths) / 100.0,
        maximum_over_capacity: 0.0,
    }
}
