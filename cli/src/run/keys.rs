//! Where a task's keys come from: the operator's file, a fetched file, or the environment.

use std::path::{Path, PathBuf};

use packaging::pki::{Bundle, Component};
use packaging::run::{PKI_ENV, PKI_FILE, PKI_FILE_ENV};

use super::{Error, Sandbox};

/// The component's bundle.
pub(super) fn bundle(sandbox: &Sandbox, component: Component) -> Result<Bundle, Error> {
    let named = std::env::var_os(PKI_FILE_ENV).map(PathBuf::from);
    let text = std::env::var(PKI_ENV).ok();
    find(sandbox.dir(), named.as_deref(), text.as_deref(), component)
}

fn find(
    sandbox: &Path,
    named: Option<&Path>,
    text: Option<&str>,
    component: Component,
) -> Result<Bundle, Error> {
    let read = |path: &Path| -> Result<Bundle, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let origin = path.display().to_string();
        Ok(Bundle::parse(&text, &origin, component)?)
    };
    if let Some(path) = named {
        return read(path);
    }
    let fetched = sandbox.join(PKI_FILE);
    if fetched.exists() {
        let bundle = read(&fetched)?;
        // It was fetched with the mode of the agent's choice, and is not needed any more: the
        // fetcher brings it again when the task is started again.
        packaging::files::keep_secret(&fetched)?;
        return Ok(bundle);
    }
    match text {
        Some(text) => Ok(Bundle::parse(text, "the variable K8SM_PKI", component)?),
        None => Err(Error::NoKeys),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn json(mark: &str) -> String {
        let files = Component::Proxy
            .files()
            .into_iter()
            .map(|name| (name, mark.to_owned()))
            .collect();
        Bundle::new(Component::Proxy, files).unwrap().to_json()
    }

    fn mark(found: &Result<Bundle, Error>) -> &str {
        found.as_ref().unwrap().file("ca.crt").unwrap()
    }

    #[test]
    fn the_operators_file_comes_before_the_fetched_one_and_that_before_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named.json");
        std::fs::write(&named, json("named")).unwrap();
        let environment = json("environment");
        let get =
            |named: Option<&Path>| find(dir.path(), named, Some(&environment), Component::Proxy);
        assert_eq!(mark(&get(None)), "environment");
        let fetched = dir.path().join(PKI_FILE);
        std::fs::write(&fetched, json("fetched")).unwrap();
        assert_eq!(mark(&get(None)), "fetched");
        let mode = std::fs::metadata(&fetched).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "nobody else may read it");
        assert_eq!(mark(&get(Some(&named))), "named");
        let missing = get(Some(&dir.path().join("missing.json"))).unwrap_err();
        assert!(missing.to_string().contains("missing.json"), "{missing}");
    }

    #[test]
    fn without_keys_the_ways_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(dir.path(), None, None, Component::Proxy).unwrap_err();
        assert!(error.to_string().contains("pki.source"), "{error}");
    }

    #[test]
    fn another_components_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text = json("x");
        assert!(find(dir.path(), None, Some(&text), Component::Framework).is_err());
    }
}
