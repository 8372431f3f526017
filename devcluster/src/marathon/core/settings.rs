//! What decides how Marathon behaves; names and defaults are those of its flags.

use std::collections::BTreeSet;
use std::time::Duration;

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--framework_name`.
    pub framework_name: String,
    /// `--mesos_role`; `*` for none. Reservations need one.
    pub role: String,
    /// `--mesos_authentication_principal`.
    pub principal: Option<String>,
    /// `--mesos_user`.
    pub user: String,
    /// `--failover_timeout`: how long tasks outlive a Marathon that is away; a week.
    pub failover_timeout: Duration,
    /// `--enable_features`.
    pub features: BTreeSet<String>,
    /// `--default_network_name`.
    pub network_name: Option<String>,
    /// The master, as it was named, without credentials.
    pub master: String,
    /// Where clients reach the API, `host:port`.
    pub address: String,
    /// `--local_port_min` and `--local_port_max`: numbers of service ports.
    pub service_ports: (u16, u16),
    /// `--decline_offer_duration`: how long offers that nobody wants stay away; 120 s.
    pub decline: Duration,
    /// `--min_revive_offers_interval`. Marathon's is 5 s; here apps are to start at once.
    pub revive_interval: Duration,
    /// `--max_instances_per_offer`.
    pub max_instances_per_offer: usize,
    /// `--max_running_deployments`.
    pub max_deployments: usize,
    /// `--task_launch_timeout`: how long a task may take to start; 300 s.
    pub launch_timeout: Duration,
    /// `--task_reservation_timeout`: how long a reservation may take; 20 s.
    pub reservation_timeout: Duration,
    /// `--kill_retry_timeout`: how long until a kill is repeated; 10 s.
    pub kill_retry: Duration,
    /// `--reconciliation_interval`; 600 s.
    pub reconcile: Duration,
    /// `--zk_max_node_size`: how large a definition may be, in bytes.
    pub max_definition: usize,
    /// `--zk_max_versions`: how many versions of an app are kept.
    pub max_versions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            framework_name: "marathon".to_owned(),
            role: "*".to_owned(),
            principal: None,
            user: "root".to_owned(),
            failover_timeout: Duration::from_secs(604_800),
            features: BTreeSet::new(),
            network_name: None,
            master: String::new(),
            address: "127.0.0.1:8080".to_owned(),
            service_ports: (10_000, 20_000),
            decline: Duration::from_secs(120),
            revive_interval: Duration::from_millis(250),
            max_instances_per_offer: 5,
            max_deployments: 100,
            launch_timeout: Duration::from_secs(300),
            reservation_timeout: Duration::from_secs(20),
            kill_retry: Duration::from_secs(10),
            reconcile: Duration::from_secs(600),
            max_definition: 1_024_000,
            max_versions: 50,
        }
    }
}
