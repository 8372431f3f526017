//! The licences of everything that a built program contains, as its licences ask for.
//!
//! A Go program carries the list of its modules. For each of them the licence files of the
//! module's folder in Go's module cache are copied once, and listed beside the program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use packaging::image::licenses::escape;

use super::{Error, Result};

/// A module in a built program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module {
    /// Module path.
    pub path: String,
    /// Version, after replacements.
    pub version: String,
}

/// Reads the output of `go version -m`. Lines look like `\tdep\t<path>\t<version>\t<sum>`, and a
/// replaced module has a second line `\t=>\t<path>\t<version>\t<sum>`.
pub fn parse_build_info(text: &str) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim_start().split('\t');
        let kind = fields.next();
        let (Some(path), Some(version)) = (fields.next(), fields.next()) else {
            continue;
        };
        let module = Module {
            path: path.to_owned(),
            version: version.to_owned(),
        };
        match kind {
            Some("dep") => modules.push(module),
            Some("=>") => {
                if let Some(last) = modules.last_mut() {
                    *last = module;
                }
            }
            _ => {}
        }
    }
    modules.sort();
    modules.dedup();
    modules
}

/// The SPDX name that a licence's text suggests. A guess for the listing; the text itself is kept.
pub fn guess(text: &str) -> &'static str {
    let has = |needle: &str| text.contains(needle);
    if has("Apache License") {
        "Apache-2.0"
    } else if has("Mozilla Public License") {
        "MPL-2.0"
    } else if has("Redistribution and use in source and binary forms") {
        if has("Neither the name")
            || has("names of its contributors")
            || has("name of the copyright holder")
        {
            "BSD-3-Clause"
        } else {
            "BSD-2-Clause"
        }
    } else if has("Permission is hereby granted, free of charge") {
        "MIT"
    } else if has("Permission to use, copy, modify, and") {
        "ISC"
    } else {
        "see text"
    }
}

/// Whether a file's name says that it is a licence or a notice.
fn is_license(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["LICENSE", "LICENCE", "COPYING", "NOTICE"]
        .iter()
        .any(|it| name.starts_with(it))
        && !name.ends_with(".GO")
}

/// Copies the licence files of `modules` to `texts/<module>@<version>/` and returns the listing.
pub fn collect(modules: &[Module], module_cache: &Path, texts: &Path) -> Result<String> {
    let mut rows: BTreeMap<&Module, (Vec<String>, &'static str)> = BTreeMap::new();
    for module in modules {
        let folder = format!("{}@{}", escape(&module.path), escape(&module.version));
        let source = module_cache.join(&folder);
        let mut names: Vec<String> = fs::read_dir(&source)
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .filter(|name| is_license(name))
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        let mut kind = "not found in the module";
        for (index, name) in names.iter().enumerate() {
            let Ok(text) = fs::read(source.join(name)) else {
                continue;
            };
            if index == 0 {
                kind = guess(&String::from_utf8_lossy(&text));
            }
            let target = texts.join(&folder).join(name);
            if !target.exists() {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
                }
                super::cache::write_atomically(&target, &text)?;
            }
        }
        rows.insert(module, (names, kind));
    }
    let mut listing = String::new();
    for (module, (names, kind)) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            listing,
            "{}\t{}\t{kind}\t{}",
            module.path,
            module.version,
            names.join(" ")
        );
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_with_their_replacements() {
        let text = "prog: go1.26.8\n\tpath\tk8s.io/x\n\tmod\tk8sm.invalid/x\t(devel)\t\n\tdep\tk8s.io/api\tv0.0.0\n\t=>\tk8s.io/api\tv0.37.1\th1:abc=\n\tdep\tgithub.com/Azure/go\tv1.0.0\th1:def=\n\tbuild\t-trimpath=true\n";
        let modules = parse_build_info(text);
        let shown: Vec<String> = modules
            .iter()
            .map(|it| format!("{} {}", it.path, it.version))
            .collect();
        assert_eq!(shown, ["github.com/Azure/go v1.0.0", "k8s.io/api v0.37.1"]);
    }

    #[test]
    fn licences_are_copied_once_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("mod/github.com/!azure/go@v1.0.0");
        fs::create_dir_all(&module).unwrap();
        fs::write(
            module.join("LICENSE"),
            "Permission is hereby granted, free of charge, to",
        )
        .unwrap();
        fs::write(module.join("license.go"), "package x").unwrap();
        let modules = [
            Module {
                path: "github.com/Azure/go".into(),
                version: "v1.0.0".into(),
            },
            Module {
                path: "k8s.io/gone".into(),
                version: "v1.0.0".into(),
            },
        ];
        let texts = dir.path().join("texts");
        let listing = collect(&modules, &dir.path().join("mod"), &texts).unwrap();
        assert_eq!(
            listing,
            "github.com/Azure/go\tv1.0.0\tMIT\tLICENSE\nk8s.io/gone\tv1.0.0\tnot found in the module\t\n"
        );
        assert!(texts.join("github.com/!azure/go@v1.0.0/LICENSE").is_file());
    }
}
