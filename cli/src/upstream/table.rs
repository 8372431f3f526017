//! Which components there are, from which module each comes and how it is built.

use std::sync::LazyLock;

/// Linker flags' place holder for the version in `go.mod`, with its `v`.
const KUBERNETES_FLAGS: &str = "-X k8s.io/component-base/version.gitVersion={version} \
    -X k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor} \
    -X k8s.io/component-base/version.gitTreeState=clean -X k8s.io/component-base/version.gitCommit=unknown \
    -X k8s.io/component-base/version.buildDate=1970-01-01T00:00:00Z";
const CONTAINERD_FLAGS: &str = "-X github.com/containerd/containerd/v2/version.Version={version} \
    -X github.com/containerd/containerd/v2/version.Package=github.com/containerd/containerd/v2";
const CNI_FLAGS: &str =
    "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion={version}";

/// A project: one module file, several programs.
#[derive(Debug, Clone, Copy)]
pub struct Project {
    /// Its folder below `docker/upstream`.
    pub name: &'static str,
    /// The module whose version is the project's.
    pub module: &'static str,
    /// `go.mod`, pinned.
    pub go_mod: &'static str,
    /// `go.sum`, the checksums.
    pub go_sum: &'static str,
}

macro_rules! project {
    ($name:literal, $module:literal) => {
        Project {
            name: $name,
            module: $module,
            go_mod: include_str!(concat!("../../../docker/upstream/", $name, "/go.mod")),
            go_sum: include_str!(concat!("../../../docker/upstream/", $name, "/go.sum")),
        }
    };
}

const KUBERNETES: Project = project!("kubernetes", "k8s.io/kubernetes");
const ETCD: Project = project!("etcd", "go.etcd.io/etcd/server/v3");
const CONTAINERD: Project = project!("containerd", "github.com/containerd/containerd/v2");
const RUNC: Project = project!("runc", "github.com/opencontainers/runc");
const CNI: Project = project!("cni", "github.com/containernetworking/plugins");
const COREDNS: Project = project!("coredns", "github.com/coredns/coredns");
const KONNECTIVITY: Project = project!("konnectivity", "sigs.k8s.io/apiserver-network-proxy");
/// The minor version of Kubernetes before, with an etcd and a containerd of its time: what the
/// test of an upgrade begins with.
const KUBERNETES_PREVIOUS: Project = project!("kubernetes-previous", "k8s.io/kubernetes");
const ETCD_PREVIOUS: Project = project!("etcd-previous", "go.etcd.io/etcd/server/v3");
const CONTAINERD_PREVIOUS: Project =
    project!("containerd-previous", "github.com/containerd/containerd/v2");

impl Project {
    /// The pinned version, for instance `v1.37.1`; `None` when the module file does not name the
    /// module, which a test rules out.
    pub fn version(&self) -> Option<&'static str> {
        self.go_mod.lines().find_map(|line| {
            let line = line.trim().trim_start_matches("require ").trim();
            line.strip_prefix(self.module)?
                .strip_prefix(' ')?
                .split_whitespace()
                .next()
        })
    }

    /// The oldest Go that builds it, as its module file says: `1.26.0`.
    pub fn go(&self) -> &'static str {
        let mut lines = self.go_mod.lines();
        lines
            .find_map(|line| line.strip_prefix("go "))
            .unwrap_or("1")
    }
}

/// Which components a command wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Set {
    /// What a cluster needs.
    Cluster,
    /// Also what only benchmarks need (kube-scheduler).
    All,
    /// What a cluster needed a minor version of Kubernetes earlier: for tests of upgrades.
    Previous,
}

/// A program that is built.
#[derive(Debug, Clone, Copy)]
pub struct Component {
    /// Name of the program and of its file.
    pub name: &'static str,
    /// The project it belongs to.
    pub project: Project,
    /// The Go package.
    pub package: &'static str,
    /// Linker flags beside `-s -w`; `{version}`, `{major}`, `{minor}` and `{bare}` (no `v`) are
    /// filled in.
    pub ldflags: &'static str,
    /// Build tags.
    pub tags: &'static str,
    /// Whether it needs C (and then links statically against Debian's `libseccomp-dev`).
    pub cgo: bool,
    /// Arguments that make it print its version; `None` where it has no such argument.
    pub version_args: Option<&'static [&'static str]>,
    /// Seconds that it took from cold caches on two cores, for the progress bar.
    pub seconds: u32,
    /// The smallest set that holds it.
    pub set: Set,
}

const fn component(
    name: &'static str,
    project: Project,
    package: &'static str,
    version_args: Option<&'static [&'static str]>,
    seconds: u32,
) -> Component {
    Component {
        name,
        project,
        package,
        ldflags: "",
        tags: "",
        cgo: false,
        version_args,
        seconds,
        set: Set::Cluster,
    }
}

const fn kubernetes(name: &'static str, package: &'static str, seconds: u32) -> Component {
    let mut it = component(name, KUBERNETES, package, Some(&["--version"]), seconds);
    it.ldflags = KUBERNETES_FLAGS;
    it
}

const fn containerd(
    name: &'static str,
    package: &'static str,
    args: &'static [&'static str],
    seconds: u32,
) -> Component {
    let mut it = component(name, CONTAINERD, package, Some(args), seconds);
    it.ldflags = CONTAINERD_FLAGS;
    it.tags = "no_btrfs no_devmapper no_zfs";
    it
}

const fn cni(name: &'static str, package: &'static str, seconds: u32) -> Component {
    let mut it = component(name, CNI, package, Some(&[]), seconds);
    it.ldflags = CNI_FLAGS;
    it
}

/// Every component, in the order in which they are built: the node's first, because a problem
/// with a C compiler should show in the first minute.
pub const COMPONENTS: &[Component] = &[
    {
        let mut runc = component(
            "runc",
            RUNC,
            "github.com/opencontainers/runc",
            Some(&["--version"]),
            30,
        );
        runc.ldflags = "-X main.version={bare} -linkmode external -extldflags -static";
        runc.tags = "seccomp netgo osusergo";
        runc.cgo = true;
        runc
    },
    containerd(
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
        &["--version"],
        79,
    ),
    containerd(
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        &["-v"],
        4,
    ),
    containerd(
        "ctr",
        "github.com/containerd/containerd/v2/cmd/ctr",
        &["--version"],
        5,
    ),
    cni(
        "bridge",
        "github.com/containernetworking/plugins/plugins/main/bridge",
        6,
    ),
    cni(
        "loopback",
        "github.com/containernetworking/plugins/plugins/main/loopback",
        1,
    ),
    cni(
        "ptp",
        "github.com/containernetworking/plugins/plugins/main/ptp",
        1,
    ),
    cni(
        "host-local",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
        1,
    ),
    cni(
        "portmap",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
        1,
    ),
    cni(
        "firewall",
        "github.com/containernetworking/plugins/plugins/meta/firewall",
        1,
    ),
    component(
        "etcd",
        ETCD,
        "go.etcd.io/etcd/server/v3",
        Some(&["--version"]),
        31,
    ),
    component(
        "etcdctl",
        ETCD,
        "go.etcd.io/etcd/etcdctl/v3",
        Some(&["version"]),
        8,
    ),
    component(
        "etcdutl",
        ETCD,
        "go.etcd.io/etcd/etcdutl/v3",
        Some(&["version"]),
        3,
    ),
    kubernetes(
        "kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        217,
    ),
    kubernetes(
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        76,
    ),
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", 32),
    kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 13),
    {
        let mut kubectl = kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", 29);
        // It alone has a verb for that, and asks a server too unless told.
        kubectl.version_args = Some(&["version", "--client"]);
        kubectl
    },
    component(
        "coredns",
        COREDNS,
        "github.com/coredns/coredns",
        Some(&["-version"]),
        117,
    ),
    component(
        "proxy-server",
        KONNECTIVITY,
        "sigs.k8s.io/apiserver-network-proxy/cmd/server",
        None,
        55,
    ),
    component(
        "proxy-agent",
        KONNECTIVITY,
        "sigs.k8s.io/apiserver-network-proxy/cmd/agent",
        None,
        10,
    ),
    {
        let mut scheduler = kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 8);
        scheduler.set = Set::All;
        scheduler
    },
];

impl Component {
    /// The pinned version, with its `v`.
    pub fn version(&self) -> &'static str {
        self.project.version().unwrap_or("unknown")
    }

    /// The version as the program prints it: without the `v`.
    pub fn bare_version(&self) -> &'static str {
        self.version().trim_start_matches('v')
    }

    /// The linker flags, filled in.
    pub fn linker_flags(&self) -> String {
        let bare = self.bare_version();
        let mut parts = bare.split('.');
        let (major, minor) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        format!("-s -w {}", self.ldflags)
            .replace("{version}", self.version())
            .replace("{bare}", bare)
            .replace("{major}", major)
            .replace("{minor}", minor)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Set {
    /// The components of the set, in build order.
    pub fn components(self) -> impl Iterator<Item = &'static Component> {
        let all: &'static [Component] = match self {
            Self::Cluster | Self::All => COMPONENTS,
            Self::Previous => &PREVIOUS,
        };
        all.iter()
            .filter(move |it| self == Self::All || it.set == Self::Cluster)
    }
}

/// [`COMPONENTS`] as [`Set::Previous`] has them: what is not pinned of its own is the same.
static PREVIOUS: LazyLock<Vec<Component>> = LazyLock::new(|| {
    let previous = |it: &Component| {
        let own = [KUBERNETES_PREVIOUS, ETCD_PREVIOUS, CONTAINERD_PREVIOUS]
            .into_iter()
            .find(|project| project.module == it.project.module);
        Component {
            project: own.unwrap_or(it.project),
            ..*it
        }
    };
    COMPONENTS.iter().map(previous).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_a_pinned_version_and_a_name_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for it in COMPONENTS {
            assert!(seen.insert(it.name), "{} is there twice", it.name);
        }
        for it in Set::All.components().chain(Set::Previous.components()) {
            let version = it.project.version().unwrap_or_default();
            assert!(version.starts_with('v'), "{}: {version:?}", it.name);
            assert!(it.project.go().starts_with("1."), "{}", it.project.name);
            assert!(
                it.project.go_mod.contains(&format!("\t{}\n", it.package))
                    || it.project.go_mod.contains(it.package),
                "{} is no tool of its module file",
                it.package
            );
        }
    }

    #[test]
    fn the_set_before_is_one_minor_version_of_kubernetes_older_and_otherwise_complete() {
        let minor = |it: &Component| -> u32 {
            let mut parts = it.bare_version().split('.').skip(1);
            parts
                .next()
                .and_then(|minor| minor.parse().ok())
                .unwrap_or_default()
        };
        let now: Vec<_> = Set::Cluster.components().collect();
        let before: Vec<_> = Set::Previous.components().collect();
        assert_eq!(now.len(), before.len());
        for (now, before) in now.iter().zip(&before) {
            assert_eq!(now.name, before.name);
            if now.project.module == KUBERNETES.module {
                assert_eq!(minor(before) + 1, minor(now), "{}", now.name);
            }
        }
    }

    #[test]
    fn the_flags_of_every_component_are_as_reviewed() {
        let flags: Vec<String> = Set::All
            .components()
            .chain(
                Set::Previous
                    .components()
                    .filter(|it| it.project.name.ends_with("-previous")),
            )
            .map(|it| {
                format!(
                    "{} {} cgo={} tags=[{}] {}",
                    it.name,
                    it.version(),
                    it.cgo,
                    it.tags,
                    it.linker_flags()
                )
            })
            .collect();
        insta::assert_snapshot!(flags.join("\n"));
    }
}
