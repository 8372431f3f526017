//! Options about the service as a whole, Mesos, Marathon, the framework, and where programs come
//! from.

use crate::options::format::Format;
use crate::options::group::group;

group! {
    /// The service as a whole.
    Service {
        /// Name of the cluster, of the Mesos framework and of the Marathon app. Its other apps are
        /// below `/<name>-cp`.
        name: String = "kubernetes".to_owned(), [format(Format::Name), longest(32), fixed()];
        /// User of the control plane's tasks; empty: Marathon's default user. Nodes run as root
        /// whatever is said here.
        user: String = String::new(), [optional(), longest(32)];
        /// Mesos principal of the framework; empty: it does not authenticate. Under DC/OS, the
        /// service account.
        principal: String = String::new(), [optional(), longest(128), fixed()];
        /// Secret with the principal's credential (under DC/OS, the service account's), by its path
        /// in the secret store. Needs a Marathon with secrets.
        secret_name: String = String::new(), [optional(), format(Format::SecretPath)];
        /// File with the principal's secret on the agents, for clusters without a secret store.
        secret_file: String = String::new(), [optional(), format(Format::Path)];
        /// Mesos role in which the framework gets its resources; `*` is the role that all share.
        role: String = "*".to_owned(), [format(Format::Role)];
        /// What the programs of this project log.
        log_level: String = "info".to_owned(), [one_of(&["error", "warn", "info", "debug", "trace"])];
        /// Marathon constraints of the framework's app, for instance
        /// `[["rack", "LIKE", "r1|r2"]]`.
        constraints: Vec<Vec<String>> = Vec::new(), [longest(16)];
    }
}

group! {
    /// The Mesos cluster.
    Mesos {
        /// The masters: `zk://host1:2181,host2:2181/mesos`, `http://host:5050` or `host:5050`;
        /// empty: those that Marathon uses.
        master: String = String::new(), [optional(), format(Format::MesosMaster)];
        /// How long Mesos keeps pods running while the framework is away.
        failover_timeout: u32 = 604_800, [range(60, 31_536_000), unit("seconds")];
        /// File on the agents with the certificates (PEM) of the authorities that signed the
        /// masters' certificates; empty: those of the operating system.
        ca_file: String = String::new(), [optional(), format(Format::Path), advanced()];
        /// Address of a page about this framework that Mesos shows; empty: none.
        web_uri: String = String::new(), [optional(), format(Format::HttpUrl), advanced()];
        /// How long Mesos keeps back an offer that no waiting pod could use.
        refuse_seconds: f64 = 10.0, [fractions(1.0, 3600.0), unit("seconds"), advanced()];
    }
}

group! {
    /// Marathon.
    Marathon {
        /// Where the framework finds Marathon when it brings up the control plane itself, as it
        /// does when it is installed as a DC/OS package.
        url: String = "http://marathon.mesos:8080".to_owned(), [format(Format::HttpUrl)];
        /// File on the agents with the certificates (PEM) of the authorities that signed Marathon's
        /// certificate; empty: those of the operating system.
        ca_file: String = String::new(), [optional(), format(Format::Path), advanced()];
        /// Mesos role of the apps (Marathon 1.9 and later); empty: Marathon's default.
        role: String = String::new(), [optional(), format(Format::Role), advanced()];
        /// Mesos roles whose resources the apps may use; empty: Marathon's default.
        resource_roles: Vec<String> = Vec::new(), [format(Format::Role), longest(8)];
        /// Whether the apps take their ports from what agents offer. An agent that offers none of
        /// them never gets such an app; with `false` the programs listen on them all the same, and
        /// nothing but the constraints keeps others away.
        require_ports: bool = true, [advanced()];
        /// First delay before a failed task is started again; it doubles up to
        /// `marathon.max_launch_delay`.
        backoff: u32 = 1, [range(1, 600), unit("seconds"), advanced()];
        /// Longest delay before a failed task is started again.
        max_launch_delay: u32 = 30, [range(1, 3600), unit("seconds"), advanced()];
    }
}

group! {
    /// The framework: places pods on offers.
    Framework {
        /// CPUs of its app.
        cpus: f64 = 0.5, [fractions(0.1, 64.0), unit("CPUs")];
        /// Memory of its app.
        mem: u32 = 512, [range(64, 1_048_576), unit("MiB")];
        /// Disk of its app's sandbox; it keeps the programs that nodes fetch there.
        disk: u32 = 2048, [range(64, 1_048_576), unit("MiB")];
        /// Its port for health, metrics and the files that nodes fetch.
        port: u16 = 10251, [port()];
        /// Mesos roles besides `service.role` in which pods may get resources; a pod asks for them
        /// with the annotation `k8s.mesosphere.io/roles`.
        roles: Vec<String> = Vec::new(), [format(Format::Role), longest(8)];
        /// Name of the scheduler that it is for pods (`spec.schedulerName`).
        scheduler_name: String = "default-scheduler".to_owned(), [format(Format::Domain), advanced()];
        /// Further arguments of `k8sm-framework`; they go over those that come from other options.
        extra_args: Vec<String> = Vec::new(), [format(Format::Flag), advanced()];
    }
}

group! {
    /// How the programs reach the agents.
    Images {
        /// `artifacts`: plain files that Mesos fetches; `mesos_image`: images, run by Mesos itself;
        /// `docker`: images, run by the agents' Docker.
        runtime: String = "artifacts".to_owned(), [one_of(&["artifacts", "mesos_image", "docker"])];
        /// `artifact`: nodes' executor is a file that Mesos fetches; `image`: new nodes are started
        /// from the executor's image, by Mesos itself (agents need `--image_providers=docker`).
        executor: String = "artifact".to_owned(), [one_of(&["artifact", "image"])];
        /// Registry, and path in it, of the images: `registry.example.org/k8sm`. Needed for
        /// `mesos_image`, `docker` and `image`.
        repository: String = String::new(), [optional(), longest(255)];
        /// Tag of the images; empty: this version's.
        tag: String = String::new(), [optional(), longest(128)];
        /// Whether an image is pulled although the agent has one of its name.
        force_pull: bool = false, [advanced()];
    }
}

group! {
    /// Files that Mesos fetches.
    Artifacts {
        /// Where they are: the directory that `k8sm artifacts build` wrote, as the agents reach it.
        /// Empty: `k8sm install --serve` brings them to the agents.
        base_url: String = String::new(), [optional(), format(Format::FetchUri)];
        /// Where agents keep what `k8sm install --serve` and `k8sm upgrade --serve` bring them, in a
        /// directory of the cluster's below it, so that nobody has to serve it later. Empty: they
        /// keep nothing but Mesos' fetcher cache. The DC/OS package does not use it.
        agent_dir: String = "/var/lib/k8sm-artifacts".to_owned(),
            [optional(), format(Format::PlainPath), fixed()];
        /// Whether agents keep them in Mesos' fetcher cache.
        cache: bool = true, [advanced()];
    }
}
