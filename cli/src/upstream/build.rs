//! The build: finds Go, builds what is missing one at a time, checks it, records its licences.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::cache::{Cache, Key, write_atomically};
use super::licenses;
use super::table::{Component, Set};
use super::{Error, Result};

/// Space that a build from nothing takes, Go's caches included: 4.6 GiB were seen, of which
/// 0.7 GiB are the programs.
const SPACE_GIB: u64 = 6;
/// How long a build waits for another one: a whole build from cold caches takes 10 to 20 minutes.
const PATIENCE: Duration = Duration::from_secs(45 * 60);
/// How much of Go's output an error shows.
const TAIL_LINES: usize = 25;
/// How long a program may take to print its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// The result of a build: every component of the set, complete.
#[derive(Debug, Clone)]
pub struct Ready {
    /// A folder with a link per component.
    pub bin: PathBuf,
    /// What was built by this call, with how long it took.
    pub built: Vec<(&'static str, Duration)>,
}

/// The Go tool.
#[derive(Debug, Clone)]
pub struct Go {
    path: PathBuf,
    /// For instance `go1.26.8`.
    pub version: String,
    module_cache: PathBuf,
}

impl Go {
    /// Finds a `go` that builds all of these, by `$GO`, PATH and the place where its own installer
    /// puts it.
    pub fn find(wanted: &[&'static Component]) -> Result<Self> {
        let need = need(wanted);
        let candidates = std::env::var_os("GO")
            .map(|it| vec![PathBuf::from(it)])
            .unwrap_or_else(|| {
                vec![
                    PathBuf::from("go"),
                    PathBuf::from("/usr/local/go/bin/go"),
                    PathBuf::from("/usr/lib/go/bin/go"),
                ]
            });
        for path in candidates {
            let Ok(output) = Command::new(&path)
                .args(["env", "GOVERSION", "GOMODCACHE"])
                .env("GOTOOLCHAIN", "local")
                .stderr(Stdio::null())
                .output()
            else {
                continue;
            };
            let text = String::from_utf8_lossy(&output.stdout);
            let mut lines = text.lines();
            if let (true, Some(version), Some(module_cache)) =
                (output.status.success(), lines.next(), lines.next())
            {
                let go = Self {
                    path,
                    version: version.to_owned(),
                    module_cache: PathBuf::from(module_cache),
                };
                return go.check(need);
            }
        }
        Err(Error::GoMissing { need })
    }

    fn check(self, need: &'static str) -> Result<Self> {
        if numbers(&self.version) < numbers(need) {
            return Err(Error::GoTooOld {
                found: self.version,
                need,
                path: self.path,
            });
        }
        Ok(self)
    }
}

/// The oldest Go that builds all of these.
fn need(wanted: &[&'static Component]) -> &'static str {
    wanted
        .iter()
        .map(|it| it.project.go())
        .max_by_key(|version| numbers(version))
        .unwrap_or("1")
}

/// The numbers of a version, for comparison: `go1.26.8` is `[1, 26, 8]`, `go1.27rc1` is `[1, 27]`.
fn numbers(version: &str) -> Vec<u32> {
    version
        .trim_start_matches("go")
        .split('.')
        .map_while(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}

/// What is complete and what is missing, without building anything.
#[derive(Debug)]
pub struct Plan {
    /// Complete components with their programs.
    pub ready: Vec<(&'static Component, Key, PathBuf)>,
    /// Components to build, in order.
    pub missing: Vec<(&'static Component, Key)>,
}

impl Plan {
    /// Looks at the cache.
    pub fn new(cache: &Cache, go: &Go, wanted: &[&'static Component]) -> Self {
        let mut plan = Self {
            ready: Vec::new(),
            missing: Vec::new(),
        };
        for component in wanted {
            let key = Key::of(component, &go.version);
            match cache.program(component, &key) {
                Some(path) => plan.ready.push((component, key, path)),
                None => plan.missing.push((component, key)),
            }
        }
        plan
    }
}

/// The components that may be named: with a set that is not the smallest its own.
fn known(set: Set) -> impl Iterator<Item = &'static Component> {
    match set {
        Set::Cluster | Set::All => Set::All.components(),
        Set::Previous => Set::Previous.components(),
    }
}

/// The components that are named, or those of the set.
pub fn select(set: Set, only: &[String]) -> Result<Vec<&'static Component>> {
    if only.is_empty() {
        return Ok(set.components().collect());
    }
    only.iter()
        .map(|name| {
            let mut known = known(set);
            known
                .find(|it| it.name == name)
                .ok_or_else(|| Error::Unknown {
                    name: name.clone(),
                    known: self::known(set)
                        .map(|it| it.name)
                        .collect::<Vec<_>>()
                        .join(", "),
                })
        })
        .collect()
}

/// Builds what is missing of `wanted` and returns where all of it is. With a complete cache this
/// takes about 20 ms (one run of `go env`).
pub fn build(cache: &Cache, wanted: &[&'static Component]) -> Result<Ready> {
    let go = Go::find(wanted)?;
    let mut plan = Plan::new(cache, &go, wanted);
    let mut built = Vec::new();
    if !plan.missing.is_empty() {
        let _lock = cache.lock(PATIENCE)?;
        // Another build may have done it while this one waited.
        plan = Plan::new(cache, &go, wanted);
        check_tools(&plan)?;
        check_space(cache, &plan)?;
        let progress = Progress::new(&plan);
        for (component, key) in &plan.missing {
            let start = Instant::now();
            progress.start(component);
            build_one(cache, &go, component, key, &progress)?;
            progress.done(component, start.elapsed());
            built.push((component.name, start.elapsed()));
        }
        progress.finish();
        plan = Plan::new(cache, &go, wanted);
    }
    let programs: Vec<(&'static Component, PathBuf)> = plan
        .ready
        .into_iter()
        .map(|(component, _, path)| (component, path))
        .collect();
    Ok(Ready {
        bin: cache.view(&programs)?,
        built,
    })
}

/// Notices a missing compiler or library before minutes are spent.
fn check_tools(plan: &Plan) -> Result<()> {
    let Some((component, _)) = plan.missing.iter().find(|(it, _)| it.cgo) else {
        return Ok(());
    };
    let runs = |program: &str, args: &[&str]| {
        Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|it| it.success())
    };
    if !runs("cc", &["--version"]) {
        return Err(Error::ToolMissing {
            component: component.name,
            what: "a C compiler (`cc`)",
            remedy: "`gcc` and `libc6-dev` (Debian: apt-get install gcc libc6-dev)",
        });
    }
    if !runs("pkg-config", &["--exists", "libseccomp"]) {
        return Err(Error::ToolMissing {
            component: component.name,
            what: "libseccomp with its headers, and pkg-config to find it",
            remedy: "`libseccomp-dev` and `pkg-config` (Debian: apt-get install libseccomp-dev pkg-config)",
        });
    }
    Ok(())
}

/// Notices a disk that is too small for a build from nothing. A partial build is let through:
/// Go's caches hold most of it already.
fn check_space(cache: &Cache, plan: &Plan) -> Result<()> {
    if !plan.ready.is_empty() {
        return Ok(());
    }
    let dir = cache.upstream();
    let stat = nix::sys::statvfs::statvfs(&dir)
        .map_err(|errno| Error::io("look at the space of", &dir)(errno.into()))?;
    let free = stat.blocks_available() as u128 * stat.fragment_size() as u128;
    if free < u128::from(SPACE_GIB) << 30 {
        return Err(Error::NoSpace {
            component: "the components",
            need_gib: SPACE_GIB,
            cache: dir,
        });
    }
    Ok(())
}

fn build_one(
    cache: &Cache,
    go: &Go,
    component: &'static Component,
    key: &Key,
    progress: &Progress,
) -> Result<()> {
    let modules = cache.module_dir(&component.project)?;
    let temporary = cache.upstream().join(format!(".{}", key.as_str()));
    // What an interrupted build left; the lock says that nobody else uses it.
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?;
    }
    fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
    let program = temporary.join(component.name);
    let mut command = Command::new(&go.path);
    command
        .current_dir(&modules)
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
        .args(["-ldflags", &component.linker_flags()])
        .arg("-o")
        .arg(&program)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", if component.cgo { "1" } else { "0" });
    if !component.tags.is_empty() {
        command.args(["-tags", component.tags]);
    }
    command.arg(component.package);
    run_go(&mut command, component, cache, progress)?;
    check_version(component, &program)?;
    write_licenses(cache, go, &program, &temporary, component)?;
    let entry = cache.entry(key);
    if entry.exists() {
        fs::remove_dir_all(&entry).map_err(Error::io("remove", &entry))?;
    }
    fs::rename(&temporary, &entry).map_err(Error::io("rename to", &entry))
}

fn run_go(
    command: &mut Command,
    component: &'static Component,
    cache: &Cache,
    progress: &Progress,
) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("start", command.get_program()))?;
    let mut tail: std::collections::VecDeque<String> = std::collections::VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n').map_while(|it| it.ok()) {
            let line = String::from_utf8_lossy(&line).into_owned();
            progress.line(component, &line);
            tail.push_back(line);
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
        }
    }
    let status = child
        .wait()
        .map_err(Error::io("wait for", command.get_program()))?;
    if status.success() {
        return Ok(());
    }
    Err(explain(component, cache, Vec::from(tail).join("\n")))
}

/// Turns Go's words into the error that names the remedy.
fn explain(component: &'static Component, cache: &Cache, output: String) -> Error {
    let component = component.name;
    let has = |needle: &str| output.contains(needle);
    if has("checksum mismatch") || has("SECURITY ERROR") || has("missing go.sum entry") {
        Error::Checksum { component, output }
    } else if has("no space left on device") {
        Error::NoSpace {
            component,
            need_gib: SPACE_GIB,
            cache: cache.upstream(),
        }
    } else if has("dial tcp")
        || has("proxyconnect")
        || has("TLS handshake")
        || has("i/o timeout")
        || has("connection refused")
    {
        Error::Download { component, output }
    } else {
        Error::Failed { component, output }
    }
}

/// Runs the program and looks for the pinned version in what it prints.
fn check_version(component: &'static Component, program: &Path) -> Result<()> {
    let Some(args) = component.version_args else {
        return Ok(());
    };
    let said = ask_version(program, args)?;
    if said.contains(component.bare_version()) {
        return Ok(());
    }
    Err(Error::WrongVersion {
        component: component.name,
        want: component.version().to_owned(),
        said: said.lines().next().unwrap_or_default().to_owned(),
    })
}

/// What a program prints with the arguments that make it say its version.
pub(super) fn ask_version(program: &Path, args: &[&str]) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("start", program))?;
    let deadline = Instant::now() + VERSION_DEADLINE;
    while child
        .try_wait()
        .map_err(Error::io("wait for", program))?
        .is_none()
    {
        if Instant::now() >= deadline {
            // It is our own child and prints nothing of worth any more.
            let _ = child.kill();
            let _ = child.wait();
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut said = String::new();
    for stream in [
        child
            .stdout
            .take()
            .map(|it| Box::new(it) as Box<dyn std::io::Read>),
        child
            .stderr
            .take()
            .map(|it| Box::new(it) as Box<dyn std::io::Read>),
    ]
    .into_iter()
    .flatten()
    {
        let mut bytes = Vec::new();
        // 64 KiB: a version is a few lines, whatever else it prints.
        let _ = stream.take(64 << 10).read_to_end(&mut bytes);
        said.push_str(&String::from_utf8_lossy(&bytes));
    }
    Ok(said)
}

fn write_licenses(
    cache: &Cache,
    go: &Go,
    program: &Path,
    folder: &Path,
    component: &'static Component,
) -> Result<()> {
    let output = Command::new(&go.path)
        .args(["version", "-m"])
        .arg(program)
        .output()
        .map_err(Error::io("read the modules of", program))?;
    let mut modules = licenses::parse_build_info(&String::from_utf8_lossy(&output.stdout));
    modules.push(licenses::Module {
        path: component.project.module.to_owned(),
        version: component.version().to_owned(),
    });
    modules.sort();
    modules.dedup();
    let listing = licenses::collect(
        &modules,
        &go.module_cache,
        &cache.upstream().join("licenses"),
    )?;
    let head = format!(
        "# Modules in {} {}: module, version, licence, files (texts in ../licenses)\n",
        component.name,
        component.version()
    );
    write_atomically(
        &folder.join("LICENSES.tsv"),
        format!("{head}{listing}").as_bytes(),
    )
}

/// A bar on a terminal, a line per component elsewhere.
struct Progress {
    bar: ProgressBar,
    plain: bool,
    total: u32,
}

impl Progress {
    fn new(plan: &Plan) -> Self {
        use std::io::IsTerminal as _;
        let total: u32 = plan.missing.iter().map(|(it, _)| it.seconds).sum();
        let plain = !std::io::stderr().is_terminal();
        let count = plan.missing.len();
        let first = format!(
            "building {count} upstream component{} from source, once; about {} min on 2 cores from cold caches",
            if count == 1 { "" } else { "s" },
            total.div_ceil(60)
        );
        eprintln!("{first}");
        let bar = if plain {
            ProgressBar::hidden()
        } else {
            let bar = ProgressBar::new(u64::from(total.max(1)));
            let style = ProgressStyle::with_template(
                "{elapsed_precise} [{bar:30}] {percent:>3}% {wide_msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        };
        Self { bar, plain, total }
    }

    fn start(&self, component: &Component) {
        let message = format!("{} {}", component.name, component.version());
        if self.plain {
            eprintln!("  building {message} (about {} s)", component.seconds);
        }
        self.bar.set_message(message);
    }

    fn line(&self, component: &Component, line: &str) {
        if let Some(module) = line.strip_prefix("go: downloading ") {
            self.bar
                .set_message(format!("{}: downloading {module}", component.name));
        }
    }

    fn done(&self, component: &Component, took: Duration) {
        self.bar.inc(u64::from(component.seconds));
        let line = format!(
            "  built {} {} in {} s",
            component.name,
            component.version(),
            took.as_secs()
        );
        if self.plain {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    fn finish(&self) {
        self.bar.set_position(u64::from(self.total));
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::COMPONENTS;
    use super::*;

    fn explained(output: &str) -> Error {
        let cache = Cache::new(Some(PathBuf::from("/cache")));
        explain(&COMPONENTS[0], &cache, output.to_owned())
    }

    #[test]
    fn versions_of_go_compare_by_number() {
        assert!(numbers("go1.26.8") >= numbers("1.26.0"));
        assert!(numbers("go1.26.0") >= numbers("1.26.0"));
        assert!(numbers("go1.9.7") < numbers("1.26.0"));
        assert!(numbers("go1.25.12") < numbers("1.26.0"));
        assert!(numbers("go1.27rc1") >= numbers("1.26.0"));
    }

    #[test]
    fn the_go_that_is_needed_is_the_newest_that_any_wanted_module_names() {
        let all: Vec<_> = Set::All.components().collect();
        for it in &all {
            assert!(
                numbers(need(&all)) >= numbers(it.project.go()),
                "{}",
                it.name
            );
        }
        assert_eq!(need(&[]), "1");
    }

    #[test]
    fn what_go_says_becomes_an_error_that_names_the_remedy() {
        let shown = [
            explained("verifying github.com/x@v1: checksum mismatch\n\tdownloaded: h1:a\n\tgo.sum: h1:b\nSECURITY ERROR"),
            explained("write /cache/x: no space left on device"),
            explained("Get \"https://proxy/x\": dial tcp: lookup proxy: no such host"),
            explained("x.go:1:1: syntax error"),
            Error::GoMissing { need: "1.26.0" },
            Error::GoTooOld { found: "go1.19.8".into(), need: "1.26.0", path: "/usr/bin/go".into() },
        ]
        .map(|it| format!("{it}\nretryable: {}", it.retryable()));
        insta::assert_snapshot!(shown.join("\n---\n"));
    }

    #[test]
    fn an_unknown_component_is_named_with_the_known_ones() {
        let error = select(Set::Cluster, &["kubelt".to_owned()]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no component is called `kubelt`; there are: runc, ")
        );
    }

    #[test]
    fn a_program_that_says_another_version_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("runc");
        fs::write(&program, "#!/bin/sh\necho runc version 0.0.1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let error = check_version(&COMPONENTS[0], &program).unwrap_err();
        assert!(matches!(error, Error::WrongVersion { .. }), "{error}");
    }
}
