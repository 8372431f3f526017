//! Writes archives of images, and packs layers that several of them share once.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::archive::Archive;
use super::layer::{Compression, Layer};
use super::{Built, Error, File, Image, architecture, digest, hex};

/// The epoch: a real time would change the digest with every build.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Writes images.
#[derive(Debug)]
pub struct Writer {
    compression: Compression,
    packed: Vec<Rc<Layer>>,
}

impl Writer {
    /// A writer whose layers are stored so.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            packed: Vec::new(),
        }
    }

    /// Writes the archive of an image.
    pub fn write(&mut self, image: &Image, out: impl Write) -> Result<Built, Error> {
        let (name, tag) = image.name_and_tag()?;
        let mut layers = Vec::new();
        for files in image.base.iter().chain([&image.files]) {
            layers.push(self.layer(image, files)?);
        }
        let config = to_json(&config(image, &layers));
        let config_digest = digest(&config);
        let manifest = to_json(&self.manifest(&config, &config_digest, &layers));
        let manifest_digest = digest(&manifest);
        let index = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest,
                "size": manifest.len(),
                "platform": {"architecture": architecture(), "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": image.reference,
                    "org.opencontainers.image.ref.name": tag,
                },
            }],
        }));
        // What `docker load` reads.
        let docker = to_json(&json!([{
            "Config": blob(&config_digest),
            "RepoTags": [image.reference],
            "Layers": layers.iter().map(|l| blob(&l.digest)).collect::<Vec<_>>(),
        }]));
        let legacy = legacy(image, &layers, &config_digest);
        let top = legacy.last().map(|l| l.id.clone()).unwrap_or_default();
        let repositories = to_json(&json!({ name: { tag: top } }));

        let failed = |source| Error::Write {
            image: image.reference.clone(),
            source,
        };
        let mut archive = Archive::new(out);
        archive.directory("blobs/").map_err(failed)?;
        archive.directory("blobs/sha256/").map_err(failed)?;
        let small = [(&config_digest, &config), (&manifest_digest, &manifest)];
        let mut blobs: BTreeMap<&str, Option<&Vec<u8>>> =
            layers.iter().map(|l| (l.digest.as_str(), None)).collect();
        blobs.extend(small.map(|(digest, content)| (digest.as_str(), Some(content))));
        for (digest, content) in blobs {
            let path = blob(digest);
            match content {
                Some(content) => archive.bytes(&path, 0o644, content).map_err(failed)?,
                None => {
                    if let Some(layer) = layers.iter().find(|l| l.digest == digest) {
                        layer.copy_to(image, &path, &mut archive)?;
                    }
                }
            }
        }
        let mut rest = || -> io::Result<()> {
            for layer in &legacy {
                let dir = format!("{}/", layer.id);
                archive.directory(&dir)?;
                archive.bytes(&format!("{dir}VERSION"), 0o644, b"1.0")?;
                archive.bytes(&format!("{dir}json"), 0o644, &layer.json)?;
                archive.link(&format!("{dir}layer.tar"), &format!("../{}", layer.blob))?;
            }
            archive.bytes("index.json", 0o644, &index)?;
            archive.bytes("manifest.json", 0o644, &docker)?;
            archive.bytes("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            archive.bytes("repositories", 0o644, &repositories)
        };
        rest().map_err(failed)?;
        let mut out = archive.finish().map_err(failed)?;
        out.flush().map_err(failed)?;
        Ok(Built {
            reference: image.reference.clone(),
            manifest_digest,
            image_id: config_digest,
            size: layers.iter().map(|l| l.size).sum(),
        })
    }

    fn layer(&mut self, image: &Image, files: &[File]) -> Result<Rc<Layer>, Error> {
        if let Some(known) = self.packed.iter().find(|l| l.is_of(files)) {
            return Ok(Rc::clone(known));
        }
        let layer = Rc::new(Layer::pack(image, files, self.compression)?);
        self.packed.push(Rc::clone(&layer));
        Ok(layer)
    }

    fn manifest(&self, config: &[u8], config_digest: &str, layers: &[Rc<Layer>]) -> Value {
        let kind = match self.compression {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        };
        let layer = |l: &Rc<Layer>| json!({"mediaType": kind, "digest": l.digest, "size": l.size});
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config.len(),
            },
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }
}

/// What an image runs, in the words of all formats.
fn run_config(image: &Image) -> Value {
    json!({
        "User": format!("{0}:{0}", image.user),
        "Entrypoint": image.entrypoint,
        "WorkingDir": image.working_dir,
        "Env": ["PATH=/"],
        "Labels": image.labels,
    })
}

fn config(image: &Image, layers: &[Rc<Layer>]) -> Value {
    let history = json!({"created": CREATED, "created_by": "k8sm"});
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": run_config(image),
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>(),
        },
        "history": vec![history; layers.len()],
    })
}

/// A layer as the first format of Docker's archives has it, which Mesos agents still read: a
/// directory named by an id that stands for the layer and everything below it.
struct Legacy {
    id: String,
    json: Vec<u8>,
    blob: String,
}

fn legacy(image: &Image, layers: &[Rc<Layer>], config_digest: &str) -> Vec<Legacy> {
    let mut chain: Vec<Legacy> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let parent = chain.last().map(|below| below.id.clone());
        // Agents keep layers by this id: whatever changes the image changes the topmost one.
        let last = number + 1 == layers.len();
        let seed = format!(
            "{} {} {}",
            parent.as_deref().unwrap_or_default(),
            layer.diff_id,
            if last { config_digest } else { "" }
        );
        let id = hex(&Sha256::digest(seed));
        let mut json = json!({
            "id": id,
            "created": CREATED,
            "architecture": architecture(),
            "os": "linux",
        });
        if let Some(parent) = parent {
            json["parent"] = Value::from(parent);
        }
        if last {
            json["config"] = run_config(image);
        }
        chain.push(Legacy {
            id,
            json: to_json(&json),
            blob: blob(&layer.digest),
        });
    }
    chain
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn to_json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
