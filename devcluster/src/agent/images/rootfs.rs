//! The root file system of one container: the image below, a layer of the container's own above,
//! and what every container sees besides. The mounts are those of Mesos' isolator
//! `filesystem/linux`.
//!
//! They are made in a mount namespace that belongs to the container alone, so nothing of them is
//! left when its last process has ended. Targets are made and followed after the root has been
//! changed: no link of an image leads to the agent. Sources are opened before, by descriptors that
//! no link of the image can redirect.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot, pivot_root};
use oci::model::RunConfig;
use serde::{Deserialize, Serialize};

use super::{Bind, Manner, SANDBOX};

/// Devices that every container has.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Links in `/dev`.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// What may only be read, unless the container is privileged.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// What is hidden, unless the container is privileged.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Files of the agent that containers on its network see as their own.
const NETWORK_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
/// Where the agent's file system is while the mounts are made.
const OLD_ROOT: &str = "/.mesos-old-root";

/// What a container's init process and command executor need to know of its image; written to
/// [`ContainerImage::FILE`] in the container's runtime directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerImage {
    /// Its root file system.
    pub rootfs: Rootfs,
    /// What the image runs.
    pub run: RunConfig,
    /// Whose manners it has.
    pub manner: Manner,
    /// Numeric user and group of the task; none to stay who the agent is.
    pub user: Option<(u32, u32)>,
    /// Program and arguments that become [`super::enter::main`].
    pub helper: Vec<String>,
}

impl ContainerImage {
    /// Its file in the runtime directory of a container.
    pub const FILE: &'static str = "image.json";
}

/// A root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The image's files.
    pub lower: PathBuf,
    /// Directory of the container's own layer: its runtime directory.
    pub dir: PathBuf,
    /// The sandbox.
    pub sandbox: PathBuf,
    /// What it sees of the agent's.
    pub binds: Vec<Bind>,
    /// Whether nothing is hidden.
    pub privileged: bool,
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}: {source}{hint}", path.display())]
pub struct Error {
    attempt: &'static str,
    path: PathBuf,
    source: io::Error,
    hint: &'static str,
}

fn error<E: Into<io::Error>>(
    attempt: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(E) -> Error {
    let path = path.as_ref().to_owned();
    move |source| Error {
        attempt,
        path,
        source: source.into(),
        hint: "",
    }
}

const NONE: Option<&str> = None;

impl Rootfs {
    /// Whether a container that runs sees these; nothing can be added to it.
    pub fn sees(&self, wanted: &[Bind]) -> Result<(), String> {
        match wanted.iter().find(|bind| !self.binds.contains(bind)) {
            None => Ok(()),
            Some(bind) => Err(format!(
                "the volume at {} cannot be added to a container from an image that runs already",
                bind.target.display()
            )),
        }
    }

    /// Makes the directories of the container's own layer.
    pub fn prepare(&self) -> Result<(), Error> {
        for name in ["upper", "work", "rootfs"] {
            let path = self.dir.join(name);
            match fs::DirBuilder::new().mode(0o755).create(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error("make directory", &path)(e));
                }
                _ => {}
            }
        }
        // The mount's options name it so: a path may hold characters that part options.
        let link = self.dir.join("lower");
        match symlink(&self.lower, &link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(error("link", &link)(e)),
            _ => Ok(()),
        }
    }

    /// Enters the root file system in a mount namespace of this process' own. The process must
    /// have one thread.
    pub fn enter(&self) -> Result<(), Error> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(error("unshare mounts of", "/"))?;
        // What is unmounted on the agent goes here too; nothing of ours shows there.
        let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(NONE, "/", NONE, slave, NONE).map_err(error("make a slave of", "/"))?;
        let sources = self.sources()?;
        self.mount_layers()?;
        let root = self.dir.join("rootfs");
        let old = root.join(OLD_ROOT.trim_start_matches('/'));
        make_dir(&old, 0o700)?;
        chdir(&root).map_err(error("enter", &root))?;
        pivot_root(&root, &old).map_err(error("pivot to", &root))?;
        chroot(".").map_err(error("change the root to", &root))?;
        chdir("/").map_err(error("enter", "/"))?;
        self.mount_system()?;
        for source in &sources {
            source.bind()?;
        }
        if !self.privileged {
            READ_ONLY.iter().try_for_each(|path| read_only(path))?;
            MASKED.iter().try_for_each(|path| mask(path))?;
        }
        // Sources are mounted in their new places; the rest of the agent's files goes.
        umount2(OLD_ROOT, MntFlags::MNT_DETACH).map_err(error("unmount", OLD_ROOT))?;
        fs::remove_dir(OLD_ROOT).map_err(error("remove", OLD_ROOT))
    }

    fn mount_layers(&self) -> Result<(), Error> {
        chdir(&self.dir).map_err(error("enter", &self.dir))?;
        let options = "lowerdir=lower,upperdir=upper,workdir=work";
        mount(
            Some("overlay"),
            "rootfs",
            Some("overlay"),
            MsFlags::empty(),
            Some(options),
        )
        .map_err(|source| Error {
            hint: "; the agent's --work-dir must be on a file system that overlay can write to, and not on an overlay itself",
            ..error("mount an overlay at", self.dir.join("rootfs"))(source)
        })
    }

    /// Everything of the agent's that is seen inside, opened.
    fn sources(&self) -> Result<Vec<Source>, Error> {
        let mut found = Vec::new();
        for name in DEVICES {
            let path = format!("/dev/{name}");
            found.push(Source::open(Path::new(&path), Path::new(&path), false)?);
        }
        for path in NETWORK_FILES {
            if Path::new(path).exists() {
                found.push(Source::open(Path::new(path), Path::new(path), false)?);
            }
        }
        found.push(Source::open(&self.sandbox, Path::new(SANDBOX), false)?);
        for bind in &self.binds {
            found.push(Source::open(&bind.source, &bind.target, bind.read_only)?);
        }
        Ok(found)
    }

    /// File systems that do not come from the agent's.
    fn mount_system(&self) -> Result<(), Error> {
        let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
        let strict = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME;
        let read_only = match self.privileged {
            true => MsFlags::empty(),
            false => MsFlags::MS_RDONLY,
        };
        let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5";
        for (kind, target, flags, data) in [
            ("proc", "/proc", quiet, None),
            ("sysfs", "/sys", quiet | read_only, None),
            ("tmpfs", "/sys/fs/cgroup", quiet, Some("mode=755")),
            (
                "tmpfs",
                "/dev",
                strict | MsFlags::MS_NOEXEC,
                Some("mode=755"),
            ),
            (
                "devpts",
                "/dev/pts",
                MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
                Some(pts),
            ),
            (
                "tmpfs",
                "/dev/shm",
                strict | MsFlags::MS_NODEV,
                Some("mode=1777"),
            ),
        ] {
            // In /sys the kernel has made the directory already.
            if !Path::new(target).is_dir() {
                make_dir(Path::new(target), 0o755)?;
            }
            mount(Some(kind), target, Some(kind), flags, data).map_err(error("mount", target))?;
        }
        for (target, link) in DEVICE_LINKS {
            symlink(target, link).map_err(error("link", link))?;
        }
        if !Path::new("/tmp").exists() {
            make_dir(Path::new("/tmp"), 0o1777)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
            fs::set_permissions("/tmp", mode).map_err(error("open for all", "/tmp"))?;
        }
        Ok(())
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(error("make directory", path))
}

/// Something of the agent's, open, and where it is going to be seen.
struct Source {
    file: File,
    is_dir: bool,
    target: PathBuf,
    read_only: bool,
}

impl Source {
    fn open(path: &Path, target: &Path, read_only: bool) -> Result<Self, Error> {
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_PATH | nix::libc::O_CLOEXEC)
            .open(path)
            .map_err(error("open", path))?;
        let is_dir = file.metadata().map_err(error("look at", path))?.is_dir();
        Ok(Self {
            file,
            is_dir,
            target: target.to_owned(),
            read_only,
        })
    }

    fn bind(&self) -> Result<(), Error> {
        let target = self.target.as_path();
        if self.is_dir {
            make_dir(target, 0o755)?;
        } else if fs::symlink_metadata(target).is_err() {
            if let Some(parent) = target.parent() {
                make_dir(parent, 0o755)?;
            }
            File::create(target).map_err(error("make", target))?;
        }
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(source.as_str()), target, NONE, flags, NONE).map_err(error("bind", target))?;
        if self.read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(NONE, target, NONE, flags, NONE).map_err(error("protect", target))?;
        }
        Ok(())
    }
}

/// Lets nobody write to a path that is there.
fn read_only(path: &str) -> Result<(), Error> {
    if !Path::new(path).exists() {
        return Ok(());
    }
    mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE).map_err(error("bind", path))?;
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NODEV;
    mount(NONE, path, NONE, flags, NONE).map_err(error("protect", path))
}

/// Lets nobody see what is at a path.
fn mask(path: &str) -> Result<(), Error> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if metadata.is_dir() {
        let flags = MsFlags::MS_RDONLY;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, NONE).map_err(error("mask", path))
    } else {
        mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE).map_err(error("mask", path))
    }
}
