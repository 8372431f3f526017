//! The task's sandbox, and what Mesos and Marathon tell a task about where it is.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use packaging::pki::Pki;
use packaging::run::RunSpec;

use super::Error;

/// Where a task is.
#[derive(Debug, Clone)]
pub struct Sandbox {
    dir: PathBuf,
    beside: PathBuf,
}

impl Sandbox {
    /// This task's.
    pub fn here(_: &RunSpec) -> Result<Self, Error> {
        let read = |path: &str| {
            let path = PathBuf::from(path);
            move |source| Error::Read { path, source }
        };
        // Docker begins where its image says, Mesos in the sandbox unless the image says otherwise.
        // Children find sockets by the working directory they inherit.
        if let Some(told) = std::env::var_os("MESOS_SANDBOX") {
            let told = PathBuf::from(told);
            std::env::set_current_dir(&told)
                .map_err(|source| Error::Read { path: told, source })?;
        }
        let dir = std::env::current_dir().map_err(read("."))?;
        let beside = std::env::current_exe().map_err(read("/proc/self/exe"))?;
        let beside = beside.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { dir, beside })
    }

    /// The directory: the working directory of the task.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where keys go.
    pub fn pki_dir(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> Pki {
        Pki::new(self.pki_dir())
    }

    /// Where configuration files go.
    pub fn config_dir(&self) -> PathBuf {
        self.dir.join("config")
    }

    /// A socket in the sandbox. A socket's path has at most 107 bytes, and a sandbox's is longer;
    /// all processes of a task have it as their working directory, so this names it for each.
    pub fn socket(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/cwd").join(name)
    }

    /// A program: fetched, of the image, or of the system.
    pub fn program(&self, name: &str) -> Result<PathBuf, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        [self.dir.clone(), self.beside.clone()]
            .into_iter()
            .chain(std::env::split_paths(&path))
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| Error::NoProgram(name.to_owned()))
    }

    /// Checks the programs that were fetched.
    pub fn check_programs(&self, spec: &RunSpec) -> Result<(), Error> {
        for (name, wanted) in &spec.programs {
            let path = self.program(name)?;
            let read = |source| Error::Read {
                path: path.clone(),
                source,
            };
            let file = std::fs::File::open(&path).map_err(read)?;
            let reader = std::io::BufReader::with_capacity(1 << 20, file);
            let (found, _) = packaging::image::digest_reader(reader).map_err(read)?;
            if found != *wanted {
                return Err(Error::Digest {
                    path,
                    found,
                    wanted: wanted.clone(),
                });
            }
        }
        Ok(())
    }

    /// The agent's address, as other machines reach it.
    pub fn address(&self) -> Result<IpAddr, Error> {
        let variable = |name: &str| std::env::var(name).ok();
        address(
            variable("MESOS_AGENT_ENDPOINT").as_deref(),
            variable("LIBPROCESS_IP").as_deref(),
            variable("HOST").as_deref(),
            |name| {
                (name, 0)
                    .to_socket_addrs()
                    .map(|found| found.map(|a| a.ip()).collect())
                    .unwrap_or_default()
            },
        )
    }
}

/// Mesos tells an executor the agent's endpoint and address, Marathon tells a task the agent's
/// host name.
fn address(
    endpoint: Option<&str>,
    libprocess: Option<&str>,
    host: Option<&str>,
    resolve: impl Fn(&str) -> Vec<IpAddr>,
) -> Result<IpAddr, Error> {
    let good = |ip: &IpAddr| ip.is_ipv4() && !ip.is_unspecified();
    let endpoint = endpoint
        .and_then(|e| e.parse::<SocketAddr>().ok())
        .map(|e| e.ip());
    let libprocess = libprocess.and_then(|ip| ip.parse().ok());
    if let Some(ip) = [endpoint, libprocess].into_iter().flatten().find(good) {
        return Ok(ip);
    }
    let Some(host) = host else {
        return Err(Error::Address(
            "neither MESOS_AGENT_ENDPOINT nor LIBPROCESS_IP nor HOST say it".to_owned(),
        ));
    };
    let found = resolve(host);
    // A machine's own name often stands for 127.0.1.1 in its /etc/hosts.
    found
        .iter()
        .find(|ip| good(ip) && !ip.is_loopback())
        .copied()
        .ok_or_else(|| Error::Address(format!("`{host}` (HOST) has no address but {found:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_word_comes_first_and_then_its_host_name() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let names = |name: &str| match name {
            "agent-1" => vec![ip("127.0.1.1"), ip("192.0.2.1")],
            _ => vec![ip("127.0.1.1")],
        };
        let found = address(
            Some("192.0.2.9:5051"),
            Some("0.0.0.0"),
            Some("agent-1"),
            names,
        );
        assert_eq!(found.unwrap(), ip("192.0.2.9"));
        let found = address(None, Some("0.0.0.0"), Some("agent-1"), names);
        assert_eq!(found.unwrap(), ip("192.0.2.1"));
        let error = address(None, None, Some("agent-2"), names).unwrap_err();
        assert!(error.to_string().contains("agent-2"), "{error}");
        assert!(address(None, None, None, names).is_err());
    }

    #[test]
    fn a_program_that_is_not_the_one_meant_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Sandbox {
            dir: dir.path().to_owned(),
            beside: dir.path().to_owned(),
        };
        std::fs::write(dir.path().join("etcd"), "abc").unwrap();
        let spec = |digest: &str| {
            let text = format!(
                r#"{{"version":1,"cluster":"k","install":"i","log_level":"info","programs":{{"etcd":"{digest}"}},
                "run":{{"component":"proxy","api_servers":[],"port":1,"http_port":2,"metrics_port":3,"legacy_port":null,"max_connections":9,"extra_args":[]}}}}"#
            );
            RunSpec::parse(&text, "proxy").unwrap()
        };
        let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        sandbox.check_programs(&spec(good)).unwrap();
        let error = sandbox.check_programs(&spec(&"0".repeat(64))).unwrap_err();
        assert!(error.to_string().contains("damaged or replaced"), "{error}");
    }
}
