//! The types of Cosmos' requests and answers. Each call has its own, with a version: who sends
//! another is refused, and who accepts several gets the newest that there is.

use axum::http::{HeaderMap, header};

use super::error::Failure;

/// The types of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// `package` or `service`.
    pub family: &'static str,
    /// `describe`, `repository.add`.
    pub name: &'static str,
    /// Versions of the answer, the newest first.
    pub versions: &'static [u32],
}

/// Type of errors.
pub(super) const ERROR: &str = "application/vnd.dcos.package.error+json;charset=utf-8;version=v1";

impl Call {
    pub const fn package(name: &'static str, versions: &'static [u32]) -> Self {
        let family = "package";
        Self {
            family,
            name,
            versions,
        }
    }

    pub const fn service(name: &'static str) -> Self {
        let (family, versions): (_, &[u32]) = ("service", &[1]);
        Self {
            family,
            name,
            versions,
        }
    }

    fn request(self) -> String {
        format!(
            "application/vnd.dcos.{}.{}-request+json",
            self.family, self.name
        )
    }

    fn response(self) -> String {
        format!(
            "application/vnd.dcos.{}.{}-response+json",
            self.family, self.name
        )
    }

    /// The type of an answer.
    pub fn of_version(self, version: u32) -> String {
        format!("{};charset=utf-8;version=v{version}", self.response())
    }

    /// Checks what a request is, and says in which version it is to be answered.
    pub fn negotiate(self, headers: &HeaderMap) -> Result<u32, Failure> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
        };
        let sent = parse(text(header::CONTENT_TYPE));
        if !sent.is(&self.request(), 1) {
            return Err(Failure::unsupported(
                &format!("{};charset=utf-8;version=v1", self.request()),
                text(header::CONTENT_TYPE),
            ));
        }
        let accept = text(header::ACCEPT);
        let ranges: Vec<Media> = accept.split(',').map(parse).collect();
        let wanted = self.response();
        self.versions
            .iter()
            .copied()
            .find(|v| ranges.iter().any(|r| r.is(&wanted, *v) || r.kind == "*/*"))
            .ok_or_else(|| Failure::not_acceptable(&self.of_version(self.versions[0]), accept))
    }
}

/// A type with what matters of its parameters.
#[derive(Debug)]
struct Media {
    kind: String,
    charset: Option<String>,
    version: Option<String>,
}

impl Media {
    fn is(&self, kind: &str, version: u32) -> bool {
        self.kind == kind
            && self.version.as_deref() == Some(format!("v{version}").as_str())
            && self.charset.as_deref().is_none_or(|c| c == "utf-8")
    }
}

fn parse(text: &str) -> Media {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut media = Media {
        kind,
        charset: None,
        version: None,
    };
    for part in parts {
        if let Some((name, value)) = part.split_once('=') {
            let value = Some(value.trim_matches('"').to_ascii_lowercase());
            match name.trim().to_ascii_lowercase().as_str() {
                "charset" => media.charset = value,
                "version" => media.version = value,
                _ => {}
            }
        }
    }
    media
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTALL: Call = Call::package("install", &[2, 1]);

    fn headers(kind: &str, accept: &str) -> HeaderMap {
        [
            (header::CONTENT_TYPE, kind.parse().unwrap()),
            (header::ACCEPT, accept.parse().unwrap()),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn the_newest_version_that_is_accepted_answers() {
        let kind = "application/vnd.dcos.package.install-request+json;charset=utf-8;version=v1";
        let v = |n| INSTALL.of_version(n);
        for (accept, version) in [
            (format!("{},{}", v(1), v(2)), 2),
            (v(1), 1),
            (v(2).replace(';', "; "), 2),
            ("*/*".to_owned(), 2),
        ] {
            assert_eq!(
                INSTALL.negotiate(&headers(kind, &accept)).unwrap(),
                version,
                "{accept}"
            );
        }
    }

    #[test]
    fn other_types_are_refused() {
        let kind = "application/vnd.dcos.package.install-request+json;charset=utf-8;version=v1";
        let accept = INSTALL.of_version(2);
        for (kind, accept) in [
            ("application/json", accept.as_str()),
            (
                "application/vnd.dcos.package.install-request+json;charset=utf-8;version=v2",
                &accept,
            ),
            (
                "application/vnd.dcos.package.render-request+json;charset=utf-8;version=v1",
                &accept,
            ),
            (kind, "application/json"),
            (
                kind,
                "application/vnd.dcos.package.install-response+json;charset=utf-8;version=v3",
            ),
        ] {
            assert!(
                INSTALL.negotiate(&headers(kind, accept)).is_err(),
                "{kind} {accept}"
            );
        }
    }
}
