//! Bringing the nodes to another revision, as far as the framework and a command agree on it.
//!
//! Both write into the framework's own ConfigMap, `kube-system/k8sm-<name>`: the command its
//! [`Order`], the framework its [`Progress`], which names the order that it follows. So either may
//! die at any time, and a command never takes the word of a framework that it has replaced for that of
//! the new one. Neither needs a right that it would not have without: the framework may read and
//! patch that object already.

use serde::{Deserialize, Serialize};

/// Key of the [`Order`], JSON.
pub const ORDER: &str = "rollout-order";
/// Key of the [`Progress`], JSON.
pub const PROGRESS: &str = "rollout-progress";
/// Most nodes of a kind that are named.
pub const NAMED: usize = 20;

/// What somebody wants of the framework.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Order {
    /// Names the order; another one that does not pause makes failed nodes worth another try.
    pub id: String,
    /// Since when no further node is to be taken, RFC 3339; none: they are.
    pub paused_since: Option<String>,
}

/// How far the framework is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// [`Order::id`] of the order that it follows.
    pub order: String,
    /// [`Order::paused_since`] of that one.
    pub paused_since: Option<String>,
    /// The revision that all nodes are to have.
    pub revision: String,
    /// How many nodes run.
    pub nodes: usize,
    /// How many of them have that revision.
    pub in_place: usize,
    /// Those that are being brought to it, [`NAMED`] at most.
    pub working: Vec<String>,
    /// Those that could not be, [`NAMED`] at most. No further node is taken meanwhile.
    pub failed: Vec<FailedNode>,
    /// Those that have not answered, [`NAMED`] at most.
    pub silent: Vec<String>,
    /// Those whose agents Mesos has lost, [`NAMED`] at most. They are not among `nodes`.
    pub away: Vec<String>,
}

/// A node that could not be brought to the revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedNode {
    /// Its name.
    pub node: String,
    /// Why not.
    pub why: String,
}

impl Progress {
    /// Whether all nodes that run are there.
    pub fn is_complete(&self) -> bool {
        self.in_place >= self.nodes && self.failed.is_empty()
    }

    /// `1 of 3 at revision 0badcafe`.
    pub fn counted(&self) -> String {
        match self.nodes {
            0 => "there are none".to_owned(),
            nodes => {
                // A framework that began during a pause has asked nobody.
                let known = match self.paused_since {
                    Some(_) => "known to be ",
                    None => "",
                };
                format!(
                    "{} of {nodes} {known}at revision {}",
                    self.in_place, self.revision
                )
            }
        }
    }

    /// What to say about nodes that Mesos has lost; nothing where there are none.
    pub fn about_away(&self) -> Option<String> {
        match self.away.as_slice() {
            [] => None,
            names => Some(format!(
                "not waited for, because Mesos has lost the agent: {} (brought there when it returns; one that never does: `kubectl delete node`)",
                names.join(", ")
            )),
        }
    }

    /// What is wrong with nodes that failed, and what to do; nothing where none has.
    pub fn about_failed(&self) -> Option<String> {
        let first = self.failed.first()?;
        let more = match self.failed.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        Some(format!(
            "node {}{more} could not be brought to revision {}: {}; no further node is taken. `kubectl describe node {}` and its executor's log in Mesos say more",
            first.node, self.revision, first.why, first.node
        ))
    }
}

/// What is to be made of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All nodes are there; the text is for people.
    Done(String),
    /// Not yet.
    Wait(String),
    /// Not yet, and something has moved since the last look: the time for a node begins anew.
    Moved(String),
    /// A node failed.
    Failed(String),
}

/// Follows one order.
#[derive(Debug, Clone)]
pub struct Watch {
    order: String,
    seen: Option<(usize, Vec<String>)>,
}

impl Watch {
    /// Of the order of that id.
    pub fn new(order: &str) -> Self {
        Self {
            order: order.to_owned(),
            seen: None,
        }
    }

    /// Judges what the framework has written. `trouble` is what Kubernetes knows about a node that is
    /// waited for, where it is not Ready.
    pub fn judge(
        &mut self,
        progress: Option<&Progress>,
        trouble: impl Fn(&str) -> Option<String>,
    ) -> Verdict {
        let Some(progress) = progress.filter(|progress| progress.order == self.order) else {
            return Verdict::Wait("the framework has not said yet how its nodes are".to_owned());
        };
        if let Some(text) = progress.about_failed() {
            return Verdict::Failed(text);
        }
        let mut parts = vec![progress.counted()];
        if progress.is_complete() {
            parts.extend(progress.about_away());
            return Verdict::Done(parts.join("; "));
        }
        let named = |name: &String| match trouble(name) {
            Some(trouble) => format!("{name} ({trouble})"),
            None => name.clone(),
        };
        if !progress.working.is_empty() {
            let names: Vec<String> = progress.working.iter().map(named).collect();
            parts.push(format!("at work on {}", names.join(", ")));
        }
        if !progress.silent.is_empty() {
            let names: Vec<String> = progress.silent.iter().map(named).collect();
            parts.push(format!(
                "no answer from the executor of {}: look at its agent; `kubectl annotate node <node> k8s.mesosphere.io/drain=10m` gives the node back and lets a new one begin",
                names.join(", ")
            ));
        }
        if let Some(since) = &progress.paused_since {
            parts.push(format!("paused since {since}"));
        }
        parts.extend(progress.about_away());
        let text = parts.join("; ");
        let now = (progress.in_place, progress.working.clone());
        let moved = self.seen.as_ref() != Some(&now);
        self.seen = Some(now);
        match moved {
            true => Verdict::Moved(text),
            false => Verdict::Wait(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(in_place: usize) -> Progress {
        Progress {
            order: "o-1".to_owned(),
            revision: "0badcafe".to_owned(),
            nodes: 3,
            in_place,
            ..Progress::default()
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn no_trouble(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn what_a_framework_said_before_the_order_counts_for_nothing() {
        let mut watch = Watch::new("o-2");
        for old in [None, Some(&progress(3))] {
            let verdict = watch.judge(old, no_trouble);
            assert!(matches!(verdict, Verdict::Wait(_)), "{verdict:?}");
        }
    }

    #[test]
    fn time_begins_anew_with_each_node_and_not_with_each_look() {
        let mut watch = Watch::new("o-1");
        let mut at = progress(1);
        at.working = names(&["agent-2"]);
        let text = "1 of 3 at revision 0badcafe; at work on agent-2 (NotReady: KubeletNotReady)";
        let trouble = |_: &str| Some("NotReady: KubeletNotReady".to_owned());
        assert_eq!(
            watch.judge(Some(&at), trouble),
            Verdict::Moved(text.to_owned())
        );
        assert_eq!(
            watch.judge(Some(&at), trouble),
            Verdict::Wait(text.to_owned())
        );
        at.working = names(&["agent-3"]);
        at.in_place = 2;
        assert!(matches!(
            watch.judge(Some(&at), no_trouble),
            Verdict::Moved(_)
        ));
        assert_eq!(
            watch.judge(Some(&progress(3)), no_trouble),
            Verdict::Done("3 of 3 at revision 0badcafe".to_owned())
        );
    }

    #[test]
    fn nodes_whose_agents_are_lost_are_named_and_not_waited_for() {
        let mut lost = progress(3);
        lost.away = names(&["agent-9"]);
        let Verdict::Done(text) = Watch::new("o-1").judge(Some(&lost), no_trouble) else {
            panic!("it waits");
        };
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_node_that_failed_or_is_silent_is_named_with_what_to_do() {
        let mut failed = progress(0);
        failed.failed = vec![FailedNode {
            node: "agent-1".to_owned(),
            why: "kubelet ended 5 times".to_owned(),
        }];
        let Verdict::Failed(failure) = Watch::new("o-1").judge(Some(&failed), no_trouble) else {
            panic!("it goes on");
        };
        let mut silent = progress(2);
        silent.silent = names(&["agent-3"]);
        let Verdict::Moved(silence) = Watch::new("o-1").judge(Some(&silent), |_| {
            Some("Unknown: NodeStatusUnknown".to_owned())
        }) else {
            panic!("it is no news");
        };
        insta::assert_snapshot!(format!("{failure}\n\n{silence}"));
    }

    #[test]
    fn what_others_wrote_into_the_object_is_read_leniently() {
        let order: Order = serde_json::from_str("{\"id\":\"x\",\"later\":1}").unwrap();
        assert_eq!(order.paused_since, None);
        let progress: Progress = serde_json::from_str("{}").unwrap();
        assert_eq!(progress, Progress::default());
        assert!(serde_json::from_str::<Order>("[").is_err());
    }
}
