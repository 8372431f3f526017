//! What a container uses.

use mesos::pb::ResourceStatistics;

use super::process::field_of;
use super::{ContainerId, Grant, posix};
use crate::agent::cgroups::{Cgroups, MIB};
use crate::clock::Time;

/// Clock ticks per second in `/proc/<pid>/stat` (`USER_HZ`, 100 on every Linux of today).
const USER_HZ: f64 = 100.0;

/// Everything that is counted for a container.
pub(super) fn of(
    id: &ContainerId,
    grant: &Grant,
    init: Option<u32>,
    cgroups: Option<&Cgroups>,
) -> ResourceStatistics {
    let mut s = ResourceStatistics {
        timestamp: Time::now().as_secs_f64(),
        cpus_soft_limit: grant.cpus,
        ..Default::default()
    };
    let bytes = |mib: Option<f64>| {
        mib.filter(|m| m.is_finite())
            .map(|m| (m * MIB as f64) as u64)
    };
    s.mem_soft_limit_bytes = bytes(grant.mem);
    s.mem_limit_bytes = bytes(grant.mem_limit.or(grant.mem));
    s.cpus_limit = grant.cpus_limit.filter(|c| c.is_finite());
    let counted = cgroups.map(Cgroups::isolates);
    if let Some(cgroups) = cgroups {
        cgroups.statistics(id, &mut s);
    }
    if let Some(init) = init
        && !counted.is_some_and(|c| c.cpu && c.memory)
    {
        add_processes(init, &mut s, counted.is_some_and(|c| c.cpu));
    }
    s
}

/// Adds up the processes of a container without cgroups.
fn add_processes(init: u32, s: &mut ResourceStatistics, only_memory: bool) {
    let page = rustix::param::page_size() as u64;
    let (mut user, mut system, mut pages) = (0u64, 0u64, 0u64);
    for pid in posix::members(init) {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let number = |i| {
            field_of(&stat, i)
                .and_then(|f| f.parse::<u64>().ok())
                .unwrap_or(0)
        };
        user += number(11);
        system += number(12);
        pages += number(21);
    }
    if !only_memory {
        s.cpus_user_time_secs = Some(user as f64 / USER_HZ);
        s.cpus_system_time_secs = Some(system as f64 / USER_HZ);
    }
    s.mem_rss_bytes = Some(pages * page);
}
