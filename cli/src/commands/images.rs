//! `k8sm images`.

use std::io::{BufWriter, Write as _};

use oci::registry;
use packaging::image::Compression;
use packaging::image::definitions::{self, Choices};

use super::artifacts::upstream_dir;
use super::{print, runtime, table};
use crate::args::{
    Format, ImagesBuild, ImagesCommand, ImagesFrom, ImagesList, ImagesPull, ImagesPush, ImagesSave,
    ManifestFormat, RegistryAccess,
};
use crate::error::Error;
use crate::images::{self, Access, List, Programs};
use crate::progress::Progress;

/// Runs the command.
pub fn run(command: &ImagesCommand) -> Result<(), Error> {
    match command {
        ImagesCommand::Build(args) => build(args),
        ImagesCommand::List(args) => list(args),
        ImagesCommand::Save(args) => save(args),
        ImagesCommand::Push(args) => push(args),
        ImagesCommand::Pull(args) => pull(args),
    }
}

fn programs(from: &ImagesFrom) -> Result<Programs, Error> {
    let upstream = upstream_dir(from.upstream_dir.as_deref())?;
    Ok(Programs::new(from.programs_dir.as_deref(), &upstream)?)
}

fn choices(from: &ImagesFrom) -> Result<Choices, Error> {
    let certificates = match &from.certificates {
        Some(path) => {
            let action = format!("read {}", path.display());
            Some(std::fs::read(path).map_err(Error::io(action))?)
        }
        None => None,
    };
    Ok(Choices {
        repository: from.repository.clone(),
        tag: from.tag.clone(),
        certificates,
        revision: from.revision.clone(),
        licenses: true,
    })
}

fn compression(from: &ImagesFrom) -> Compression {
    match from.no_compress {
        true => Compression::None,
        false => Compression::Gzip,
    }
}

fn build(args: &ImagesBuild) -> Result<(), Error> {
    let programs = programs(&args.from)?;
    let choices = choices(&args.from)?;
    let progress = Progress::new(false);
    let mut step = progress.step("images");
    let kind = compression(&args.from);
    let list = images::build(&args.dir, &args.names, &programs, &choices, kind, |name| {
        step.detail(name);
    })?;
    step.done(&format!("{} images", list.images.len()));
    print(&built(&list))
}

fn built(list: &List) -> String {
    let rows: Vec<Vec<String>> = list
        .images
        .iter()
        .map(|i| {
            vec![
                i.reference.clone(),
                i.digest.clone(),
                format!("{:.1} MB", i.size as f64 / 1e6),
            ]
        })
        .collect();
    table(&["IMAGE", "DIGEST", "SIZE"], &rows)
}

fn list(args: &ImagesList) -> Result<(), Error> {
    if let Some(dir) = &args.dir {
        let list = List::read(dir)?;
        return print(&match args.output {
            Format::Text => built(&list),
            Format::Json => json(&serde_json::json!(list.images)),
        });
    }
    let programs = Programs::pinned()?;
    let choices = Choices::default();
    let all = definitions::all().map_err(images::Error::from)?;
    if args.output == Format::Json {
        let images: Vec<_> = all
            .iter()
            .map(|d| {
                serde_json::json!({
                    "name": d.name,
                    "reference": d.reference(&programs, &choices),
                    "user": d.user,
                    "programs": d.layers.concat(),
                    "entrypoint": d.entrypoint,
                    "description": d.description,
                })
            })
            .collect();
        return print(&json(&images.into()));
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|d| {
            vec![
                d.name.clone(),
                d.reference(&programs, &choices),
                d.user.to_string(),
                d.layers.concat().join(" "),
            ]
        })
        .collect();
    print(&table(&["NAME", "IMAGE", "USER", "PROGRAMS"], &rows))
}

fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn save(args: &ImagesSave) -> Result<(), Error> {
    let programs = programs(&args.from)?;
    let choices = choices(&args.from)?;
    let kind = compression(&args.from);
    if args.file.as_os_str() == "-" {
        let out = std::io::stdout().lock();
        images::save(&args.name, &programs, &choices, kind, out)?;
        return Ok(());
    }
    let temporary = args
        .file
        .with_extension(format!("{}.tmp", std::process::id()));
    let io = |action: &str| {
        let action = format!("{action} {}", args.file.display());
        Error::io(action)
    };
    let file = std::fs::File::create(&temporary).map_err(io("write"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let saved = images::save(&args.name, &programs, &choices, kind, &mut out);
    if saved.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    let saved = saved?;
    out.flush().map_err(io("write"))?;
    std::fs::rename(&temporary, &args.file).map_err(io("rename"))?;
    print(&format!("{} {}\n", saved.reference, saved.manifest_digest))
}

fn access(args: &RegistryAccess) -> Access {
    Access {
        plain_http: args.plain_http,
        authority: args.ca.clone(),
        login: args.user.clone().zip(args.password_file.clone()),
        docker_config: args.docker_config.clone(),
    }
}

fn push(args: &ImagesPush) -> Result<(), Error> {
    let progress = Progress::new(false);
    let mut step = progress.step("push");
    let format = match args.format {
        ManifestFormat::Docker => registry::Format::Docker,
        ManifestFormat::Oci => registry::Format::Oci,
    };
    let access = access(&args.access);
    let work = images::push(
        &args.dir,
        &args.names,
        args.to.as_deref(),
        &access,
        format,
        |name, size| step.detail(&format!("{name}, {:.1} MB", size as f64 / 1e6)),
    );
    let sent = runtime()?.block_on(work)?;
    step.done(&format!("{} images", sent.len()));
    let rows: Vec<Vec<String>> = sent
        .into_iter()
        .map(|s| vec![s.name, s.digest, s.sent.to_string(), s.there.to_string()])
        .collect();
    print(&table(&["IMAGE", "DIGEST", "SENT", "THERE"], &rows))
}

fn pull(args: &ImagesPull) -> Result<(), Error> {
    let access = access(&args.access);
    let work = images::pull(&args.name, &args.dir, &access);
    let (digest, size) = runtime()?.block_on(work)?;
    print(&format!(
        "{} {digest} {:.1} MB\n",
        args.name,
        size as f64 / 1e6
    ))
}
