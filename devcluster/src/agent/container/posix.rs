//! Containers without cgroups: the init process' session, its process group, and whatever
//! descends from it. A process that leaves its session and its parent escapes, as it does from
//! Mesos' own posix launcher.

use std::collections::BTreeSet;

use super::process::{all, field_of, kill};

/// The live processes of the container whose init process has (or had) this pid.
pub fn members(init: u32) -> BTreeSet<u32> {
    members_among(init, &all())
}

fn members_among(init: u32, processes: &[(u32, String)]) -> BTreeSet<u32> {
    let number = |stat: &str, index| field_of(stat, index).and_then(|f| f.parse::<u32>().ok());
    let mut members: BTreeSet<u32> = processes
        .iter()
        .filter(|(pid, stat)| {
            *pid == init || number(stat, 2) == Some(init) || number(stat, 3) == Some(init)
        })
        .map(|(pid, _)| *pid)
        .collect();
    // Descendants that made sessions of their own, while their parents live.
    loop {
        let before = members.len();
        for (pid, stat) in processes {
            if number(stat, 1).is_some_and(|parent| members.contains(&parent)) {
                members.insert(*pid);
            }
        }
        if members.len() == before {
            break;
        }
    }
    members.retain(|pid| {
        processes
            .iter()
            .any(|(p, stat)| p == pid && !matches!(field_of(stat, 0), Some("Z" | "X")))
    });
    members
}

/// Kills what is alive now and returns how many that were; more may have been forked since.
pub fn kill_once(init: u32) -> usize {
    let members = members(init);
    for pid in &members {
        kill(*pid);
    }
    members.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, state: &str, parent: u32, group: u32, session: u32) -> (u32, String) {
        (
            pid,
            format!("{pid} (x) {state} {parent} {group} {session} 0"),
        )
    }

    #[test]
    fn a_container_is_a_session_a_group_and_all_descendants_but_no_zombies() {
        let processes = [
            process(10, "S", 1, 10, 10),
            process(11, "S", 10, 10, 10),
            process(12, "S", 1, 12, 10),  // orphan in the session
            process(13, "S", 11, 13, 13), // left the session, parent lives
            process(14, "Z", 10, 10, 10),
            process(20, "S", 1, 20, 20),
            process(21, "S", 13, 21, 21),
        ];
        assert_eq!(
            members_among(10, &processes)
                .into_iter()
                .collect::<Vec<_>>(),
            [10, 11, 12, 13, 21]
        );
    }
}
