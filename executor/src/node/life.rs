//! When a node's life began.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// From when on kubelet's word counts: the beginning of this process,
/// which replacing itself by `exec` does not change, because kubelet goes on meanwhile. A second
/// node in the same process begins when it begins.
pub fn life_start() -> SystemTime {
    static HAD_A_NODE: AtomicBool = AtomicBool::new(false);
    if HAD_A_NODE.swap(true, Ordering::Relaxed) {
        SystemTime::now()
    } else {
        process_start()
    }
}

fn process_start() -> SystemTime {
    /// Linux shows times of `/proc` in hundredths of a second (USER_HZ) on every architecture.
    const TICKS_PER_SECOND: u64 = 100;
    let age = || {
        let start = crate::guard::manifest::start_time(std::process::id().cast_signed())?;
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let start = Duration::from_millis(start * 1000 / TICKS_PER_SECOND);
        Some(Duration::from_secs_f64(uptime).saturating_sub(start))
    };
    SystemTime::now() - age().unwrap_or_default()
}

/// As Kubernetes writes times (RFC 3339, UTC, whole seconds).
pub fn kubernetes_time(time: SystemTime) -> String {
    let second = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    k8s_openapi::jiff::Timestamp::from_second(i64::try_from(second).unwrap_or_default())
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_writes_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_247_999_999);
        assert_eq!(kubernetes_time(time), "2026-11-21T07:59:59Z");
        let start = process_start();
        assert!(start.elapsed().unwrap() < Duration::from_secs(3600));
    }
}
