//! Whether an etcd member may start, and how. A member that starts empty although it once had
//! data would at best serve an empty cluster, at worst outvote the members that still have the
//! data. So it is refused unless somebody who knows says that it is right.

use std::path::{Path, PathBuf};

/// What is in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Nothing of etcd's.
    Empty,
    /// A member's log.
    Present,
}

/// What another member says about this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It does not answer.
    Silent,
    /// It has no member at this one's address.
    No,
    /// It has one that has never started.
    Added,
    /// It has one that has been part of the cluster already.
    Started,
}

/// What the app was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Form a cluster, until this time (seconds since 1970): by then it has formed, and an empty
    /// directory means that data was lost.
    New {
        /// Last second of the first start.
        until: Option<u64>,
    },
    /// The cluster has formed long ago.
    Formed,
    /// Join a cluster that exists; this member was added to it just now.
    Existing,
    /// Begin with a snapshot.
    Restore,
}

/// How to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the data that is there; other flags about the beginning are without effect.
    Resume,
    /// `--initial-cluster-state=new`.
    Bootstrap,
    /// `--initial-cluster-state=existing`.
    Join,
    /// Restore the snapshot first, then as with [`Start::Resume`].
    Restore,
}

/// Why a member does not start. None of these passes by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has run before.
    #[error(
        "{data} is empty, but this member has run before: its data is lost. \
         Replace it: `k8sm upgrade --replace-member` with its number; the only member is brought back by `k8sm restore`",
        data = .0.display()
    )]
    Lost(PathBuf),
    /// The data are another cluster's.
    #[error(
        "{data} holds the data of another cluster ({found}): move them away if nobody needs them",
        data = .data.display()
    )]
    Foreign {
        /// The directory.
        data: PathBuf,
        /// Whose they are.
        found: String,
    },
    /// A snapshot is not restored over data.
    #[error("{data} holds data already, a snapshot is restored into an empty directory only", data = .0.display())]
    NotEmpty(PathBuf),
    /// The time for a first start is over.
    #[error(
        "{data} is empty, and the time for this member's first start is over since {ago} s: its data is lost, or it runs where its data is not. \
         Bring the data back to {data}, or restore a backup (`k8sm restore`)",
        data = .data.display()
    )]
    Late {
        /// The directory.
        data: PathBuf,
        /// For how long.
        ago: u64,
    },
    /// The cluster has no such member.
    #[error(
        "{data} is empty and no other member knows this one: add it to the cluster first (etcdctl member add)",
        data = .0.display()
    )]
    Unknown(PathBuf),
}

/// Looks into a data directory.
pub fn look(dir: &Path) -> std::io::Result<Data> {
    // etcd writes its log first, under a temporary name, and then renames the directory.
    match std::fs::read_dir(dir.join("member/wal")) {
        Ok(mut entries) => Ok(match entries.next().transpose()? {
            Some(_) => Data::Present,
            None => Data::Empty,
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Data::Empty),
        Err(e) => Err(e),
    }
}

/// Name of the file in a data directory that says which cluster's it is.
pub const OWNER_FILE: &str = "k8sm-token";

/// What a member knows of itself.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its data directory.
    pub dir: &'a Path,
    /// What is in it.
    pub data: Data,
    /// Whose that is, by [`OWNER_FILE`].
    pub owner: Option<&'a str>,
    /// Its cluster's token.
    pub token: &'a str,
}

/// Decides. `now` is in seconds since 1970.
pub fn decide(
    member: Member<'_>,
    told: Told,
    others: &[Known],
    now: u64,
) -> Result<Start, Refusal> {
    let dir = member.dir;
    if member.data == Data::Present {
        return match member.owner {
            Some(owner) if owner != member.token => Err(Refusal::Foreign {
                data: dir.to_owned(),
                found: owner.to_owned(),
            }),
            // Restored ones are marked.
            None if told == Told::Restore => Err(Refusal::NotEmpty(dir.to_owned())),
            _ => Ok(Start::Resume),
        };
    }
    if told == Told::Restore {
        return Ok(Start::Restore);
    }
    if told == Told::Formed || others.contains(&Known::Started) {
        return Err(Refusal::Lost(dir.to_owned()));
    }
    match told {
        Told::Existing if others.contains(&Known::Added) => Ok(Start::Join),
        // They may be about to answer: etcd itself goes on asking them.
        Told::Existing if others.contains(&Known::Silent) && !others.contains(&Known::No) => {
            Ok(Start::Join)
        }
        Told::Existing => Err(Refusal::Unknown(dir.to_owned())),
        Told::New { until: Some(until) } if now > until => Err(Refusal::Late {
            data: dir.to_owned(),
            ago: now - until,
        }),
        Told::New { .. } | Told::Formed | Told::Restore => Ok(Start::Bootstrap),
    }
}

/// What a member's answer to `GET /members` on its peer port says about the member with one of
/// these peer URLs.
pub fn known(members: &serde_json::Value, peer_urls: &[String]) -> Known {
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|u| u.as_str().map(str::to_owned))
            .collect()
    };
    let Some(members) = members.as_array() else {
        return Known::Silent;
    };
    let own = members
        .iter()
        .find(|m| texts(&m["peerURLs"]).iter().any(|u| peer_urls.contains(u)));
    match own {
        None => Known::No,
        // A member publishes these once it takes part.
        Some(member) if !texts(&member["clientURLs"]).is_empty() => Known::Started,
        Some(_) => Known::Added,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NEW: Told = Told::New { until: Some(100) };

    fn decided(data: Data, told: Told, others: &[Known], now: u64) -> Result<Start, String> {
        let member = Member {
            dir: Path::new("/data"),
            data,
            owner: Some("t1"),
            token: "t1",
        };
        decide(member, told, others, now).map_err(|e| e.to_string())
    }

    #[test]
    fn data_of_another_cluster_are_not_taken_and_not_restored_over() {
        let member = |owner| Member {
            dir: Path::new("/data"),
            data: Data::Present,
            owner,
            token: "t2",
        };
        let error = decide(member(Some("t1")), NEW, &[], 1).unwrap_err();
        assert!(
            error.to_string().contains("another cluster (t1)"),
            "{error}"
        );
        let error = decide(member(None), Told::Restore, &[], 1).unwrap_err();
        assert!(
            error.to_string().contains("empty directory only"),
            "{error}"
        );
        assert_eq!(decide(member(None), NEW, &[], 1), Ok(Start::Resume));
    }

    #[test]
    fn data_that_is_there_is_used_whatever_was_told() {
        for told in [NEW, Told::Existing, Told::Restore] {
            let start = decided(Data::Present, told, &[Known::Started], 999);
            assert_eq!(start, Ok(Start::Resume));
        }
    }

    #[test]
    fn a_cluster_forms_only_at_first() {
        assert_eq!(decided(Data::Empty, NEW, &[], 100), Ok(Start::Bootstrap));
        let others = [Known::Added, Known::Silent];
        assert_eq!(decided(Data::Empty, NEW, &others, 5), Ok(Start::Bootstrap));
        let late = decided(Data::Empty, NEW, &[], 160).unwrap_err();
        assert!(
            late.contains("since 60 s") && late.contains("k8sm restore"),
            "{late}"
        );
    }

    #[test]
    fn a_member_that_the_others_know_with_data_never_starts_empty() {
        assert!(decided(Data::Empty, Told::Formed, &[], 1).is_err());
        for told in [NEW, Told::Existing] {
            let error =
                decided(Data::Empty, told, &[Known::Silent, Known::Started], 1).unwrap_err();
            assert!(error.contains("its data is lost"), "{error}");
        }
    }

    #[test]
    fn joining_needs_to_be_a_member() {
        let join = |others: &[Known]| decided(Data::Empty, Told::Existing, others, 1);
        assert_eq!(join(&[Known::Added, Known::Silent]), Ok(Start::Join));
        assert_eq!(join(&[Known::Silent, Known::Silent]), Ok(Start::Join));
        assert!(join(&[Known::No]).unwrap_err().contains("member add"));
    }

    #[test]
    fn a_snapshot_is_restored_into_an_empty_directory_only() {
        assert_eq!(
            decided(Data::Empty, Told::Restore, &[], 1),
            Ok(Start::Restore)
        );
    }

    #[test]
    fn what_others_say_is_read_from_their_list() {
        let members = json!([
            {"id": 1, "peerURLs": ["https://192.0.2.1:2380"], "name": "etcd-0", "clientURLs": ["https://192.0.2.1:2379"]},
            {"id": 2, "peerURLs": ["https://192.0.2.2:2380"], "name": "etcd-1"},
        ]);
        let ask = |n: u8| known(&members, &[format!("https://192.0.2.{n}:2380")]);
        assert_eq!(
            (ask(1), ask(2), ask(3)),
            (Known::Started, Known::Added, Known::No)
        );
    }

    #[test]
    fn only_a_log_is_data() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()).unwrap(), Data::Empty);
        std::fs::create_dir_all(dir.path().join("member/wal")).unwrap();
        assert_eq!(look(dir.path()).unwrap(), Data::Empty);
        std::fs::write(dir.path().join("member/wal/0.wal"), "").unwrap();
        assert_eq!(look(dir.path()).unwrap(), Data::Present);
        assert_eq!(look(Path::new("/nonexistent")).unwrap(), Data::Empty);
    }
}
