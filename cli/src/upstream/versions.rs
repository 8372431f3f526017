//! Which versions the programs of a folder have. They are asked, not assumed: an operator may
//! name a folder of their own, and the rules about versions of an upgrade rest on the answer.

use std::collections::BTreeMap;
use std::path::Path;

use super::build::ask_version;
use super::table::COMPONENTS;

/// Beside the programs in a folder that [`super::build()`] made: name -> version with its `v`.
pub(super) const FILE: &str = "versions.json";

/// Versions by program, with their `v`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions(BTreeMap<String, String>);

impl Versions {
    /// Those of the programs in a folder: by its list, else by what each program says. One that is
    /// not there, or cannot say (konnectivity's), is taken for the pinned one; one whose answer
    /// names no version has none.
    pub fn of(dir: &Path) -> Self {
        let listed = std::fs::read(dir.join(FILE)).ok();
        if let Some(listed) = listed.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Self::listed(&listed);
        }
        let mut all = Self::pinned();
        for component in COMPONENTS {
            let program = dir.join(component.name);
            if let (true, Some(args)) = (program.is_file(), component.version_args) {
                let said = ask_version(&program, args).unwrap_or_default();
                match first_version(&said) {
                    Some(version) => all.0.insert(component.name.to_owned(), version),
                    None => all.0.remove(component.name),
                };
            }
        }
        all
    }

    /// Those of a list, and the pinned ones of what it does not name.
    pub fn listed(list: &BTreeMap<String, String>) -> Self {
        let mut all = Self::pinned();
        all.0.extend(list.clone());
        all
    }

    /// The pinned versions.
    pub fn pinned() -> Self {
        let all = COMPONENTS.iter();
        Self(
            all.map(|it| (it.name.to_owned(), it.version().to_owned()))
                .collect(),
        )
    }

    /// A program's, if it is known.
    pub fn get(&self, program: &str) -> Option<&str> {
        self.0.get(program).map(String::as_str)
    }

    /// Those of these programs.
    pub fn only(&self, programs: &[&str]) -> BTreeMap<String, String> {
        let mut all = self.0.clone();
        all.retain(|name, _| programs.contains(&name.as_str()));
        all
    }
}

/// The first thing in a text that is a version of three numbers: `v1.37.1`, also with a suffix
/// (`v1.37.1-rc.0`).
fn first_version(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '(' | ')'))
        .map(|word| word.trim_start_matches("CoreDNS-").trim_start_matches('v'))
        .find(|word| {
            let core = word.split(['-', '+']).next().unwrap_or_default();
            let numbers: Vec<&str> = core.split('.').collect();
            numbers.len() == 3
                && numbers
                    .iter()
                    .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
        .map(|word| format!("v{word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_each_program_prints() {
        for (said, version) in [
            ("Kubernetes v1.36.3\n", "v1.36.3"),
            (
                "etcd Version: 3.6.16\nGit SHA: x\nGo Version: go1.26.8\n",
                "v3.6.16",
            ),
            (
                "containerd github.com/containerd/containerd/v2 v2.3.7 \n",
                "v2.3.7",
            ),
            (
                "containerd-shim-runc-v2:\n  Version:  v2.3.7\n  Go version: go1.26.8\n",
                "v2.3.7",
            ),
            ("runc version 1.5.2\nspec: 1.3.0\n", "v1.5.2"),
            (
                "CNI bridge plugin v1.9.1\nCNI protocol versions supported: 0.1.0, 1.1.0\n",
                "v1.9.1",
            ),
            ("CoreDNS-1.15.0\nlinux/amd64, go1.26.8, \n", "v1.15.0"),
            (
                "Client Version: v1.38.0-alpha.1\nKustomize Version: v5.8.1\n",
                "v1.38.0-alpha.1",
            ),
        ] {
            assert_eq!(first_version(said).as_deref(), Some(version), "{said}");
        }
        assert_eq!(first_version("no version at all, 1.2, 1.2.x"), None);
    }

    #[test]
    fn programs_without_a_list_are_asked_and_the_others_taken_for_the_pinned_ones() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("kubelet");
        std::fs::write(&program, "#!/bin/sh\necho Kubernetes v1.30.7\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        for silent in ["proxy-server", "etcd"] {
            std::fs::copy("/bin/true", dir.path().join(silent)).unwrap();
        }
        let versions = Versions::of(dir.path());
        assert_eq!(versions.get("kubelet"), Some("v1.30.7"));
        assert_eq!(
            versions.get("proxy-server"),
            Versions::pinned().get("proxy-server")
        );
        assert_eq!(versions.get("runc"), Versions::pinned().get("runc"));
        assert_eq!(versions.get("etcd"), None);
        std::fs::write(dir.path().join(FILE), r#"{"kubelet": "v1.36.3"}"#).unwrap();
        assert_eq!(Versions::of(dir.path()).get("kubelet"), Some("v1.36.3"));
    }
}
