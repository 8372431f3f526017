//! Options about who is who, what is kept secret, and how the outside world is reached.

use crate::options::format::Format;
use crate::options::group::group;

group! {
    /// Certificates and keys.
    Pki {
        /// How the apps get their keys. `secrets`: from Marathon's secrets; `file`: from a file on
        /// the agents; `uri`: fetched from `pki.uri`; `env`: in the apps' environment, which
        /// everybody who may read Marathon's apps can read; `auto`: `secrets` where Marathon has
        /// them, else `env`.
        source: String = "auto".to_owned(), [one_of(&["auto", "secrets", "file", "uri", "env"])];
        /// Path in the secret store below which the secrets are; empty: the folder of each app,
        /// `<service.name>-cp` and for the framework's `<service.name>`, since DC/OS lets an app use
        /// only secrets in a folder that its id begins with.
        secret_path: String = String::new(), [optional(), format(Format::SecretPath), advanced()];
        /// Directory on the agents with one file per component, `<component>.json`, for `file`.
        file: String = String::new(), [optional(), format(Format::Path)];
        /// Where the files `<component>.json` can be fetched, for `uri`. Only agents should reach
        /// it.
        uri: String = String::new(), [optional(), format(Format::FetchUri)];
        /// Directory, on the machine where `k8sm install` runs, with the operator's own authorities
        /// (`ca.crt`, `ca.key`, and likewise `etcd-ca` and `front-proxy-ca`); empty: new ones are
        /// made.
        ca: String = String::new(), [optional(), format(Format::Path), fixed()];
        /// Life of certificates; they are renewed in the last third of it.
        certificate_days: u32 = 365, [range(1, 3650), unit("days"), advanced()];
    }
}

group! {
    /// Registries that nodes pull images from.
    Registry {
        /// Mirrors, `registry=URL`, for instance `docker.io=https://mirror.example.org`; `_default`
        /// stands for all other registries.
        mirrors: Vec<String> = Vec::new(), [format(Format::Mirror)];
        /// Certificates (PEM) of the authorities that signed the registries' certificates, besides
        /// those of the operating system.
        cas: Vec<String> = Vec::new(), [format(Format::Certificates), longest(16)];
    }
}

group! {
    /// The HTTP proxy that nodes use to reach the outside world.
    HttpProxy {
        /// Proxy for `http://`, as a URL; empty: none.
        http: String = String::new(), [optional(), format(Format::HttpUrl)];
        /// Proxy for `https://`, as a URL; empty: none.
        https: String = String::new(), [optional(), format(Format::HttpUrl)];
        /// Names, domains and ranges that are reached without a proxy. The cluster's own are added.
        no_proxy: Vec<String> = Vec::new(), [];
    }
}

group! {
    /// Users from an OpenID Connect provider.
    Oidc {
        /// URL of the provider; empty: none.
        issuer_url: String = String::new(), [optional(), format(Format::HttpsUrl)];
        /// Client that tokens must be issued for.
        client_id: String = String::new(), [optional()];
        /// Claim that is the user's name.
        username_claim: String = "sub".to_owned(), [];
        /// Prefix of user names, so that they cannot be mistaken for others; `-` is none.
        username_prefix: String = "oidc:".to_owned(), [];
        /// Claim that holds the user's groups; empty: none.
        groups_claim: String = String::new(), [optional()];
        /// Prefix of groups.
        groups_prefix: String = "oidc:".to_owned(), [optional()];
        /// Certificates (PEM) of the authorities that signed the provider's certificate; empty:
        /// those of the operating system.
        ca: String = String::new(), [optional(), format(Format::Certificates), longest(65_536)];
        /// Claims that tokens must have, `claim=value`.
        required_claims: Vec<String> = Vec::new(), [format(Format::Pair), advanced()];
    }
}

group! {
    /// The audit log of the API servers.
    Audit {
        /// Whether there is one, in the API servers' sandboxes.
        enabled: bool = false, [];
        /// What is logged: `metadata` of all requests, `requests` with their bodies (never those of
        /// Secrets and tokens), or `policy`, as `audit.policy` says.
        level: String = "metadata".to_owned(), [one_of(&["metadata", "requests", "policy"])];
        /// A Kubernetes audit policy (YAML) for the level `policy`.
        policy: String = String::new(), [optional(), longest(65_536)];
        /// Largest log file.
        max_size: u32 = 50, [range(1, 10_240), unit("MiB")];
        /// Old log files that are kept.
        max_backups: u32 = 4, [range(0, 1000)];
    }
}

group! {
    /// Encryption of Secrets in etcd.
    Encryption {
        /// Whether Secrets are encrypted in etcd. Turned off later, they stay readable and become
        /// plain when they are next written.
        enabled: bool = true, [];
        /// Resources that are encrypted besides Secrets, `configmaps` or `resource.group`.
        resources: Vec<String> = Vec::new(), [format(Format::Domain), advanced()];
    }
}
