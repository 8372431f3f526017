//! The list of the Rust crates in our programs, with their licences, is what `Cargo.lock` says.
//! `K8SM_UPDATE_LICENSES=1 cargo test -p packaging --test rust_licenses` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What goes into images.
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/image/rust-crates.txt");
/// The packages whose programs are in images.
const SHIPPED: [&str; 6] = ["cli", "framework", "executor", "proxy", "pause", "hello"];
/// Taken where there is a choice: its text is this project's own licence.
const PREFERRED: &str = "Apache-2.0";

#[test]
fn the_licences_of_our_crates_are_those_of_the_lock_file() {
    let wanted = list(&metadata());
    if std::env::var_os("K8SM_UPDATE_LICENSES").is_some() {
        std::fs::write(LIST, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(LIST).unwrap_or_default();
    assert!(
        found == wanted,
        "{LIST} is not what Cargo.lock says: K8SM_UPDATE_LICENSES=1 cargo test -p packaging --test rust_licenses"
    );
}

/// What cargo knows of the workspace, for the one platform that we build for.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn list(metadata: &Value) -> String {
    let packages: BTreeMap<&str, &Value> = array(&metadata["packages"])
        .map(|p| (text(&p["id"]), p))
        .collect();
    let shipped = shipped(metadata, &packages);
    let mut crates: Vec<&Value> = shipped
        .iter()
        .filter_map(|id| packages.get(id).copied())
        // Ours have no source.
        .filter(|p| p["source"].is_string())
        .collect();
    crates.sort_by_key(|p| (text(&p["name"]), text(&p["version"])));

    let mut list = String::from(
        "The programs of this project contain the following Rust crates, the Rust standard library
(MIT OR Apache-2.0) and, linked statically, the GNU C Library (LGPL-2.1-or-later, as Debian
distributes it). Where there is a choice they are taken under the Apache License 2.0, whose text is
in the file LICENSE. The other licences, and notices, follow the list.\n\n",
    );
    // By text, so that one that many share is there once.
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in crates {
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        let license = text(&package["license"]);
        let taken = taken(license);
        let bare = WITHOUT_TEXT.contains(&text(&package["name"]));
        let origin = match bare {
            true => format!("\tits text: {}", text(&package["repository"])),
            false => String::new(),
        };
        let _ = writeln!(list, "{name}\t{license}{origin}");
        let folder = Path::new(text(&package["manifest_path"])).parent().unwrap();
        let mut kept = false;
        for file in license_files(folder) {
            let shown = file.file_name().unwrap().to_string_lossy().to_uppercase();
            let is_notice = shown.contains("NOTICE");
            if taken == PREFERRED && !is_notice {
                continue;
            }
            let content = String::from_utf8_lossy(&std::fs::read(&file).unwrap())
                .replace("\r\n", "\n")
                .trim()
                .to_owned();
            texts.entry(content).or_default().insert(name.clone());
            kept |= !is_notice;
        }
        assert!(
            kept || taken == PREFERRED || bare,
            "{name} ({license}) has no licence's text in {}",
            folder.display()
        );
    }
    let mut parts: Vec<(String, String)> = texts
        .into_iter()
        .map(|(text, names)| (names.into_iter().collect::<Vec<_>>().join(", "), text))
        .collect();
    parts.sort();
    for (names, text) in parts {
        let _ = write!(list, "\n{}\n{names}\n\n{text}\n", "=".repeat(80));
    }
    list
}

/// Crates whose packages hold no text of the licence that they name, which is MIT.
const WITHOUT_TEXT: [&str; 4] = ["jsonschema-regex", "jsonschema-value", "uuid-simd", "vsimd"];

/// All that our programs are linked of: dependencies of dependencies, not those of builds and
/// tests.
fn shipped<'a>(metadata: &'a Value, packages: &BTreeMap<&'a str, &'a Value>) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Value> = array(&metadata["resolve"]["nodes"])
        .map(|n| (text(&n["id"]), n))
        .collect();
    let mut open: Vec<&str> = packages
        .iter()
        .filter(|(_, p)| p["source"].is_null() && SHIPPED.contains(&text(&p["name"])))
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(open.len(), SHIPPED.len(), "{open:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let normal = |dep: &&Value| array(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null());
        open.extend(
            array(&nodes[id]["deps"])
                .filter(normal)
                .map(|d| text(&d["pkg"])),
        );
    }
    seen
}

/// The licence that is taken of an expression; all of it where it is more than a choice.
fn taken(expression: &str) -> &str {
    let plain = !expression.contains('(') && !expression.contains(" AND ");
    let choice = expression.split(" OR ").flat_map(|part| part.split('/'));
    match plain && choice.map(str::trim).any(|one| one == PREFERRED) {
        true => PREFERRED,
        false => expression,
    }
}

fn license_files(folder: &Path) -> Vec<PathBuf> {
    const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name.to_uppercase();
            path.is_file() && NAMES.iter().any(|n| name.starts_with(n))
        })
        .collect();
    files.sort();
    files
}
