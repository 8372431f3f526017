//! Compiles `proto/` with a pure-Rust compiler (no `protoc` on the machine) into prost types
//! that also know their descriptors, from which the JSON encoding is derived.

use std::path::PathBuf;

use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::{DescriptorProto, FileDescriptorSet};

const FILES: &[&str] = &[
    "mesos/v1/mesos.proto",
    "mesos/v1/agent/agent.proto",
    "mesos/v1/allocator/allocator.proto",
    "mesos/v1/executor/executor.proto",
    "mesos/v1/maintenance/maintenance.proto",
    "mesos/v1/master/master.proto",
    "mesos/v1/quota/quota.proto",
    "mesos/v1/resource_provider/resource_provider.proto",
    "mesos/v1/scheduler/scheduler.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(FILES)?;
    let encoded = compiler.encode_file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), &encoded)?;
    std::fs::write(out.join("json.bin"), for_json(&encoded)?)?;

    let mut config = prost_build::Config::new();
    config.include_file("mesos_pb.rs");
    for message in DescriptorPool::decode(encoded.as_slice())?.all_messages() {
        let name = message.full_name();
        if name.starts_with("google.") {
            continue;
        }
        config.type_attribute(name, "#[derive(::prost_reflect::ReflectMessage)]");
        config.type_attribute(
            name,
            format!(r#"#[prost_reflect(message_name = "{name}")]"#),
        );
        config.type_attribute(
            name,
            r#"#[prost_reflect(descriptor_pool = "crate::pb::POOL")]"#,
        );
    }
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The same descriptors with Google's well-known types under another name: Mesos knows no
/// special JSON forms for them (a `Duration` is `{"seconds":3}`), so the JSON library must not
/// recognise them.
fn for_json(encoded: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    const THEIRS: &str = "google.protobuf";
    const OURS: &str = "mesos.plain";
    fn rename(message: &mut DescriptorProto) {
        for field in &mut message.field {
            if let Some(rest) = field
                .type_name()
                .strip_prefix('.')
                .and_then(|name| name.strip_prefix(THEIRS))
            {
                field.type_name = Some(format!(".{OURS}{rest}"));
            }
        }
        message.nested_type.iter_mut().for_each(rename);
    }
    let mut set = FileDescriptorSet::decode(encoded)?;
    for file in &mut set.file {
        if file.package() == THEIRS {
            file.package = Some(OURS.to_owned());
        }
        file.message_type.iter_mut().for_each(rename);
    }
    Ok(set.encode_to_vec())
}
