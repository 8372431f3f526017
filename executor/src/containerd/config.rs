//! Renders containerd's configuration and its registries' `hosts.toml`. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What containerd's configuration depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerdConfig {
    /// Images and snapshots.
    pub root: PathBuf,
    /// Bundles, network namespaces.
    pub state: PathBuf,
    /// gRPC socket; ttRPC listens beside it.
    pub socket: PathBuf,
    /// Cgroup of the shims, relative to each hierarchy's root. It must exist in every hierarchy.
    pub shim_cgroup: String,
    /// Directory of the CNI plugins.
    pub cni_bin: PathBuf,
    /// Directory of the CNI configuration.
    pub cni_conf: PathBuf,
    /// Directory with a `hosts.toml` per registry.
    pub registries: PathBuf,
    /// Image of the pods' sandboxes, never collected.
    pub sandbox_image: String,
    /// Whether CAP_SYS_RESOURCE is missing. Without it a container's `oom_score_adj` cannot be
    /// lowered below the executor's and runc fails each sandbox that tries.
    pub restrict_oom_score_adj: bool,
}

impl ContainerdConfig {
    /// The configuration file, in containerd's format of version 3 (2.0 and later).
    pub fn render(&self) -> String {
        let Self {
            root,
            state,
            socket,
            shim_cgroup,
            cni_bin,
            cni_conf,
            registries,
            sandbox_image,
            restrict_oom_score_adj,
        } = self;
        // NRI and the plugins of /opt belong to the machine's own containerd, if there is one.
        format!(
            "version = 3\n\
             root = {root}\n\
             state = {state}\n\
             imports = []\n\
             \n\
             [grpc]\n  address = {socket}\n\
             \n\
             [plugins.'io.containerd.internal.v1.opt']\n  path = {opt}\n\
             \n\
             [plugins.'io.containerd.nri.v1.nri']\n  disable = true\n\
             \n\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = {sandbox}\n\
             \n\
             [plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = {registries}\n\
             \n\
             [plugins.'io.containerd.cri.v1.runtime']\n\
             \x20 restrict_oom_score_adj = {restrict_oom_score_adj}\n\
             \x20 netns_mounts_under_state_dir = true\n\
             \n\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
             \x20 bin_dirs = [{cni_bin}]\n\
             \x20 conf_dir = {cni_conf}\n\
             \x20 use_internal_loopback = true\n\
             \n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
             \x20 runtime_type = 'io.containerd.runc.v2'\n\
             \n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
             \x20 ShimCgroup = {shims}\n\
             \x20 SystemdCgroup = false\n\
             \n\
             [plugins.'io.containerd.grpc.v1.cri']\n\
             \x20 disable_tcp_service = true\n\
             \x20 stream_server_address = '127.0.0.1'\n\
             \x20 stream_server_port = '0'\n",
            root = path(root),
            state = path(state),
            socket = path(socket),
            opt = path(&root.join("opt")),
            sandbox = string(sandbox_image),
            registries = path(registries),
            cni_bin = path(cni_bin),
            cni_conf = path(cni_conf),
            shims = string(shim_cgroup),
        )
    }
}

/// A mirror's entry that cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMirror {
    /// The registry's host is not a host.
    #[error("registry mirror for `{0}`: expected a host, a host:port or `_default`")]
    Host(String),
    /// The mirror is no URL.
    #[error("registry mirror `{url}` of `{host}`: expected http://... or https://...")]
    Url {
        /// The registry.
        host: String,
        /// The mirror.
        url: String,
    },
}

/// The `hosts.toml` of each registry that has mirrors: `(<directory name>, <content>)`.
/// Mirrors are tried in the order given, then the registry itself.
pub fn registry_hosts(mirrors: &[(String, String)]) -> Result<Vec<(String, String)>, BadMirror> {
    let mut by_host: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (host, url) in mirrors {
        let host_ok = !host.is_empty()
            && !host.starts_with('.')
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
        if !host_ok {
            return Err(BadMirror::Host(host.clone()));
        }
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        if !rest.is_some_and(|r| !r.is_empty() && !r.bytes().any(|b| b.is_ascii_control())) {
            return Err(BadMirror::Url {
                host: host.clone(),
                url: url.clone(),
            });
        }
        by_host.entry(host).or_default().push(url);
    }
    Ok(by_host
        .into_iter()
        .map(|(host, urls)| {
            let mut text = match host {
                "_default" => String::new(),
                // The name that people write is not the one that serves.
                "docker.io" => "server = 'https://registry-1.docker.io'\n".to_owned(),
                _ => format!("server = {}\n", string(&format!("https://{host}"))),
            };
            for url in urls {
                text.push_str(&format!(
                    "\n[host.{}]\n  capabilities = ['pull', 'resolve']\n",
                    string(url)
                ));
            }
            (host.to_owned(), text)
        })
        .collect())
}

fn path(path: &Path) -> String {
    string(&path.to_string_lossy())
}

/// A TOML string: literal where possible, because that is what people read most easily.
fn string(value: &str) -> String {
    if !value.contains('\'') && !value.chars().any(char::is_control) {
        return format!("'{value}'");
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ContainerdConfig {
        ContainerdConfig {
            root: "/var/lib/k8sm/nodes/n1/containerd".into(),
            state: "/run/k8sm/0badcafe/containerd".into(),
            socket: "/run/k8sm/0badcafe/containerd.sock".into(),
            shim_cgroup: "/mesos/c1/k8s/shims".into(),
            cni_bin: "/var/lib/k8sm/payload/aa/cni".into(),
            cni_conf: "/var/lib/k8sm/nodes/n1/config/net.d".into(),
            registries: "/var/lib/k8sm/nodes/n1/config/certs.d".into(),
            sandbox_image: "registry.k8s.io/pause:3.10.2".into(),
            restrict_oom_score_adj: true,
        }
    }

    #[test]
    fn containerd_shares_nothing_with_another_one_of_the_machine() {
        insta::assert_snapshot!(config().render());
    }

    #[test]
    fn a_path_with_a_quote_stays_one_string() {
        assert_eq!(string("a'b\\c\n"), r#""a'b\\c\u000A""#);
    }

    #[test]
    fn mirrors_of_one_registry_keep_their_order() {
        let mirrors = [
            ("docker.io", "https://mirror.example.org"),
            ("_default", "http://10.0.0.5:5000"),
            ("docker.io", "http://other.example.org:5000/v2"),
            ("localhost:5000", "http://localhost:5000"),
        ]
        .map(|(h, u)| (h.to_owned(), u.to_owned()));
        let files = registry_hosts(&mirrors).unwrap();
        let text: Vec<String> = files.iter().map(|(h, t)| format!("--- {h}\n{t}")).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn a_mirror_that_could_leave_its_directory_is_refused() {
        for host in ["", "../etc", "a/b", "a b"] {
            let mirrors = [(host.to_owned(), "http://m".to_owned())];
            assert_eq!(
                registry_hosts(&mirrors),
                Err(BadMirror::Host(host.to_owned()))
            );
        }
        for url in ["", "ftp://m", "https://", "m:5000"] {
            let mirrors = [("docker.io".to_owned(), url.to_owned())];
            assert!(matches!(
                registry_hosts(&mirrors),
                Err(BadMirror::Url { .. })
            ));
        }
    }
}
