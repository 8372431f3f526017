//! Names of images, read the way Docker and Mesos read them:
//! `[registry[:port]/]path[:tag][@digest]`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry of names that name none.
pub const DOCKER_HUB: &str = "docker.io";
/// Longest name that is accepted, in characters; registries allow 255 for the path.
const LONGEST: usize = 512;

/// The name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port; none where the name says none.
    registry: Option<String>,
    /// Path on the registry: `k8sm/k8sm-proxy`.
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name of an image: {why}")]
pub struct BadReference {
    /// What was given.
    pub name: String,
    /// What is wrong.
    pub why: &'static str,
}

impl Reference {
    /// Host and port of the registry, if the name says one.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// Path on the registry as it is written.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one is written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is written: it goes before the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, the tag, or `latest`.
    pub fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same image by the name that is unique: registry, path, and `latest` where no tag and no
    /// digest is.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let registry = self.registry.as_deref().unwrap_or(DOCKER_HUB);
        let repository = match self.repository.as_str() {
            name if registry == DOCKER_HUB && !name.contains('/') => format!("library/{name}"),
            name => name.to_owned(),
        };
        let untagged = self.tag.is_none() && self.digest.is_none();
        Self {
            registry: Some(registry.to_owned()),
            repository,
            tag: untagged.then(|| "latest".to_owned()).or(self.tag.clone()),
            digest: self.digest.clone(),
        }
    }

    /// The same path and version on another registry, below a path: `registry.example.org/k8sm`.
    pub fn moved_to(&self, prefix: &str) -> Result<Self, BadReference> {
        let name = self.repository.rsplit('/').next().unwrap_or_default();
        let prefix = prefix.trim_end_matches('/');
        let mut moved: Self = format!("{prefix}/{name}").parse()?;
        moved.tag.clone_from(&self.tag);
        moved.digest.clone_from(&self.digest);
        Ok(moved)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = |why| BadReference {
            name: text.chars().take(LONGEST).collect(),
            why,
        };
        if text.chars().count() > LONGEST {
            return Err(bad("it is too long"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse().map_err(|_| bad("its digest is none"))?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(
                "a tag has letters, digits, `_`, `.` and `-`, at most 128 of them",
            ));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if is_host(host) => (Some(host), rest),
            _ => (None, name),
        };
        if registry.is_some_and(|r| !is_good_host(r)) {
            return Err(bad("its registry is no host name"));
        }
        if repository.is_empty() || !repository.split('/').all(is_component) {
            return Err(bad(
                "its path has lower-case letters and digits, and `.`, `_`, `-` between them",
            ));
        }
        Ok(Self {
            registry: registry.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// Docker's rule: the first part is a host if it could be nothing else.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

/// A name or an address, that of version 6 in brackets, and perhaps a port.
fn is_good_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let name = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(address) => address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(plain),
    };
    port && name
}

fn is_tag(tag: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(good) && !tag.starts_with(['.', '-'])
}

fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    ends && bytes
        .iter()
        .all(|b| plain(*b) || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        for (text, registry, repository, version) in [
            ("busybox", None, "busybox", "latest"),
            ("k8sm/proxy:1", None, "k8sm/proxy", "1"),
            ("localhost/a:b", Some("localhost"), "a", "b"),
            (
                "r.example.org:5000/k8sm/proxy",
                Some("r.example.org:5000"),
                "k8sm/proxy",
                "latest",
            ),
            (
                "10.0.0.1:5000/a:1.0-x_y",
                Some("10.0.0.1:5000"),
                "a",
                "1.0-x_y",
            ),
        ] {
            let read = parse(text);
            assert_eq!(
                (read.registry(), read.repository(), read.version()),
                (registry, repository, version),
                "{text}"
            );
            assert_eq!(read.to_string(), text);
        }
        let digest = Digest::of(b"x");
        let pinned = parse(&format!("r.io/a:1@{digest}"));
        assert_eq!(pinned.version(), digest.as_str());
        assert_eq!(pinned.tag(), Some("1"));
    }

    #[test]
    fn the_canonical_name_is_the_same_for_the_same_image() {
        assert_eq!(
            parse("busybox").canonical(),
            parse("docker.io/library/busybox:latest")
        );
        assert_ne!(parse("a/busybox").canonical(), parse("busybox").canonical());
        let moved = parse("registry.k8s.io/coredns/coredns:v1")
            .moved_to("r.io:1/k8sm/")
            .unwrap();
        assert_eq!(moved.to_string(), "r.io:1/k8sm/coredns:v1");
    }

    #[test]
    fn what_could_be_a_path_elsewhere_is_refused() {
        for bad in [
            "",
            "/",
            "a//b",
            "../a",
            "a/../b",
            "A",
            "a:",
            "a:b/c:",
            "a:../x",
            "r.io/",
            "a@sha256:1",
            "r io/a.b",
            "-a",
            "x.y$/a",
            ".a/b",
            "a/b:-x",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        assert!("a".repeat(600).parse::<Reference>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(text in ".{0,60}") {
            if let Ok(read) = text.parse::<Reference>() {
                assert_eq!(read.to_string(), text);
                assert_eq!(read.canonical().canonical(), read.canonical());
            }
        }
    }
}
