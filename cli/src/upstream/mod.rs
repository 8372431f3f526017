//! Upstream components: built here from their Go modules, pinned, checked, cached.
//!
//! `docker/upstream/<project>/go.mod` and `go.sum` pin each project. They are compiled into this
//! program, so an installed `k8sm` builds the same bytes as one in a checkout; `go.sum` is the
//! checksum of every module, enforced by the Go tool itself (`-mod=readonly`).
//!
//! A built component lives in a folder of its own below the cache, named by everything that
//! decides its bytes: pins, package, flags, Go version, architecture ([`cache::Key`]). The folder
//! appears by one `rename`, so an interrupted build leaves nothing that looks complete, and Go's
//! own build cache makes the next try short. Components build one at a time, because one already
//! uses all cores and the linker's memory is the limit. A lock keeps two builds apart.
//!
//! Entry points: [`build()`] for other commands, [`cmd`] for `k8sm upstream`.

pub mod build;
pub mod cache;
pub mod cmd;
pub mod licenses;
pub mod table;
pub mod versions;

pub use build::{Ready, build};
pub use cache::Cache;
pub use cmd::UpstreamArgs;
pub use table::{Component, Set};
pub use versions::Versions;

use std::path::PathBuf;

/// What went wrong, and what to do about it. None of these is worth an unattended retry, except
/// [`Error::Download`], which a network may mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Go tool is not there.
    #[error(
        "Go is not installed (looked for `go` in PATH and in /usr/local/go/bin): install Go {need} or later, or set GO to its path"
    )]
    GoMissing {
        /// Oldest version that builds every component.
        need: &'static str,
    },
    /// The Go tool is too old.
    #[error("Go {found} at {path} is too old: upstream Kubernetes needs Go {need} or later; install it, or set GO to its path", path = path.display())]
    GoTooOld {
        /// What was found.
        found: String,
        /// Oldest version that builds every component.
        need: &'static str,
        /// Where it was found.
        path: PathBuf,
    },
    /// A C compiler or a library that a component links is missing.
    #[error("{component} needs {what}: install {remedy}")]
    ToolMissing {
        /// The component.
        component: &'static str,
        /// What is missing.
        what: &'static str,
        /// What to install.
        remedy: &'static str,
    },
    /// A module does not have the content that `go.sum` pins.
    #[error(
        "a module of {component} does not match its pinned checksum, which is either a tampered download or a broken proxy; nothing was built from it. \
             Clean the module cache (`go clean -modcache`) and try again; if it persists, do not go on. Go said:\n{output}"
    )]
    Checksum {
        /// The component.
        component: &'static str,
        /// The end of what Go printed.
        output: String,
    },
    /// No space left.
    #[error("no space left while building {component}: about {need_gib} GiB are needed below {cache} and Go's caches (`go env GOCACHE GOMODCACHE`); \
             free some, or set K8SM_CACHE, GOCACHE and GOMODCACHE to another disk", cache = cache.display())]
    NoSpace {
        /// The component, or `the components` when it was noticed before the start.
        component: &'static str,
        /// What a build from nothing takes, in GiB.
        need_gib: u64,
        /// The cache.
        cache: PathBuf,
    },
    /// A module could not be fetched.
    #[error(
        "a module of {component} could not be fetched; check the network and `go env GOPROXY`, then run the same command again, it goes on where it stopped. Go said:\n{output}"
    )]
    Download {
        /// The component.
        component: &'static str,
        /// The end of what Go printed.
        output: String,
    },
    /// The compiler failed.
    #[error("building {component} failed; Go said:\n{output}")]
    Failed {
        /// The component.
        component: &'static str,
        /// The end of what Go printed.
        output: String,
    },
    /// The program that was built says another version than the pin.
    #[error(
        "{component} was built, but says `{said}` where {want} was expected; this is a mistake in its build flags, please report it"
    )]
    WrongVersion {
        /// The component.
        component: &'static str,
        /// What the pin says.
        want: String,
        /// The first line that it printed.
        said: String,
    },
    /// A name that is no component's.
    #[error("no component is called `{name}`; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// Another build holds the lock.
    #[error("another `k8sm upstream build` has held {lock} for {minutes} minutes; wait for it, or end it", lock = lock.display())]
    Locked {
        /// The lock file.
        lock: PathBuf,
        /// How long this one waited.
        minutes: u64,
    },
    /// A file could not be read or written.
    #[error("could not {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// Names the attempt of an I/O error.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether the same command may succeed later without anybody doing anything.
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Download { .. } | Self::Locked { .. })
    }
}

/// Alias with this module's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
