//! Annotations, labels, taints and names, in one place because they are a contract with users.

/// Prefix of every annotation, label and taint of ours.
pub const PREFIX: &str = "k8s.mesosphere.io/";

/// Node annotation: the id of the Mesos agent that the node runs on.
pub const AGENT_ID: &str = "k8s.mesosphere.io/agent-id";
/// Node annotation: the host name of that agent, as Mesos shows it.
pub const AGENT_HOSTNAME: &str = "k8s.mesosphere.io/agent-hostname";
/// Node annotation: the verbatim ExecutorInfo (base64 of protobuf) of the node's executor.
/// Mesos refuses a task whose ExecutorInfo differs from the running one.
pub const EXECUTOR_INFO: &str = "k8s.mesosphere.io/executor-info";
/// Node annotation: the id of the node's executor.
pub const EXECUTOR_ID: &str = "k8s.mesosphere.io/executor-id";
/// Node annotation: the id of the node task that the node currently lives by.
pub const NODE_TASK_ID: &str = "k8s.mesosphere.io/node-task-id";
/// Node annotation: the public part of the bootstrap token that was made for the node's current
/// start. It tells whose token a certificate request bears, also after a framework restart.
pub const BOOTSTRAP_TOKEN: &str = "k8s.mesosphere.io/bootstrap-token";
/// Node and pod annotation: the Mesos framework id.
pub const FRAMEWORK_ID: &str = "k8s.mesosphere.io/framework-id";
/// Pod annotation, set with the Binding: the pod's Mesos task.
pub const TASK_ID: &str = "k8s.mesosphere.io/task-id";
/// Node label prefix: a Mesos attribute of the agent.
pub const ATTRIBUTE_LABEL: &str = "k8s.mesosphere.io/attribute-";
/// Node label, `true` on each node that this framework made.
pub const MANAGED_LABEL: &str = "k8s.mesosphere.io/managed";
/// Taint (NoSchedule) of a node whose agent is unreachable. Never NoExecute: the default
/// tolerations do not name it, so it would evict at once.
pub const AGENT_UNREACHABLE_TAINT: &str = "k8s.mesosphere.io/agent-unreachable";
/// Taint (NoSchedule) of a node whose agent an operator is about to maintain.
pub const AGENT_MAINTENANCE_TAINT: &str = "k8s.mesosphere.io/agent-maintenance";
/// Node annotation that people and installers set: the node is emptied and given back to Mesos. Its
/// value says for how long disruption budgets hold, `10m` for instance.
pub const DRAIN: &str = "k8s.mesosphere.io/drain";
/// Default scheduler name, the one that pods get which name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// Default name of the framework.
pub const DEFAULT_FRAMEWORK: &str = "kubernetes";
/// User of the framework in the Kubernetes API (certificate common name).
pub const FRAMEWORK_USER: &str = "system:k8sm:framework";
/// Group of the nodes' kube-proxies (certificate organisation). Bound to `system:node-proxier`.
pub const PROXY_GROUP: &str = "system:k8sm:node-proxiers";
/// Common name of a node's kube-proxy is this and the node's name.
pub const PROXY_USER_PREFIX: &str = "system:kube-proxy:";
/// Extra group of the bootstrap tokens that the framework makes, one token for one node.
pub const BOOTSTRAP_GROUP: &str = "system:bootstrappers:k8sm";
/// Label (and value: the node's name) on the Secret of a node's bootstrap token.
pub const BOOTSTRAP_NODE_LABEL: &str = "k8s.mesosphere.io/bootstrap-node";
/// Namespace of the framework's own objects (framework id, leases, bootstrap tokens).
pub const SYSTEM_NAMESPACE: &str = "kube-system";
