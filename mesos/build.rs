//! Compiles `proto/` with a pure-Rust compiler (no `protoc` on the machine) into prost types
//! that also know their descriptors, from which the JSON encoding is derived.

use std::path::PathBuf;

use prost_reflect::DescriptorPool;

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
    std::fs::write(
        PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin"),
        &encoded,
    )?;

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
