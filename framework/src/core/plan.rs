//! Plans: room on held offers that is set aside for a node being prepared and for its pods.
//! A plan lives as long as every offer that it was made on.

use seam::node::NodePorts;

use super::ids::{AgentId, NodeName, PodUid, Role};
use super::node::Plan;
use super::pod::{PodTemplate, Stage};
use super::{State, node_ports};

impl State {
    /// Nodes that are being prepared, but lost their offers: set room aside again.
    pub(super) fn plan_waiting_nodes(&mut self) {
        let waiting: Vec<(NodeName, AgentId)> = self
            .nodes
            .values()
            .filter(|n| n.phase.is_prepared_for() && n.plan.node.is_none() && !n.give_up)
            .map(|n| (n.name.clone(), n.agent.clone()))
            .collect();
        for (name, agent) in waiting {
            let roles: Vec<Role> = self
                .offers
                .of(&agent)
                .map(|(role, _)| role.clone())
                .collect();
            for role in roles {
                if self.plan_node(&name, &agent, &role, None) {
                    break;
                }
            }
        }
    }

    /// Sets room aside for a node task.
    pub(super) fn plan_node(
        &mut self,
        name: &NodeName,
        agent: &AgentId,
        role: &Role,
        avoid: Option<&PodTemplate>,
    ) -> bool {
        let overhead = self.config.node_overhead;
        let Some(free) = self.offers.get(agent, role).map(|held| held.free.ports()) else {
            return false;
        };
        let Some(ports) = self.pick_ports(&free, avoid) else {
            return false;
        };
        let Some(held) = self.offers.get_mut(agent, role) else {
            return false;
        };
        let Some(grant) = held.free.take(&overhead, &ports) else {
            return false;
        };
        if let Some(node) = self.nodes.get_mut(name) {
            node.plan.role = Some(role.clone());
            node.plan.node = Some((grant, ports));
        }
        self.stale(agent);
        true
    }

    /// Ports for the node's own processes; if possible none that a waiting pod asks for.
    fn pick_ports(
        &mut self,
        free: &crate::resources::PortSet,
        avoid: Option<&PodTemplate>,
    ) -> Option<[u16; NodePorts::COUNT]> {
        let mut wanted: Vec<u16> = Vec::new();
        let waiting = self
            .queue
            .iter()
            .filter_map(|(_, _, uid)| self.pods.get(uid));
        let templates = waiting.take(1000).map(|p| &*p.view.template);
        for template in templates.chain(avoid) {
            if let Ok(requirements) = &template.requirements {
                wanted.extend(requirements.demand.host_ports.iter().map(|p| p.port));
            }
        }
        let avoid = &self.config.node_avoid_ports;
        let is_wanted = |port| wanted.contains(&port);
        node_ports::choose(free, avoid, is_wanted, &mut self.rng)
    }

    /// Forgets what was planned on an agent's offers of a role: one of them is void.
    pub(super) fn void_plan(&mut self, agent: &AgentId, role: &Role) {
        if let Some(name) = self.node_of.get(agent).cloned()
            && self
                .nodes
                .get(&name)
                .is_some_and(|n| n.plan.role.as_ref() == Some(role))
        {
            let plan = self.take_plan(&name);
            self.requeue(plan);
        }
    }

    /// All offers are void.
    pub(super) fn void_all_plans(&mut self) {
        let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for name in names {
            let plan = self.take_plan(&name);
            self.requeue(plan);
        }
    }

    /// Forgets a node's plan and gives the resources back to the held offers.
    pub(super) fn drop_plan(&mut self, name: &NodeName) {
        let agent = self.nodes.get(name).map(|n| n.agent.clone());
        let plan = self.take_plan(name);
        if let (Some(agent), Some(role)) = (agent, &plan.role)
            && let Some(held) = self.offers.get_mut(&agent, role)
        {
            if let Some((grant, _)) = &plan.node {
                held.free.add(grant);
            }
            for (_, grant, _) in &plan.pods {
                held.free.add(grant);
            }
            self.stale(&agent);
        }
        self.requeue(plan);
    }

    pub(super) fn take_plan(&mut self, name: &NodeName) -> Plan {
        self.nodes
            .get_mut(name)
            .map(|n| std::mem::take(&mut n.plan))
            .unwrap_or_default()
    }

    fn requeue(&mut self, plan: Plan) {
        self.wants_revive |= plan.node.is_some() || !plan.pods.is_empty();
        for (uid, _, _) in plan.pods {
            self.enqueue(&uid);
        }
    }

    /// Takes one pod out of the plan that it is in.
    pub(super) fn unplan(&mut self, uid: &PodUid) {
        let Some(Stage::Planned(name)) = self.pods.get(uid).map(|p| p.stage.clone()) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(&name) else {
            return;
        };
        let Some(at) = node
            .plan
            .pods
            .iter()
            .position(|(planned, _, _)| planned == uid)
        else {
            return;
        };
        let (_, grant, _) = node.plan.pods.remove(at);
        let (agent, role) = (node.agent.clone(), node.plan.role.clone());
        if let Some(held) = role.and_then(|role| self.offers.get_mut(&agent, &role)) {
            held.free.add(&grant);
        }
        self.stale(&agent);
    }
}
