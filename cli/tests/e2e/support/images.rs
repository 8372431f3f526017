//! Images for tests, packed from static programs without a registry: Debian's busybox, and the
//! example that extends the API.

use std::path::{Path, PathBuf};

use packaging::image::{Content, File, Image};

/// The image that tests use for a shell: Debian's static busybox.
pub const BUSYBOX: &str = "k8sm.test/busybox:v1";
/// The image of `examples/extension`, as its manifest names it.
pub const EXTENSION: &str = "k8s.mesosphere.io/extension:v0.1.0";

/// Writes an image archive to a path.
type Pack = fn(&Path);

/// All images that tests use, as file names and how the files are written.
pub const ALL: [(&str, Pack); 2] = [("busybox.tar", busybox), ("extension.tar", extension)];

/// Packs busybox, as `/bin/busybox` and under the names that others call: `tar` is what
/// `kubectl cp` runs, and images here have `PATH=/`.
fn busybox(path: &Path) {
    let program = |path: &str| File {
        path: path.to_owned(),
        mode: 0o755,
        content: Content::File(PathBuf::from("/bin/busybox")),
    };
    let mut image = Image::of_program(BUSYBOX, "busybox", PathBuf::from("/bin/busybox"));
    image.files = vec![
        program("/bin/busybox"),
        program("/tar"),
        program("/cat"),
        program("/sh"),
        File {
            path: "/etc/passwd".to_owned(),
            mode: 0o644,
            content: Content::Bytes(b"root:x:0:0:root:/:/bin/busybox\n".to_vec()),
        },
    ];
    image.entrypoint = vec!["/bin/busybox".to_owned()];
    image.user = 0;
    write(&image, path);
}

/// Packs `k8sm-extension`, which `make e2e` builds beside `k8sm`.
fn extension(path: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_k8sm")).with_file_name("k8sm-extension");
    assert!(
        program.is_file(),
        "{} is missing: cargo build --package extension (make e2e does)",
        program.display()
    );
    write(&Image::of_program(EXTENSION, "extension", program), path);
}

fn write(image: &Image, path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    image.write(std::io::BufWriter::new(file)).unwrap();
}
