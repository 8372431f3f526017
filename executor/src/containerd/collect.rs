//! Keeps containerd's disk use within the node's budget by removing images that no container
//! uses. kubelet's own collection is off, because it goes by percentages of the whole disk, of
//! which other frameworks use most; ages alone (kubelet's `imageMaximumGCAge`) bound nothing.
//!
//! [`Collector`] decides and is pure; [`keep_within`] looks and removes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::images::{Ctr, ImageError};
use crate::credentials::api::pause;

/// How often is looked. Measuring walks all files of all images, some ten thousand.
const PERIOD: Duration = Duration::from_secs(600);
/// A walk that finds more files than this is an underestimate from there on.
const MAX_FILES: usize = 5_000_000;

/// An image as containerd names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// A reference, or the digest of its configuration.
    pub name: String,
    /// Digest of its manifest: names of one image share it.
    pub digest: String,
    /// Never removed.
    pub pinned: bool,
}

/// What one look shows.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Bytes that containerd's directory takes.
    pub used: u64,
    /// All images.
    pub images: Vec<Image>,
    /// Names that containers use.
    pub in_use: BTreeSet<String>,
}

/// Which images may go. Remembers since how many looks each has been unused, so that one that has
/// just been pulled and waits for its container is left alone.
#[derive(Debug, Default)]
pub struct Collector {
    unused: BTreeMap<String, u32>,
}

impl Collector {
    /// Names to remove: when `look.used` is beyond `budget`, all names of the half of the images
    /// that have been unused for the most looks, at least two.
    pub fn decide(&mut self, look: &Look, budget: u64) -> Vec<String> {
        let mut by_digest: BTreeMap<&str, Vec<&Image>> = BTreeMap::new();
        for image in &look.images {
            by_digest.entry(&image.digest).or_default().push(image);
        }
        let mut unused = BTreeMap::new();
        for (digest, names) in &by_digest {
            let kept = names
                .iter()
                .any(|i| i.pinned || look.in_use.contains(&i.name));
            if !kept {
                let looks = self.unused.get(*digest).copied().unwrap_or(0);
                unused.insert((*digest).to_owned(), looks.saturating_add(1));
            }
        }
        self.unused = unused;
        if look.used <= budget {
            return Vec::new();
        }
        let mut old: Vec<(&String, u32)> = self
            .unused
            .iter()
            .filter(|(_, looks)| **looks >= 2)
            .map(|(digest, looks)| (digest, *looks))
            .collect();
        old.sort_by_key(|(_, looks)| std::cmp::Reverse(*looks));
        let half = old.len().div_ceil(2);
        old.iter()
            .take(half)
            .filter_map(|(digest, _)| by_digest.get(digest.as_str()))
            .flatten()
            .map(|image| image.name.clone())
            .collect()
    }
}

/// Looks every ten minutes until `stop`, and removes what must go. `over_budget` hears, once per
/// excess, that nothing is left to remove.
pub async fn keep_within(
    ctr: &Ctr,
    root: PathBuf,
    budget: u64,
    stop: &CancellationToken,
    mut over_budget: impl FnMut(String),
) {
    let mut collector = Collector::default();
    let mut told = false;
    loop {
        let period = PERIOD.mul_f64(rand::rng().random_range(0.8..1.2));
        if pause(period, stop).await.is_break() {
            return;
        }
        let look = match look(ctr, root.clone()).await {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!(%error, "looking at images");
                continue;
            }
        };
        let remove = collector.decide(&look, budget);
        if look.used > budget && remove.is_empty() && !told {
            over_budget(format!(
                "images take {} MiB, {} MiB more than the node's budget, and all are in use or new",
                look.used >> 20,
                (look.used - budget) >> 20
            ));
        }
        told = look.used > budget && remove.is_empty();
        if !remove.is_empty() {
            tracing::info!(images = ?remove, "removing images, the budget is exceeded");
            if let Err(error) = ctr.remove(&remove).await {
                tracing::warn!(%error, "removing images");
            }
        }
    }
}

async fn look(ctr: &Ctr, root: PathBuf) -> Result<Look, ImageError> {
    let used = tokio::task::spawn_blocking(move || disk_use(&root))
        .await
        .unwrap_or_default();
    // Containers first: one that comes meanwhile makes its image look used at worst next time,
    // and an image counts as unused only when two looks found it so.
    let in_use = ctr.images_in_use().await?;
    let images = ctr.all_images().await?;
    Ok(Look {
        used,
        images,
        in_use,
    })
}

/// Bytes that a directory takes on its own file system.
pub fn disk_use(root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(top) = std::fs::symlink_metadata(root) else {
        return 0;
    };
    let mut bytes = 0;
    let mut files = 0;
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        // What vanishes meanwhile takes nothing.
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else {
                continue;
            };
            if metadata.dev() != top.dev() {
                continue;
            }
            bytes += metadata.blocks() * 512;
            files += 1;
            if metadata.is_dir() && files < MAX_FILES {
                dirs.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, digest: &str) -> Image {
        Image {
            name: name.to_owned(),
            digest: digest.to_owned(),
            pinned: false,
        }
    }

    fn look(used: u64, in_use: &[&str]) -> Look {
        let mut pause = image("pause", "p");
        pause.pinned = true;
        Look {
            used,
            images: vec![
                pause,
                image("old:1", "o"),
                image("sha256:o", "o"),
                image("web:1", "w"),
                image("new:1", "n"),
            ],
            in_use: in_use.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    #[test]
    fn within_the_budget_nothing_goes() {
        let mut collector = Collector::default();
        for _ in 0..5 {
            assert!(collector.decide(&look(100, &[]), 100).is_empty());
        }
    }

    #[test]
    fn beyond_it_the_longest_unused_go_with_all_their_names() {
        let mut collector = Collector::default();
        collector.decide(&look(50, &["web:1", "new:1"]), 100);
        assert_eq!(
            collector.decide(&look(101, &["web:1"]), 100),
            ["old:1", "sha256:o"]
        );
    }

    #[test]
    fn an_image_that_has_just_come_is_left_alone() {
        let mut collector = Collector::default();
        assert!(collector.decide(&look(101, &["web:1"]), 100).is_empty());
        collector.decide(&look(101, &["new:1", "sha256:o", "web:1"]), 100);
        assert!(collector.decide(&look(101, &["web:1"]), 100).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn what_is_used_or_pinned_never_goes(
            uses in proptest::collection::vec(proptest::collection::btree_set(0usize..4, 0..4), 1..20)
        ) {
            let names = ["old:1", "web:1", "new:1", "sha256:o"];
            let mut collector = Collector::default();
            for used in uses {
                let in_use: Vec<&str> = used.iter().map(|i| names[*i]).collect();
                let gone = collector.decide(&look(1000, &in_use), 1);
                proptest::prop_assert!(!gone.iter().any(|g| g == "pause" || in_use.contains(&g.as_str())));
                if in_use.contains(&"sha256:o") {
                    proptest::prop_assert!(!gone.contains(&"old:1".to_owned()));
                }
            }
        }
    }

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/b"), vec![1; 100_000]).unwrap();
        let used = disk_use(dir.path());
        assert!((100_000..200_000).contains(&used), "{used}");
        assert_eq!(disk_use(Path::new("/nonexistent")), 0);
    }
}
