//! Kernel settings of the pod network. Only forwarding is the whole namespace's, and it is never
//! turned off again, because others may have come to rely on it; the rest is on our own links.

use std::path::PathBuf;

use super::spec::Names;

/// A setting that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("setting {setting} to {value}: {source}")]
pub struct SysctlError {
    setting: String,
    value: &'static str,
    source: std::io::Error,
}

/// Settings below `/proc/sys/net/ipv4`, in order.
pub fn settings(names: &Names) -> Vec<(String, &'static str)> {
    let mut all = vec![("ip_forward".to_owned(), "1")];
    for link in [&names.gateway, &names.vxlan] {
        // Packets to a service come back over another link than their address would say.
        all.push((format!("conf/{link}/rp_filter"), "0"));
    }
    all
}

/// Makes the settings, touching only what differs.
pub fn apply(names: &Names) -> Result<(), SysctlError> {
    for (setting, value) in settings(names) {
        let path = PathBuf::from("/proc/sys/net/ipv4").join(&setting);
        if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
            continue;
        }
        std::fs::write(&path, value).map_err(|source| SysctlError {
            setting: format!("net/ipv4/{setting}"),
            value,
            source,
        })?;
    }
    Ok(())
}
