//! The artifacts directory: built, served, fetched, checked.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Running, curl, folder, free_port, k8sm, outcome, run, upstream};

#[test]
fn artifacts_are_built_once_served_and_what_is_fetched_is_what_the_list_says() {
    let dir = folder();
    let out = dir.path().join("artifacts");
    let address = format!("127.0.0.1:{}", free_port());
    let base = format!("--base-url=http://{address}");
    let shown = out.display().to_string();
    let upstream = format!("--upstream-dir={}", upstream().display());
    let build = || run(&k8sm(), ["artifacts", "build", &base, &upstream, &shown]);
    build();
    let list: Value =
        serde_json::from_slice(&std::fs::read(out.join("artifacts.json")).unwrap()).unwrap();
    let files = list["files"].as_object().unwrap().clone();
    assert!(
        files.contains_key("payload.tar") && files.contains_key("k8sm"),
        "{list:#}"
    );
    // sha256sum agrees.
    let checked = Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(&out)
        .status()
        .unwrap();
    assert!(checked.success());
    let before = modified(&out, &files);
    build();
    assert_eq!(
        modified(&out, &files),
        before,
        "a second run writes nothing again"
    );

    let mut command = Command::new(k8sm());
    command.args(["artifacts", "serve", &shown, &format!("--listen={address}")]);
    let mut server = Running::start(command, dir.path().join("serve.log"));
    let base = list["base_url"].as_str().unwrap().to_owned();
    server.until("the server answers", || {
        (curl(&[&format!("{base}/artifacts.json")]).0 == 200).then_some(())
    });
    for name in ["k8sm-executor", "etcd"] {
        let digest = files[name]["sha256"].as_str().unwrap();
        let fetched = dir.path().join(name).display().to_string();
        let status = curl(&["-o", &fetched, &format!("{base}/{digest}/{name}")]).0;
        assert_eq!(status, 200);
        let sum = run(Path::new("sha256sum"), [&fetched]);
        assert!(sum.starts_with(digest), "{sum}");
    }
    for hidden in [
        "",
        ".origins.json",
        "../etc/passwd",
        ".work/payload.fingerprint",
    ] {
        let url = format!("{base}/{hidden}");
        assert_eq!(curl(&["--path-as-is", &url]).0, 404, "{hidden}");
    }
    // A directory that is none is refused with the remedy.
    let nothing = dir.path().join("nothing").display().to_string();
    let output = outcome(&k8sm(), &["artifacts", "serve", &nothing]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("k8sm artifacts build"),
        "{said}"
    );
}

/// When each file was written.
fn modified(out: &Path, files: &serde_json::Map<String, Value>) -> Vec<std::time::SystemTime> {
    let path =
        |(name, entry): (&String, &Value)| out.join(entry["sha256"].as_str().unwrap()).join(name);
    files
        .iter()
        .map(|file| std::fs::metadata(path(file)).unwrap().modified().unwrap())
        .collect()
}
