//! Commands that only print or write files: `render`, `options`, `completion`, `man`.

use std::path::Path;

use clap::CommandFactory as _;
use packaging::marathon::{App, Facts, render as render_apps};
use packaging::options::schema;
use serde_json::{Value, json};

use super::{given_dir, layered, print};
use crate::args::{Args, Completion, Man, OptionsArgs, Render};
use crate::commands::table;
use crate::error::Error;
use crate::install::{self, Home};

/// `k8sm render`.
pub fn render(state_dir: &Path, args: &Render) -> Result<(), Error> {
    let apps = rendered(state_dir, args)?;
    let shown: Vec<App> = match args.with_keys {
        true => apps,
        false => apps.iter().map(App::redacted).collect(),
    };
    crate::commands::print(&format!("{:#}\n", json!(shown)))
}

fn rendered(state_dir: &Path, args: &Render) -> Result<Vec<App>, install::Error> {
    if let Some(path) = &args.facts {
        let bytes = std::fs::read(path).map_err(install::Error::io("read", path))?;
        let facts: Facts = serde_json::from_slice(&bytes).map_err(|e| install::Error::Damaged {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        let options = layered(None, &args.said)?;
        return Ok(render_apps(&options, &facts)?);
    }
    let name = args.which.name.as_deref().unwrap_or("kubernetes");
    let home = Home::new(given_dir(state_dir), name)?;
    let mut record = home.existing()?;
    record.options = layered(Some(&record.options), &args.said)?.changed();
    let runtime = crate::commands::runtime().map_err(|e| install::Error::State(e.to_string()))?;
    runtime.block_on(async {
        let site = super::site(&record).await?;
        install::render::apps(&home, &record, &site)
    })
}

/// `k8sm options`.
pub fn options(args: &OptionsArgs) -> Result<(), Error> {
    let prefix = args.prefix.as_deref().unwrap_or_default();
    let keys: Vec<_> = schema()
        .keys
        .iter()
        .filter(|k| k.path.starts_with(prefix) && (args.advanced || !k.advanced))
        .collect();
    if keys.is_empty() {
        return Err(Error::Usage(format!("no option begins with `{prefix}`")));
    }
    let value: Vec<Value> = keys
        .iter()
        .map(|k| {
            json!({
                "path": k.path,
                "type": k.kind.name(),
                "default": k.default,
                "unit": k.unit,
                "allowed": k.allows(),
                "description": k.description,
                "advanced": k.advanced,
                "fixed": k.fixed,
            })
        })
        .collect();
    let text = print::shaped(args.output, &json!(value), || {
        let rows: Vec<Vec<String>> = keys
            .iter()
            .map(|k| {
                let unit = k.unit.map(|u| format!(" {u}")).unwrap_or_default();
                let sentence = k.description.split(". ").next().unwrap_or_default();
                vec![
                    k.path.clone(),
                    format!("{}{unit}", k.default),
                    sentence.trim_end_matches('.').to_owned(),
                ]
            })
            .collect();
        table(&["OPTION", "DEFAULT", "WHAT"], &rows)
    });
    crate::commands::print(&text)
}

/// `k8sm completion`.
pub fn completion(args: &Completion) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "k8sm", &mut script);
    crate::commands::print(&String::from_utf8_lossy(&script))
}

/// `k8sm man`.
pub fn man(args: &Man) -> Result<(), Error> {
    let action = || format!("write manual pages to {}", args.dir.display());
    std::fs::create_dir_all(&args.dir).map_err(Error::io(action()))?;
    clap_mangen::generate_to(Args::command(), &args.dir).map_err(Error::io(action()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_and_manual_pages_come_from_the_command_line_itself() {
        let dir = tempfile::tempdir().unwrap();
        man(&Man {
            dir: dir.path().to_owned(),
        })
        .unwrap();
        let page = std::fs::read_to_string(dir.path().join("k8sm-install.1")).unwrap();
        assert!(page.contains("marathon"), "{page}");
        let mut script = Vec::new();
        let shell = clap_complete::Shell::Bash;
        clap_complete::generate(shell, &mut Args::command(), "k8sm", &mut script);
        assert!(String::from_utf8_lossy(&script).contains("uninstall"));
    }
}
