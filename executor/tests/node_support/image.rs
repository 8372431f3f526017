//! Image archives of one static program.

use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};

fn add(tar: &mut tar::Builder<impl std::io::Write>, name: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, content).unwrap();
}

/// Writes an archive of an image that holds Debian's static busybox and runs `entrypoint`.
pub fn busybox(path: &Path, name: &str, entrypoint: &[&str]) {
    let program = std::fs::read("/bin/busybox").expect("Debian's busybox-static");
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", 0o755, &program);
    for applet in ["sh", "wget", "nc", "httpd", "id", "cat", "ip"] {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        layer
            .append_link(&mut link, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let digest: String = Sha256::digest(&layer)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Entrypoint": entrypoint, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"],
    }]);
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    add(
        &mut tar,
        "config.json",
        0o644,
        config.to_string().as_bytes(),
    );
    add(&mut tar, "layer.tar", 0o644, &layer);
    add(
        &mut tar,
        "manifest.json",
        0o644,
        manifest.to_string().as_bytes(),
    );
    tar.finish().unwrap();
}
