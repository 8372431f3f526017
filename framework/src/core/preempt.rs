//! Preemption: a pod that fits nowhere makes room by ending pods of lower priority.
//!
//! ```text
//! fits nowhere --victims chosen--> nominated --victims gone, Mesos offers their room--> placed
//!                                      |
//!                                      +-- the room did not come in time: tried again from the start
//! ```
//!
//! What victims free goes back to Mesos before it is offered again, so between the choice and the
//! placing lies at least one allocation. Meanwhile the pod is *nominated*: in every pass its demand counts
//! as used on that node for all pods that come after it, those of its own priority included;
//! else the victims' replacements would take what was freed. Pods that are ending already count
//! as room that comes by itself, so a framework that was started again in between, and has
//! forgotten its nominations, does not choose victims a second time.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{NodeName, PodUid, Role, Time};
use super::node::bytes;
use super::place::Rank;
use super::pod::{PodTemplate, Stage};
use super::pool::Pool;
use crate::placement::{Candidate, Fit, PodRequirements, fits};
use crate::resources::PodDemand;

/// A victim that is not being deleted after this is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// After its victims are gone, a nominated pod waits so long for Mesos to offer what they had:
/// some rounds of allocation, and the time that containers take to end.
const FREED_WITHIN: Duration = Duration::from_secs(15);
/// Searches for victims in one pass at most: each looks at every pod of every node. Who comes
/// after them waits for another pass.
const SEARCHES: usize = 16;

/// What one pass has spent on searches for victims.
#[derive(Debug, Default)]
pub(super) struct Searches {
    done: usize,
    /// The least priority of all bound pods, once it was looked for: without this, clusters
    /// whose pods are all alike would search in vain all the time.
    least: Option<i32>,
}

/// A pod waits for what its victims free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomination {
    /// The node.
    pub node: NodeName,
    /// Pods that were told to end, or were ending already.
    pub victims: Vec<PodUid>,
    /// When the victims were last told to end.
    pub asked: Time,
    /// Since when all of them have been gone.
    pub freed: Option<Time>,
}

/// A pod that could make room.
#[derive(Debug, Clone)]
struct Tenant {
    uid: PodUid,
    priority: i32,
    created: Time,
    deleting: bool,
    demand: PodDemand,
    fit: Fit,
    /// Role that its resources go back to; `None` if that is not known any more.
    role: Option<Role>,
}

/// How bad a choice of victims is; smaller is better. As upstream ranks them: the least
/// important victim, then the least priority in sum, the fewest, the youngest.
type Cost = (Option<i32>, i64, usize, Reverse<Time>);

impl State {
    /// The queue in the order in which it is tried: nominated pods come first among those of
    /// their priority, so that what they wait for is set aside before others look for a place.
    pub(super) fn waiting_pods(&self) -> Vec<PodUid> {
        let mut waiting: Vec<_> = self
            .queue
            .iter()
            .map(|(priority, _, uid)| {
                let nominated = self.pods.get(uid).is_some_and(|p| p.nomination.is_some());
                ((*priority, !nominated), uid.clone())
            })
            .collect();
        waiting.sort_by_key(|(key, _)| *key);
        waiting.into_iter().map(|(_, uid)| uid).collect()
    }

    /// What the filters saw of nodes that room was set aside on is to be looked at anew.
    pub(super) fn forget_bookings(&mut self) {
        for node in std::mem::take(&mut self.booked).into_keys() {
            self.look_anew(&node);
        }
    }

    fn look_anew(&mut self, node: &NodeName) {
        if let Some(agent) = self.nodes.get(node).map(|n| n.agent.clone()) {
            self.candidates.remove(&agent);
        }
    }

    /// For the rest of this pass the pod's demand counts as used on the node.
    fn book(&mut self, node: &NodeName, template: &PodTemplate) {
        if let Ok(requirements) = &template.requirements {
            let booking = (rounded(template, requirements), Fit::default());
            self.booked.entry(node.clone()).or_default().push(booking);
            self.look_anew(node);
        }
    }

    /// Whether a pod that was not placed still waits for its victims' room, which is set aside
    /// for it then, or has just given that up: before it looks for other victims it backs off.
    pub(super) fn waits_for_victims(&mut self, uid: &PodUid, template: &PodTemplate) -> bool {
        let Some(nomination) = self.pods.get(uid).and_then(|p| p.nomination.clone()) else {
            return false;
        };
        let takes_pods = self
            .nodes
            .get(&nomination.node)
            .is_some_and(|n| matches!(self.rank(&n.agent), Ok(Rank::Ready | Rank::Starting)));
        let bound = self.bound.get(&nomination.node);
        let here: Vec<PodUid> = nomination
            .victims
            .iter()
            .filter(|victim| bound.is_some_and(|pods| pods.contains(*victim)))
            .cloned()
            .collect();
        let now = self.now;
        let freed = here.is_empty().then(|| nomination.freed.unwrap_or(now));
        let waits = takes_pods && freed.is_none_or(|since| now.since(since) < FREED_WITHIN);
        if !waits {
            self.drop_nomination(uid);
            self.back_off(uid);
            return true;
        }
        self.book(&nomination.node, template);
        let again = now.since(nomination.asked) >= ASK_AGAIN;
        if again {
            self.tell_victims(uid, &nomination.node, &here);
        }
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.nomination = Some(Nomination {
                freed,
                asked: if again { now } else { nomination.asked },
                ..nomination
            });
        }
        true
    }

    fn drop_nomination(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(uid) else {
            return;
        };
        if pod.nomination.take().is_some() {
            let pod = pod.reference();
            self.emit(Effect::Nominate { pod, node: None });
        }
    }

    /// Looks for pods of lower priority whose end would make room for this one, tells them to end and
    /// nominates the pod. False if there are none.
    pub(super) fn preempt(
        &mut self,
        uid: &PodUid,
        template: &PodTemplate,
        searches: &mut Searches,
    ) -> bool {
        let Some(priority) = self.pods.get(uid).map(|p| p.view.priority) else {
            return false;
        };
        let least = *searches.least.get_or_insert_with(|| self.least_priority());
        if priority <= least || searches.done == SEARCHES {
            return false;
        }
        searches.done += 1;
        let told = self.told_victims();
        let Some((node, victims)) = self.choose_victims(priority, template, &told) else {
            return false;
        };
        let news: Vec<PodUid> = victims
            .iter()
            .filter(|victim| !told.contains(*victim))
            .cloned()
            .collect();
        self.tell_victims(uid, &node, &news);
        self.counters.preemptions += 1;
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.nomination = Some(Nomination {
                node: node.clone(),
                victims,
                asked: now,
                freed: None,
            });
            let pod = pod.reference();
            self.emit(Effect::Nominate {
                pod,
                node: Some(node.clone()),
            });
        }
        self.book(&node, template);
        true
    }

    /// Pods that others have been told to make room for already, in this pass or before.
    fn told_victims(&self) -> BTreeSet<PodUid> {
        self.queue
            .iter()
            .filter_map(|(_, _, uid)| self.pods.get(uid)?.nomination.as_ref())
            .flat_map(|nomination| nomination.victims.iter().cloned())
            .collect()
    }

    fn least_priority(&self) -> i32 {
        let bound = self.pods.values().filter(|p| p.view.node.is_some());
        bound.map(|p| p.view.priority).min().unwrap_or(i32::MAX)
    }

    fn tell_victims(&mut self, by: &PodUid, node: &NodeName, victims: &[PodUid]) {
        let Some(by) = self.pods.get(by).map(|p| p.reference()) else {
            return;
        };
        let told: Vec<Effect> = victims
            .iter()
            .filter_map(|uid| self.pods.get(uid))
            .filter(|pod| !pod.view.deleting)
            .map(|pod| Effect::Preempt {
                pod: pod.reference(),
                by: by.clone(),
                node: node.clone(),
            })
            .collect();
        for effect in told {
            self.emit(effect);
        }
    }

    fn choose_victims(
        &self,
        priority: i32,
        template: &PodTemplate,
        told: &BTreeSet<PodUid>,
    ) -> Option<(NodeName, Vec<PodUid>)> {
        let mut requirements = template.requirements.clone().ok()?;
        if !requirements.may_preempt {
            return None;
        }
        requirements.demand = rounded(template, &requirements);
        let mut best: Option<(Cost, NodeName, Vec<PodUid>)> = None;
        for node in self.nodes.values() {
            let (Some(agent), Ok(rank @ (Rank::Ready | Rank::Starting))) =
                (self.agents.get(&node.agent), self.rank(&node.agent))
            else {
                continue;
            };
            let mut tenants = self.tenants(&node.name, priority);
            for tenant in &mut tenants {
                tenant.deleting |= told.contains(&tenant.uid);
            }
            let booked = self.booked.get(&node.name).map_or(&[][..], |it| &it[..]);
            if tenants.is_empty() {
                continue;
            }
            let nothing = Pool::default();
            let mut pools: Vec<(Option<&Role>, &Pool)> = self
                .available(agent, template)
                .map(|(role, _, pool)| (Some(role), pool))
                .collect();
            // Roles of which nothing is free now.
            for role in tenants.iter().filter_map(|t| t.role.as_ref()) {
                let usable = self.role_order(template, role).is_some();
                if usable && pools.iter().all(|(of, _)| *of != Some(role)) {
                    pools.push((Some(role), &nothing));
                }
            }
            if pools.is_empty() {
                pools.push((None, &nothing));
            }
            for (role, pool) in pools {
                let goes_there = |of: &Option<Role>| match (of, role) {
                    (Some(of), Some(role)) => of == role,
                    _ => true,
                };
                let of_role: Vec<&Tenant> =
                    tenants.iter().filter(|t| goes_there(&t.role)).collect();
                let candidate = self.unbooked_candidate(&node.agent, rank, pool);
                if let Some(victims) = victims(&requirements, candidate, booked, &of_role) {
                    let cost = cost(&victims);
                    if best.as_ref().is_none_or(|(least, _, _)| cost < *least) {
                        let uids = victims.iter().map(|t| t.uid.clone()).collect();
                        best = Some((cost, node.name.clone(), uids));
                    }
                }
            }
        }
        best.map(|(_, node, victims)| (node, victims))
    }

    /// The pods of a node that have a task and are ending, or have a lower priority; the most
    /// important first.
    fn tenants(&self, node: &NodeName, priority: i32) -> Vec<Tenant> {
        let mut tenants: Vec<Tenant> = self
            .bound
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|uid| {
                let pod = self.pods.get(uid)?;
                let Stage::Tasked(task) = &pod.stage else {
                    return None;
                };
                let task = self.ledger.get(task)?;
                let requirements = pod.view.template.requirements.as_ref().ok()?;
                let removable = pod.view.deleting || pod.view.priority < priority;
                removable.then(|| Tenant {
                    uid: uid.clone(),
                    priority: pod.view.priority,
                    created: pod.view.created,
                    deleting: pod.view.deleting,
                    demand: rounded(&pod.view.template, requirements),
                    fit: Fit {
                        ports: task.ports.as_deref().unwrap_or_default().to_vec(),
                        shared_ports: Vec::new(),
                    },
                    role: task.role.clone(),
                })
            })
            .collect();
        tenants.sort_by_key(|t| (Reverse(t.priority), t.created, t.uid.clone()));
        tenants
    }
}

/// The demand in what Mesos counts: whole MiB.
fn rounded(template: &PodTemplate, requirements: &PodRequirements) -> PodDemand {
    PodDemand {
        memory_bytes: bytes(template.amounts.mem),
        disk_bytes: bytes(template.amounts.disk),
        ..requirements.demand.clone()
    }
}

/// Those of the tenants that have to end so that the pod fits; `None` if that would not do. Of
/// those that need not, the most important ones are spared first.
fn victims<'a>(
    requirements: &PodRequirements,
    mut candidate: Candidate,
    booked: &[(PodDemand, Fit)],
    tenants: &[&'a Tenant],
) -> Option<Vec<&'a Tenant>> {
    for tenant in tenants {
        candidate.give_back(&tenant.demand, &tenant.fit);
    }
    // After everything is back: what is set aside may be more than what is free before.
    for (demand, fit) in booked {
        candidate.take(demand, fit);
    }
    fits(requirements, &candidate)?;
    let mut victims = Vec::new();
    for tenant in tenants {
        if tenant.deleting {
            victims.push(*tenant);
            continue;
        }
        candidate.take(&tenant.demand, &tenant.fit);
        if fits(requirements, &candidate).is_none() {
            candidate.give_back(&tenant.demand, &tenant.fit);
            victims.push(*tenant);
        }
    }
    Some(victims)
}

fn cost(victims: &[&Tenant]) -> Cost {
    let told: Vec<&&Tenant> = victims.iter().filter(|t| !t.deleting).collect();
    let greatest = told.iter().map(|t| t.priority).max();
    let oldest = told
        .iter()
        .filter(|t| Some(t.priority) == greatest)
        .map(|t| t.created)
        .min();
    (
        greatest,
        // As upstream: negative priorities must not make more victims look better.
        told.iter()
            .map(|t| i64::from(t.priority) - i64::from(i32::MIN))
            .sum(),
        told.len(),
        Reverse(oldest.unwrap_or(Time(0))),
    )
}
