//! Paths and queries of v1beta1, and those of v1 that mean the same.

use url::form_urlencoded;

use super::{Refused, VERSION};

/// A kind of object that v1beta1 has here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Resource {
    Pods,
    ReplicationControllers,
    Services,
    Minions,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Pods,
        Self::ReplicationControllers,
        Self::Services,
        Self::Minions,
    ];

    /// By its name in a path; minions have had two.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "nodes" => Some(Self::Minions),
            _ => Self::ALL.into_iter().find(|r| r.name() == name),
        }
    }

    /// Its name in v1beta1's paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::ReplicationControllers => "replicationControllers",
            Self::Services => "services",
            Self::Minions => "minions",
        }
    }

    /// Its name in v1's paths.
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::ReplicationControllers => "replicationcontrollers",
            Self::Services => "services",
            Self::Minions => "nodes",
        }
    }

    /// Its path in v1beta1.
    pub fn path(self) -> String {
        format!("/api/{VERSION}/{}", self.name())
    }

    /// Kinds that an object may say it is; the first is what answers say.
    pub fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Pods => &["Pod"],
            Self::ReplicationControllers => &["ReplicationController"],
            Self::Services => &["Service"],
            Self::Minions => &["Minion", "Node"],
        }
    }

    /// The kind that answers say.
    pub fn kind(self) -> &'static str {
        self.kinds()[0]
    }

    /// The kind in v1.
    pub fn v1_kind(self) -> &'static str {
        match self {
            Self::Minions => "Node",
            other => other.kind(),
        }
    }

    /// The kind of a list.
    pub fn list_kind(self) -> &'static str {
        match self {
            Self::Pods => "PodList",
            Self::ReplicationControllers => "ReplicationControllerList",
            Self::Services => "ServiceList",
            Self::Minions => "MinionList",
        }
    }

    /// Whether it lives in a namespace.
    pub fn namespaced(self) -> bool {
        self != Self::Minions
    }
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The kind of object.
    pub resource: Resource,
    /// One object, or all of them.
    pub name: Option<String>,
    /// Changes from now on, instead of what is there.
    pub watch: bool,
    /// Namespace. None: all of them, or it has none.
    pub namespace: Option<String>,
    /// v1's query.
    pub query: String,
}

/// What a path and a query say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `/api/v1beta1`: what there is.
    Discovery,
    /// Objects.
    Objects(Asked),
}

/// Not a request of v1beta1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// There is, but not so.
    #[error("{0}")]
    Bad(#[from] Refused),
}

/// The path below which all of this is.
pub fn is_v1beta1(path: &str) -> bool {
    path.strip_prefix("/api/v1beta1")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads a path and a query.
pub fn parse(path: &str, query: Option<&str>) -> Result<Request, RequestError> {
    let rest = path.strip_prefix("/api/v1beta1").unwrap_or(path);
    let mut words: Vec<&str> = rest.split('/').filter(|w| !w.is_empty()).collect();
    if words.is_empty() {
        return Ok(Request::Discovery);
    }
    let mut watch = words[0] == "watch";
    if watch {
        words.remove(0);
    }
    let resource = words.first().copied().and_then(Resource::named);
    let (Some(resource), true) = (resource, words.len() <= 2) else {
        return Err(RequestError::NotFound(format!(
            "{path} is not one of v1beta1's paths that are kept: pods, replicationControllers, services and minions, each with a name or without, and watch/ before them; everything else is under /api/v1"
        )));
    };
    let name = words.get(1).copied();
    if let Some(name) = name {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        if !name.bytes().all(allowed) || name.starts_with('.') || name.len() > 253 {
            return Err(
                Refused::at("", format!("{name:?} cannot be the name of an object")).into(),
            );
        }
    }
    let mut namespace = Some("default".to_owned());
    let mut out = form_urlencoded::Serializer::new(String::new());
    let mut fields = Vec::new();
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "namespace" => namespace = Some(value.into_owned()).filter(|n| !n.is_empty()),
            "watch" => watch |= value != "false" && value != "0",
            "labels" | "labelSelector" if !value.is_empty() => {
                out.append_pair("labelSelector", &value);
            }
            "fields" | "fieldSelector" if !value.is_empty() => {
                fields.push(field_selector(resource, &value)?);
            }
            "resourceVersion" if watch_from(&value) => {
                out.append_pair("resourceVersion", &value);
            }
            // Only how it is written, or how long a call waits.
            _ => {}
        }
    }
    if let Some(namespace) = &namespace {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !namespace.bytes().all(allowed) || namespace.len() > 63 {
            return Err(
                Refused::at("namespace", format!("{namespace:?} cannot be a namespace")).into(),
            );
        }
    }
    if watch && let Some(name) = name {
        fields.push(format!("metadata.name={name}"));
    }
    if !fields.is_empty() {
        out.append_pair("fieldSelector", &fields.join(","));
    }
    Ok(Request::Objects(Asked {
        resource,
        name: name.map(str::to_owned),
        watch,
        namespace: namespace.filter(|_| resource.namespaced()),
        query: out.finish(),
    }))
}

/// Whether a version is one to watch from; 0 and nothing are not.
fn watch_from(version: &str) -> bool {
    !version.is_empty() && version != "0"
}

/// Selectors of fields by v1's names.
fn field_selector(resource: Resource, selector: &str) -> Result<String, Refused> {
    let parts = selector.split(',').filter(|part| !part.trim().is_empty());
    let parts: Result<Vec<String>, Refused> = parts
        .map(|part| {
            let at = part.find(['=', '!']).unwrap_or(part.len());
            let (field, rest) = part.split_at(at);
            let new = match (field.trim(), resource) {
                ("name" | "id" | "metadata.name", _) => "metadata.name",
                ("DesiredState.Host" | "desiredState.host", Resource::Pods) => "spec.nodeName",
                ("DesiredState.Status" | "currentState.status", Resource::Pods) => "status.phase",
                ("currentState.replicas", Resource::ReplicationControllers) => "status.replicas",
                ("unschedulable", Resource::Minions) => "spec.unschedulable",
                (other, _) => {
                    return Err(Refused::at(
                        "fields",
                        format!("{} cannot be selected by {other:?}", resource.name()),
                    ));
                }
            };
            let rest = match new {
                "status.phase" => rest
                    .replace("Waiting", "Pending")
                    .replace("Terminated", "Failed"),
                _ => rest.to_owned(),
            };
            Ok(format!("{new}{rest}"))
        })
        .collect();
    Ok(parts?.join(","))
}

impl Asked {
    /// v1's path of all objects that it is about.
    pub fn v1_collection(&self) -> String {
        let name = self.resource.v1_name();
        match &self.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/{name}"),
            None => format!("/api/v1/{name}"),
        }
    }

    /// v1's path of one object.
    pub fn v1_object(&self, name: &str) -> String {
        format!("{}/{name}", self.v1_collection())
    }

    /// v1's path and query of what is there, or of its changes.
    pub fn v1_target(&self) -> String {
        let path = match &self.name {
            Some(name) if !self.watch => return self.v1_object(name),
            _ => self.v1_collection(),
        };
        let watch = if self.watch { "watch=1" } else { "" };
        let parts: Vec<&str> = [watch, self.query.as_str()]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        if parts.is_empty() {
            path
        } else {
            format!("{path}?{}", parts.join("&"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str, query: &str) -> String {
        match parse(path, Some(query)).unwrap() {
            Request::Objects(asked) => asked.v1_target(),
            Request::Discovery => "discovery".to_owned(),
        }
    }

    #[test]
    fn paths_and_queries_have_their_counterparts() {
        for (path, query, expected) in [
            ("/api/v1beta1", "", "discovery"),
            ("/api/v1beta1/pods", "", "/api/v1/namespaces/default/pods"),
            (
                "/api/v1beta1/pods/php",
                "namespace=web",
                "/api/v1/namespaces/web/pods/php",
            ),
            ("/api/v1beta1/pods", "namespace=", "/api/v1/pods"),
            ("/api/v1beta1/minions/", "", "/api/v1/nodes"),
            (
                "/api/v1beta1/nodes/agent-0",
                "namespace=x",
                "/api/v1/nodes/agent-0",
            ),
            (
                "/api/v1beta1/pods",
                "labels=name%3Dfoo,x!%3Dy",
                "/api/v1/namespaces/default/pods?labelSelector=name%3Dfoo%2Cx%21%3Dy",
            ),
            (
                "/api/v1beta1/watch/pods/php",
                "resourceVersion=7",
                "/api/v1/namespaces/default/pods?watch=1&resourceVersion=7&fieldSelector=metadata.name%3Dphp",
            ),
            (
                "/api/v1beta1/services",
                "watch=true&resourceVersion=0",
                "/api/v1/namespaces/default/services?watch=1",
            ),
            (
                "/api/v1beta1/pods",
                "fields=DesiredState.Host%3Da,DesiredState.Status!%3DTerminated",
                "/api/v1/namespaces/default/pods?fieldSelector=spec.nodeName%3Da%2Cstatus.phase%21%3DFailed",
            ),
        ] {
            assert_eq!(target(path, query), expected, "{path}?{query}");
        }
    }

    #[test]
    fn other_paths_are_said_to_be_elsewhere_and_odd_words_are_refused() {
        for path in [
            "/api/v1beta1/endpoints",
            "/api/v1beta1/pods/a/b",
            "/api/v1beta1/watch",
            "/api/v1beta1/proxy/pods/a",
        ] {
            assert!(
                matches!(parse(path, None), Err(RequestError::NotFound(_))),
                "{path}"
            );
        }
        for (path, query) in [
            ("/api/v1beta1/pods/..", ""),
            ("/api/v1beta1/pods/a%2fb", ""),
            ("/api/v1beta1/pods", "namespace=a/b"),
            ("/api/v1beta1/services", "fields=DesiredState.Host%3Da"),
        ] {
            assert!(
                matches!(parse(path, Some(query)), Err(RequestError::Bad(_))),
                "{path}"
            );
        }
        assert!(!is_v1beta1("/api/v1beta10/pods"));
    }

    proptest::proptest! {
        #[test]
        fn no_request_leaves_the_objects_that_it_names(path in "/api/v1beta1/[a-zA-Z./%?#-]{0,40}", query in ".{0,40}") {
            if let Ok(Request::Objects(asked)) = parse(&path, Some(&query)) {
                let target = asked.v1_target();
                let path = target.split('?').next().unwrap();
                proptest::prop_assert!(path.starts_with("/api/v1/"));
                proptest::prop_assert!(path.split('/').all(|s| s != ".."));
                proptest::prop_assert!(!path.contains('%') && !path.contains('#'));
                proptest::prop_assert!(path.split('/').count() <= 7);
            }
        }
    }
}
