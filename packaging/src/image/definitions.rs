//! The images that this project has, as `docker/images.yaml` defines them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::licenses::{self, Licenses};
use super::{Content, File, Image};

/// The definitions.
const TEXT: &str = include_str!("../../../docker/images.yaml");
/// Where programs look for the certificates of public authorities.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Registry and path of our own images where nobody chose others.
pub const OWN_REPOSITORY: &str = "k8s.mesosphere.io";
/// Prefix of annotations: which version of a program is in an image.
const PROGRAM_LABEL: &str = "k8s.mesosphere.io/program.";

/// An image as it is defined.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What comes after the registry and its path.
    pub name: String,
    /// Whose version is the tag: `k8sm`, an upstream program, or a version itself.
    pub version: String,
    /// The name that pods use, where it is not ours; without a tag.
    #[serde(default)]
    pub upstream: Option<String>,
    /// A few words.
    pub title: String,
    /// One sentence.
    pub description: String,
    /// Where the source of its main program is.
    pub source: String,
    /// SPDX expression of its main program's licence.
    pub licenses: String,
    /// Numeric user and group.
    pub user: u32,
    /// Programs, the lowest layer first.
    pub layers: Vec<Vec<String>>,
    /// Where a program is, if not at `/<program>`.
    #[serde(default)]
    pub paths: BTreeMap<String, String>,
    /// What is run.
    pub entrypoint: Vec<String>,
    /// Working directory; empty: the runtime's choice.
    pub workdir: String,
    /// Whether certificates of public authorities are put in.
    #[serde(default)]
    pub certificates: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definitions {
    images: Vec<Definition>,
}

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definitions themselves, which a test rules out.
    #[error("docker/images.yaml: {0}")]
    Definitions(String),
    /// There is no such image.
    #[error("there is no image `{wanted}`; there are {known}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// A program is missing.
    #[error("{program}, a program of the image {image}, is missing")]
    Program {
        /// The image.
        image: String,
        /// Which.
        program: String,
    },
    /// Its licences.
    #[error(transparent)]
    Licenses(#[from] licenses::Error),
}

/// What images are made of, beside their definitions.
pub trait Sources {
    /// Where a program is.
    fn program(&self, name: &str) -> Option<PathBuf>;
    /// Which version of a program that is: `v1.37.1`.
    fn version(&self, name: &str) -> Option<String>;
}

/// Choices of who builds.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Registry and path of all images; else our own name, or that which pods use.
    pub repository: Option<String>,
    /// Tag of our own images; else the version.
    pub tag: Option<String>,
    /// Certificates (PEM) of public authorities.
    pub certificates: Option<Vec<u8>>,
    /// The revision of the source that the programs were built from.
    pub revision: Option<String>,
    /// Whether licence texts are put in. Nodes get them with the payload already.
    pub licenses: bool,
}

/// All definitions.
pub fn all() -> Result<Vec<Definition>, Error> {
    let read: Definitions =
        serde_yaml::from_str(TEXT).map_err(|e| Error::Definitions(e.to_string()))?;
    Ok(read.images)
}

/// The definitions of these names; all of them where none is named.
pub fn of(names: &[String]) -> Result<Vec<Definition>, Error> {
    let mut known = all()?;
    if let Some(unknown) = names.iter().find(|n| known.iter().all(|d| d.name != **n)) {
        let known: Vec<String> = known.into_iter().map(|d| d.name).collect();
        return Err(Error::Unknown {
            wanted: unknown.clone(),
            known: known.join(", "),
        });
    }
    known.retain(|d| names.is_empty() || names.contains(&d.name));
    Ok(known)
}

impl Definition {
    /// Its full name.
    pub fn reference(&self, sources: &impl Sources, choices: &Choices) -> String {
        let own = self.version == "k8sm";
        let version = sources
            .version(&self.version)
            .unwrap_or_else(|| self.version.clone());
        let tag = choices.tag.clone().filter(|_| own).unwrap_or(version);
        match (&choices.repository, &self.upstream) {
            (Some(repository), _) => {
                format!("{}/{}:{tag}", repository.trim_end_matches('/'), self.name)
            }
            (None, Some(upstream)) => format!("{upstream}:{tag}"),
            (None, None) => format!("{OWN_REPOSITORY}/{}:{tag}", self.name),
        }
    }

    /// The image.
    pub fn image(&self, sources: &impl Sources, choices: &Choices) -> Result<Image, Error> {
        let mut licenses = Licenses::default();
        let mut labels = BTreeMap::new();
        let mut base = Vec::new();
        for programs in &self.layers {
            let mut files = Vec::new();
            for program in programs {
                let missing = || Error::Program {
                    image: self.name.clone(),
                    program: program.clone(),
                };
                let source = sources.program(program).ok_or_else(missing)?;
                if choices.licenses {
                    licenses.add(program, &source)?;
                }
                if let Some(version) = sources.version(program) {
                    labels.insert(format!("{PROGRAM_LABEL}{program}"), version);
                }
                let path = self.paths.get(program).cloned();
                files.push(File {
                    path: path.unwrap_or_else(|| format!("/{program}")),
                    mode: 0o755,
                    content: Content::File(source),
                });
            }
            base.push(files);
        }
        // What is small and differs from image to image comes with its own programs.
        let mut files = base.pop().unwrap_or_default();
        files.push(text("/etc/passwd", &passwd()));
        files.push(text("/etc/group", &group()));
        if choices.licenses {
            files.extend(licenses.files());
        }
        if let Some(pem) = choices.certificates.as_ref().filter(|_| self.certificates) {
            files.push(File {
                path: CERTIFICATES.to_owned(),
                mode: 0o644,
                content: Content::Bytes(pem.clone()),
            });
        }
        let reference = self.reference(sources, choices);
        let version = reference.rsplit(':').next().unwrap_or_default();
        let mut label = |name: &str, value: &str| {
            labels.insert(format!("org.opencontainers.image.{name}"), value.to_owned());
        };
        label("title", &self.title);
        label("description", &self.description);
        label("version", version);
        label("source", &self.source);
        label("url", &self.source);
        label("licenses", &self.licenses);
        label("vendor", "Kubernetes on Mesos");
        if let Some(revision) = &choices.revision {
            label("revision", revision);
        }
        Ok(Image {
            reference,
            base,
            files,
            entrypoint: self.entrypoint.clone(),
            user: self.user,
            labels,
            working_dir: self.workdir.clone(),
        })
    }
}

/// Users beside root that images run as.
const USERS: [(&str, u32); 2] = [("nobody", 65534), ("nonroot", super::NON_ROOT)];

/// Users by name, for programs that look themselves up.
fn passwd() -> String {
    let line = |name: &str, id: u32| format!("{name}:x:{id}:{id}:{name}:/:/sbin/nologin\n");
    let others = USERS.map(|(name, id)| line(name, id));
    line("root", 0) + &others.concat()
}

fn group() -> String {
    let others = USERS.map(|(name, id)| format!("{name}:x:{id}:\n"));
    "root:x:0:\n".to_owned() + &others.concat()
}

fn text(path: &str, content: &str) -> File {
    File {
        path: path.to_owned(),
        mode: 0o644,
        content: Content::Bytes(content.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marathon::{image_name, programs};
    use crate::pki::Component;

    struct Nowhere;

    impl Sources for Nowhere {
        fn program(&self, name: &str) -> Option<PathBuf> {
            (name != "missing").then(|| format!("/programs/{name}").into())
        }

        fn version(&self, name: &str) -> Option<String> {
            match name {
                "k8sm" => Some("0.1.0".to_owned()),
                "3.10.2" | "v0.1.0" => None,
                _ => Some("v1.2.3".to_owned()),
            }
        }
    }

    #[test]
    fn every_app_finds_its_programs_in_its_image() {
        let all = all().unwrap();
        for component in [
            Component::Etcd(0),
            Component::ApiServer,
            Component::ControllerManager,
            Component::Proxy,
            Component::Framework,
        ] {
            let name = image_name(component);
            let definition = all.iter().find(|d| d.name == name).unwrap();
            for program in programs(component).iter().chain(&["k8sm"]) {
                let there = definition.layers.iter().flatten().any(|p| p == program);
                assert!(there, "{name} lacks {program}");
            }
            assert_eq!(definition.entrypoint, ["/k8sm"], "the apps' args follow it");
            assert_eq!(definition.workdir, "", "Mesos' sandbox is where k8sm works");
        }
    }

    #[test]
    fn only_the_executor_runs_as_root_and_no_image_has_a_shell() {
        for definition in all().unwrap() {
            let root = definition.user == 0;
            assert_eq!(root, definition.name == "k8sm-executor");
            let image = definition.image(&Nowhere, &Choices::default()).unwrap();
            let shells = image.all_files().filter(|f| {
                let name = f.path.rsplit('/').next().unwrap_or_default();
                matches!(name, "sh" | "bash" | "busybox")
            });
            assert_eq!(shells.count(), 0);
            let entry = &definition.entrypoint[0];
            assert!(image.all_files().any(|f| f.path == *entry), "{entry}");
        }
    }

    #[test]
    fn names_are_those_of_pods_or_those_of_the_registry() {
        let shown = |choices: &Choices| -> Vec<String> {
            let all = all().unwrap();
            all.iter().map(|d| d.reference(&Nowhere, choices)).collect()
        };
        insta::assert_debug_snapshot!(shown(&Choices::default()));
        let choices = Choices {
            repository: Some("registry.example.org/k8sm/".to_owned()),
            tag: Some("test".to_owned()),
            ..Choices::default()
        };
        insta::assert_debug_snapshot!(shown(&choices));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = of(&["coredns".to_owned(), "nginx".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("`nginx`"), "{error}");
        let mut definition = all().unwrap().remove(0);
        definition.layers.push(vec!["missing".to_owned()]);
        let error = definition.image(&Nowhere, &Choices::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "missing, a program of the image k8sm-control-plane, is missing"
        );
    }
}
