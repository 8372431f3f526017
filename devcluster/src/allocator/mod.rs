//! Who is offered what: the allocator, a pure state machine.
//!
//! It keeps for each agent what it has and what is given away, for each framework its roles and
//! the filters that it set by declining, and proposes allocations ([`Allocator::allocate`]) by
//! weighted dominant resource fairness over roles, then over the frameworks of a role. Like
//! Mesos' hierarchical allocator it gives an agent's free resources whole to one framework.
//! Quotas come before fairness ([`quota`]).

pub mod quota;
mod sorter;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::clock::Time;
use crate::ids::{AgentId, FrameworkId};
use crate::resources::{DEFAULT_ROLE, Resources, Scalar};

use quota::{Quota, Stage};
use sorter::{Account, Quantities};

/// Filters kept per framework, role and agent; beyond it the one that ends first goes.
const MAX_FILTERS: usize = 64;
/// Longest filter, as in Mesos: 365 days.
const MAX_REFUSE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Filter when none is given or it makes no sense, seconds: the default in the protocol.
const DEFAULT_REFUSE: Duration = Duration::from_secs(5);

/// Options of the allocator, defaults as Mesos' flags have them.
#[derive(Debug, Clone)]
pub struct AllocatorConfig {
    /// Time between two rounds (`--allocation_interval`, 1 s). A filter lasts at least as long.
    pub interval: Duration,
    /// Weights of roles (`--weights`); 1 for all others.
    pub weights: BTreeMap<String, f64>,
    /// Offers with less are not made: any one of these must be there
    /// (`--min_allocatable_resources`, `cpus:0.01|mem:32`).
    pub min_allocatable: Vec<BTreeMap<String, Scalar>>,
    /// Whether agents with GPUs are kept for frameworks with GPU_RESOURCES
    /// (`--filter_gpu_resources`).
    pub filter_gpu_resources: bool,
    /// Seed of the order in which agents are visited.
    pub seed: u64,
}

impl Default for AllocatorConfig {
    fn default() -> Self {
        let min = |name: &str, millis| [(name.to_owned(), Scalar::from_millis(millis))].into();
        Self {
            interval: Duration::from_secs(1),
            weights: BTreeMap::new(),
            min_allocatable: vec![min("cpus", 10), min("mem", 32_000)],
            filter_gpu_resources: true,
            seed: 0,
        }
    }
}

/// What the allocator must know of a framework.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrameworkOptions {
    /// Its roles.
    pub roles: BTreeSet<String>,
    /// Those in which it wants no offers.
    pub suppressed: BTreeSet<String>,
    /// Capability GPU_RESOURCES.
    pub gpu_aware: bool,
    /// Capability REGION_AWARE.
    pub region_aware: bool,
    /// Capability REVOCABLE_RESOURCES.
    pub revocable: bool,
    /// Per role, its own minimum instead of the master's; an empty list: anything will do.
    pub min_allocatable: BTreeMap<String, Vec<BTreeMap<String, Scalar>>>,
}

/// Resources of one agent for one framework in one role.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// To whom.
    pub framework: FrameworkId,
    /// In which role. Each resource says so too.
    pub role: String,
    /// Whose.
    pub agent: AgentId,
    /// What.
    pub resources: Resources,
}

#[derive(Debug)]
struct Filter {
    resources: Resources,
    until: Time,
}

#[derive(Debug)]
struct Framework {
    options: FrameworkOptions,
    active: bool,
    /// What it was given, by role.
    accounts: BTreeMap<String, Account>,
    filters: BTreeMap<String, BTreeMap<AgentId, Vec<Filter>>>,
}

#[derive(Debug)]
struct Agent {
    total: Resources,
    /// Given away, without allocation info.
    allocated: Resources,
    /// The rest, kept because it is asked for far more often than it changes.
    available: Resources,
    active: bool,
    /// In another region than the master: for REGION_AWARE frameworks only.
    remote: bool,
}

impl Agent {
    /// To be called after every change.
    fn settle(&mut self) {
        self.available.clone_from(&self.total);
        self.available.subtract_what_is_here(&self.allocated);
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Allocator {
    config: AllocatorConfig,
    frameworks: BTreeMap<FrameworkId, Framework>,
    agents: BTreeMap<AgentId, Agent>,
    /// What all frameworks of a role were given.
    roles: BTreeMap<String, Account>,
    quotas: BTreeMap<String, Quota>,
    total: Quantities,
    rng: StdRng,
}

impl Allocator {
    /// Without agents and frameworks.
    pub fn new(config: AllocatorConfig) -> Self {
        Self {
            rng: StdRng::seed_from_u64(config.seed),
            config,
            frameworks: BTreeMap::new(),
            agents: BTreeMap::new(),
            roles: BTreeMap::new(),
            quotas: BTreeMap::new(),
            total: Quantities::new(),
        }
    }

    /// The options.
    pub const fn config(&self) -> &AllocatorConfig {
        &self.config
    }

    /// Weight of a role.
    pub fn weight(&self, role: &str) -> f64 {
        self.config.weights.get(role).copied().unwrap_or(1.0)
    }

    /// A framework is there (again), with nothing given to it unless [`Self::charge`] says so.
    pub fn add_framework(&mut self, id: &FrameworkId, options: FrameworkOptions, active: bool) {
        let framework = self.frameworks.entry(id.clone()).or_insert(Framework {
            options: FrameworkOptions::default(),
            active,
            accounts: BTreeMap::new(),
            filters: BTreeMap::new(),
        });
        framework.active = active;
        framework.options = options;
    }

    /// A framework changed its roles or capabilities. Filters in roles that it left are gone,
    /// what it holds there stays until it gives it back.
    pub fn update_framework(&mut self, id: &FrameworkId, options: FrameworkOptions) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework
                .filters
                .retain(|role, _| options.roles.contains(role));
            framework.options = options;
        }
    }

    /// A framework is gone. What it held must have been given back before.
    pub fn remove_framework(&mut self, id: &FrameworkId) {
        if let Some(framework) = self.frameworks.remove(id) {
            for (role, account) in framework.accounts {
                self.refund_role(&role, &account.quantities);
            }
        }
    }

    /// Only active frameworks get offers. Deactivation forgets the filters.
    pub fn set_framework_active(&mut self, id: &FrameworkId, active: bool) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.active = active;
            if !active {
                framework.filters.clear();
            }
        }
    }

    /// An agent is there, or has changed what it has.
    pub fn add_agent(&mut self, id: &AgentId, total: Resources, remote: bool) {
        let scalars = total.scalars();
        match self.agents.get_mut(id) {
            Some(agent) => {
                sorter::subtract(&mut self.total, &agent.total.scalars());
                agent.total = total;
                agent.remote = remote;
                agent.settle();
            }
            None => {
                let agent = Agent {
                    available: total.clone(),
                    total,
                    allocated: Resources::default(),
                    active: true,
                    remote,
                };
                self.agents.insert(id.clone(), agent);
            }
        }
        sorter::add(&mut self.total, &scalars);
    }

    /// An agent is gone. What was given away of it must have been given back before.
    pub fn remove_agent(&mut self, id: &AgentId) {
        if let Some(agent) = self.agents.remove(id) {
            sorter::subtract(&mut self.total, &agent.total.scalars());
        }
        for framework in self.frameworks.values_mut() {
            for filters in framework.filters.values_mut() {
                filters.remove(id);
            }
        }
    }

    /// Only active agents are offered.
    pub fn set_agent_active(&mut self, id: &AgentId, active: bool) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.active = active;
        }
    }

    /// Resources that are in use without having been offered: tasks of an agent that came back.
    pub fn charge(&mut self, framework: &FrameworkId, agent: &AgentId, resources: &Resources) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.allocated.add_all(&resources.unallocated());
            agent.settle();
        }
        for (role, part) in resources.by_allocation() {
            let quantities = part.scalars();
            self.roles
                .entry(role.clone())
                .or_default()
                .charge(&quantities);
            if let Some(framework) = self.frameworks.get_mut(framework) {
                framework
                    .accounts
                    .entry(role)
                    .or_default()
                    .charge(&quantities);
            }
        }
    }

    /// Resources come back: declined, left over, or their task ended. With `refuse_seconds`
    /// the framework does not want them for so long (`None`: no filter).
    pub fn recover(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
        refuse_seconds: Option<f64>,
    ) {
        if resources.is_empty() {
            return;
        }
        if let Some(agent) = self.agents.get_mut(agent) {
            agent
                .allocated
                .subtract_what_is_here(&resources.unallocated());
            agent.settle();
        }
        for (role, part) in resources.by_allocation() {
            let quantities = part.scalars();
            self.refund_role(&role, &quantities);
            let Some(entry) = self.frameworks.get_mut(framework) else {
                continue;
            };
            if let Some(account) = entry.accounts.get_mut(&role) {
                account.refund(&quantities);
            }
            let Some(refuse) = refuse_seconds.and_then(refuse_duration) else {
                continue;
            };
            // A filter in a role that the framework has left would never be lifted by it.
            if !entry.active || !entry.options.roles.contains(&role) {
                continue;
            }
            let filters = entry
                .filters
                .entry(role)
                .or_default()
                .entry(agent.clone())
                .or_default();
            filters.retain(|f| f.until > now);
            if filters.len() >= MAX_FILTERS
                && let Some(i) = (0..filters.len()).min_by_key(|i| filters[*i].until)
            {
                filters.swap_remove(i);
            }
            filters.push(Filter {
                resources: part.unallocated(),
                until: now + refuse.max(self.config.interval),
            });
        }
    }

    /// Resources of an agent become others, by a reservation or a volume. `given_away`: they
    /// are with a framework, where they count the same as before.
    pub fn convert(
        &mut self,
        agent: &AgentId,
        consumed: &Resources,
        converted: &Resources,
        given_away: bool,
    ) {
        let (consumed, converted) = (consumed.unallocated(), converted.unallocated());
        let Some(agent) = self.agents.get_mut(agent) else {
            return;
        };
        agent.total.subtract_what_is_here(&consumed);
        agent.total.add_all(&converted);
        if given_away {
            agent.allocated.subtract_what_is_here(&consumed);
            agent.allocated.add_all(&converted);
        }
        agent.settle();
    }

    fn refund_role(&mut self, role: &str, quantities: &Quantities) {
        if let Some(account) = self.roles.get_mut(role) {
            account.refund(quantities);
        }
    }

    /// The framework wants offers in these roles, and no filter holds there any more.
    pub fn revive(&mut self, id: &FrameworkId, roles: &BTreeSet<String>) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            for role in roles {
                framework.options.suppressed.remove(role);
                framework.filters.remove(role);
            }
        }
    }

    /// The framework wants no offers in these roles.
    pub fn suppress(&mut self, id: &FrameworkId, roles: &BTreeSet<String>) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.options.suppressed.extend(roles.iter().cloned());
        }
    }

    /// Proposes what to offer, of these agents or of all, and counts it as given away.
    pub fn allocate(&mut self, now: Time, only: Option<&BTreeSet<AgentId>>) -> Vec<Allocation> {
        let mut agents: Vec<AgentId> = match only {
            Some(ids) => ids.iter().cloned().collect(),
            None => self.agents.keys().cloned().collect(),
        };
        agents.shuffle(&mut self.rng);
        let mut out = Vec::new();
        if self.has_guarantees() {
            self.allocate_stage(now, &agents, Stage::Guarantees, &mut out);
        }
        self.allocate_stage(now, &agents, Stage::Rest, &mut out);
        out
    }

    fn allocate_stage(
        &mut self,
        now: Time,
        agents: &[AgentId],
        stage: Stage,
        out: &mut Vec<Allocation>,
    ) {
        let mut order = None;
        for id in agents {
            let Some(agent) = self.agents.get(id) else {
                continue;
            };
            if !agent.active || agent.available.is_empty() {
                continue;
            }
            let has_gpus = agent.total.scalar("gpus").is_some();
            let remote = agent.remote;
            let mut available = agent.available.clone();
            while !available.is_empty() {
                let order = order.get_or_insert_with(|| self.order());
                if order.is_empty() {
                    return;
                }
                let Some((framework, role, resources)) =
                    self.first_taker(now, id, order, &available, (has_gpus, remote), stage)
                else {
                    break;
                };
                // What was taken is part of what was available.
                available.subtract_what_is_here(&resources);
                let resources = resources.allocated_to(&role);
                self.charge(&framework, id, &resources);
                out.push(Allocation {
                    framework,
                    role,
                    agent: id.clone(),
                    resources: resources.scalars_last(),
                });
                // Shares have moved.
                *order = self.order();
            }
        }
    }

    /// Roles and their frameworks that may get something, in order of fairness.
    fn order(&self) -> Vec<(String, Vec<FrameworkId>)> {
        let mut takers: BTreeMap<&str, Vec<(&FrameworkId, &Framework)>> = BTreeMap::new();
        for (id, framework) in self.frameworks.iter().filter(|(_, f)| f.active) {
            let roles = &framework.options.roles;
            for role in roles.difference(&framework.options.suppressed) {
                takers.entry(role).or_default().push((id, framework));
            }
        }
        let none = Account::default();
        // Roles without takers count too: what they hold is part of their parent's share.
        let mut accounts: BTreeMap<&str, &Account> =
            self.roles.iter().map(|(r, a)| (r.as_str(), a)).collect();
        for role in takers.keys() {
            accounts.entry(role).or_insert(&none);
        }
        let roles = sorter::order_roles(&accounts, &self.total, &|role| self.weight(role));
        let mut out = Vec::with_capacity(takers.len());
        for role in roles {
            let Some(members) = takers.remove(role) else {
                continue;
            };
            let mut members: Vec<_> = members
                .into_iter()
                .map(|(id, framework)| {
                    let account = framework.accounts.get(role).unwrap_or(&none);
                    let share = sorter::share(&account.quantities, &self.total, 1.0);
                    (share, account.served, id)
                })
                .collect();
            members.sort_by(|a, b| {
                sorter::compare((a.0, a.1, a.2.as_str()), (b.0, b.1, b.2.as_str()))
            });
            out.push((
                role.to_owned(),
                members.into_iter().map(|(_, _, id)| id.clone()).collect(),
            ));
        }
        out
    }

    fn first_taker(
        &self,
        now: Time,
        agent: &AgentId,
        order: &[(String, Vec<FrameworkId>)],
        available: &Resources,
        (has_gpus, remote): (bool, bool),
        stage: Stage,
    ) -> Option<(FrameworkId, String, Resources)> {
        for (role, frameworks) in order {
            let Some(mut room) = self.room(role, stage) else {
                continue;
            };
            let allowed = room.cut(&available.allocatable_to(role));
            for id in frameworks {
                let Some(framework) = self.frameworks.get(id) else {
                    continue;
                };
                let options = &framework.options;
                if has_gpus && self.config.filter_gpu_resources && !options.gpu_aware {
                    continue;
                }
                if remote && !options.region_aware {
                    continue;
                }
                let mut resources = allowed.clone();
                if !options.revocable {
                    resources = resources.filter(|r| !r.is_revocable());
                }
                if resources.is_empty()
                    || !self.allocatable(framework, role, &resources)
                    || is_filtered(framework, role, agent, &resources, now)
                {
                    continue;
                }
                return Some((id.clone(), role.clone(), resources));
            }
        }
        None
    }

    fn allocatable(&self, framework: &Framework, role: &str, resources: &Resources) -> bool {
        let minimum = framework
            .options
            .min_allocatable
            .get(role)
            .unwrap_or(&self.config.min_allocatable);
        let scalars = resources.scalars();
        minimum.is_empty()
            || minimum.iter().any(|any| {
                any.iter()
                    .all(|(name, least)| scalars.get(name.as_str()).is_some_and(|s| s >= least))
            })
    }

    /// What of an agent is not given away.
    pub fn available(&self, agent: &AgentId) -> Option<Resources> {
        self.agents.get(agent).map(|a| a.available.clone())
    }

    /// Roles that frameworks have or resources are given to.
    pub fn known_roles(&self) -> BTreeSet<String> {
        let mut out: BTreeSet<String> = self
            .roles
            .iter()
            .filter(|(_, a)| !a.quantities.is_empty())
            .map(|(role, _)| role.clone())
            .collect();
        for framework in self.frameworks.values() {
            out.extend(framework.options.roles.iter().cloned());
        }
        out.insert(DEFAULT_ROLE.to_owned());
        out
    }
}

fn is_filtered(
    framework: &Framework,
    role: &str,
    agent: &AgentId,
    resources: &Resources,
    now: Time,
) -> bool {
    framework
        .filters
        .get(role)
        .and_then(|agents| agents.get(agent))
        .is_some_and(|filters| {
            filters
                .iter()
                .any(|f| f.until > now && f.resources.contains(resources))
        })
}

/// How long a filter lasts; `None` for zero, which sets none.
pub(crate) fn refuse_duration(seconds: f64) -> Option<Duration> {
    if seconds == 0.0 {
        return None;
    }
    // Negative, infinite and absurd values: what Mesos does with them.
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) => Some(duration.min(MAX_REFUSE)),
        Err(_) if seconds > 0.0 => Some(MAX_REFUSE),
        Err(_) => Some(DEFAULT_REFUSE),
    }
}
