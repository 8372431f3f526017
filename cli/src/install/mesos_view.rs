//! What Mesos says: version, agents, frameworks, tasks.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesos::http::{ClientConfig, Credentials, Secret, SecretSource};
use mesos::master::MasterUrl;
use mesos::operator::OperatorClient;
use mesos::pb;
use packaging::install::leftovers::{Reserved, TaskSeen};
use packaging::install::preflight::{Agent, FrameworkSeen};

use super::Error;
use crate::marathon;

/// How long the master may take to be found and to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Label by which Marathon knows what it has reserved.
const MARATHON_INSTANCE: &str = "marathon_task_id";

/// Mesos' masters.
#[derive(Debug, Clone)]
pub struct MesosView {
    client: OperatorClient,
}

/// Credentials from the environment: `K8SM_MESOS_PRINCIPAL` and `K8SM_MESOS_SECRET`. Never from
/// arguments, which every user of the machine sees.
pub(super) fn password() -> Option<(String, String)> {
    let variable = |name: &str| std::env::var(name).ok();
    variable("K8SM_MESOS_PRINCIPAL").zip(variable("K8SM_MESOS_SECRET"))
}

/// Whom the masters are told that we are, if somebody else than Marathon: under DC/OS one token is
/// for both.
fn credentials(marathon: &marathon::Credentials) -> Credentials {
    if let Some((principal, secret)) = password() {
        return Credentials::Basic {
            principal,
            secret: SecretSource::Value(Secret::new(secret)),
        };
    }
    let token = match marathon {
        marathon::Credentials::TokenFile(path) => SecretSource::File(path.clone()),
        // Another Marathon's token is nothing for Mesos.
        marathon::Credentials::Token(token)
            if std::env::var("DCOS_ACS_TOKEN").is_ok_and(|dcos| dcos == *token) =>
        {
            SecretSource::Value(Secret::new(token))
        }
        _ => return Credentials::None,
    };
    Credentials::Token { token }
}

impl MesosView {
    /// The masters at an address, for one whom Marathon knows by these credentials. Must be called
    /// on a tokio runtime.
    pub fn new(url: &str, marathon: &marathon::Credentials) -> Result<Self, Error> {
        let failed = |reason: String| Error::Mesos {
            action: "find the Mesos masters".to_owned(),
            reason,
        };
        let url = MasterUrl::parse(url).map_err(|e| failed(e.to_string()))?;
        let config = ClientConfig {
            credentials: credentials(marathon),
            ..ClientConfig::default()
        };
        let client =
            OperatorClient::new(&url, &config).map_err(|e| failed(crate::error::chain(&e)))?;
        Ok(Self { client })
    }

    async fn call(
        &self,
        action: &str,
        call: pb::master::Call,
    ) -> Result<pb::master::Response, Error> {
        let failed = |reason: String| Error::Mesos {
            action: action.to_owned(),
            reason,
        };
        match tokio::time::timeout(PATIENCE, self.client.call(&call)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(crate::error::chain(&error))),
            Err(_) => Err(failed(format!(
                "the Mesos master has not answered within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn get(
        &self,
        action: &str,
        what: pb::master::call::Type,
    ) -> Result<pb::master::Response, Error> {
        let call = pb::master::Call {
            r#type: Some(what.into()),
            ..Default::default()
        };
        self.call(action, call).await
    }

    /// Its version.
    pub async fn version(&self) -> Result<String, Error> {
        let action = "ask Mesos for its version";
        let response = self.get(action, pb::master::call::Type::GetVersion).await?;
        Ok(response
            .get_version
            .map(|v| v.version_info.version)
            .unwrap_or_default())
    }

    /// Its agents, with what Marathon could use of them.
    pub async fn agents(&self, marathon_role: Option<&str>) -> Result<Vec<Agent>, Error> {
        let action = "list Mesos' agents";
        let response = self.get(action, pb::master::call::Type::GetAgents).await?;
        let agents = response.get_agents.unwrap_or_default().agents;
        Ok(agents.iter().map(|a| agent(a, marathon_role)).collect())
    }

    /// Host names of its agents, and where their API is, `address:port`.
    pub async fn endpoints(&self) -> Result<Vec<(String, String)>, Error> {
        let action = "list Mesos' agents";
        let response = self.get(action, pb::master::call::Type::GetAgents).await?;
        let agents = response.get_agents.unwrap_or_default().agents;
        let endpoint = |pid: &str| pid.rsplit_once('@').map(|(_, e)| e.to_owned());
        Ok(agents
            .into_iter()
            .filter_map(|a| Some((a.agent_info.hostname, endpoint(a.pid.as_deref()?)?)))
            .collect())
    }

    /// Its frameworks that are registered.
    pub async fn frameworks(&self) -> Result<Vec<FrameworkSeen>, Error> {
        let action = "list Mesos' frameworks";
        let what = pb::master::call::Type::GetFrameworks;
        let response = self.get(action, what).await?;
        let frameworks = response.get_frameworks.unwrap_or_default().frameworks;
        Ok(frameworks
            .into_iter()
            .map(|f| FrameworkSeen {
                id: f.framework_info.id.map(|id| id.value).unwrap_or_default(),
                name: f.framework_info.name,
                connected: f.connected,
            })
            .collect())
    }

    /// What is reserved at run time.
    pub async fn reserved(&self) -> Result<Vec<Reserved>, Error> {
        let action = "list what is reserved on Mesos' agents";
        let response = self.get(action, pb::master::call::Type::GetAgents).await?;
        let agents = response.get_agents.unwrap_or_default().agents;
        Ok(agents.iter().flat_map(reserved_on).collect())
    }

    /// The principal with which a framework has registered. Marathon does not say its own.
    pub async fn principal(&self, framework: &str) -> Result<Option<String>, Error> {
        let action = "list Mesos' frameworks";
        let what = pb::master::call::Type::GetFrameworks;
        let response = self.get(action, what).await?;
        let frameworks = response.get_frameworks.unwrap_or_default().frameworks;
        let info = frameworks
            .into_iter()
            .map(|f| f.framework_info)
            .find(|info| info.id.as_ref().is_some_and(|id| id.value == framework));
        Ok(info.and_then(|info| info.principal))
    }

    /// Ids of the offers that a framework holds.
    pub async fn offers(&self, framework: &str) -> Result<Vec<String>, Error> {
        let action = "list the offers of Mesos' frameworks";
        let what = pb::master::call::Type::GetFrameworks;
        let response = self.get(action, what).await?;
        let frameworks = response.get_frameworks.unwrap_or_default().frameworks;
        let of = |f: &pb::master::response::get_frameworks::Framework| {
            f.framework_info
                .id
                .as_ref()
                .is_some_and(|id| id.value == framework)
        };
        let offers = frameworks.into_iter().filter(of).flat_map(|f| f.offers);
        Ok(offers.map(|o| o.id.value).collect())
    }

    /// Tasks that have not ended.
    pub async fn tasks(&self) -> Result<Vec<TaskSeen>, Error> {
        let action = "list Mesos' tasks";
        let response = self.get(action, pb::master::call::Type::GetTasks).await?;
        let tasks = response.get_tasks.unwrap_or_default();
        Ok(tasks
            .tasks
            .into_iter()
            .map(|t| TaskSeen {
                framework: t.framework_id.value,
                id: t.task_id.value,
                name: t.name,
            })
            .collect())
    }

    /// Removes a framework; its tasks end.
    pub async fn teardown(&self, id: &str) -> Result<(), Error> {
        let call = pb::master::Call {
            r#type: Some(pb::master::call::Type::Teardown.into()),
            teardown: Some(pb::master::call::Teardown {
                framework_id: pb::FrameworkId {
                    value: id.to_owned(),
                },
            }),
            ..Default::default()
        };
        self.call(&format!("remove the framework {id} from Mesos"), call)
            .await
            .map(drop)
    }
}

/// What is reserved at run time on an agent.
fn reserved_on(
    found: &pb::master::response::get_agents::Agent,
) -> impl Iterator<Item = Reserved> + use<'_> {
    let dynamic = pb::resource::reservation_info::Type::Dynamic;
    found.total_resources.iter().filter_map(move |resource| {
        let reservation = resource.reservations.last()?;
        if reservation.r#type != Some(dynamic.into()) {
            return None;
        }
        let labels = reservation.labels.iter().flat_map(|l| &l.labels);
        let instance = labels
            .filter(|l| l.key == MARATHON_INSTANCE)
            .find_map(|l| l.value.clone());
        let persistence = resource.disk.as_ref().and_then(|d| d.persistence.as_ref());
        let amount = resource.scalar.as_ref().map_or(0.0, |s| s.value);
        Some(Reserved {
            agent: found.agent_info.hostname.clone(),
            role: reservation.role.clone().unwrap_or_default(),
            what: format!("{} {amount}", resource.name),
            volume: persistence.map(|p| p.id.clone()),
            instance,
        })
    })
}

fn agent(found: &pb::master::response::get_agents::Agent, marathon_role: Option<&str>) -> Agent {
    let info = &found.agent_info;
    let total = &found.total_resources;
    let usable = |r: &&pb::Resource| {
        let role = reserved_for(r);
        role.is_none() || role == marathon_role
    };
    let scalar = |name: &str| -> f64 {
        total
            .iter()
            .filter(usable)
            .filter(|r| r.name == name)
            .filter_map(|r| r.scalar.as_ref().map(|s| s.value))
            .sum()
    };
    let ports = total
        .iter()
        .filter(usable)
        .filter(|r| r.name == "ports")
        .filter_map(|r| r.ranges.as_ref())
        .flat_map(|r| &r.range)
        .filter_map(|r| Some((u16::try_from(r.begin).ok()?, u16::try_from(r.end).ok()?)))
        .collect();
    let mut roles: Vec<Option<&str>> = total
        .iter()
        .filter(|r| r.name == "cpus")
        .map(reserved_for)
        .collect();
    roles.dedup();
    let role = match roles.as_slice() {
        [Some(role)] => Some((*role).to_owned()),
        _ => None,
    };
    Agent {
        id: info
            .id
            .as_ref()
            .map(|id| id.value.clone())
            .unwrap_or_default(),
        hostname: info.hostname.clone(),
        address: found.pid.as_deref().and_then(address),
        version: found.version.clone(),
        active: found.active && !found.deactivated.unwrap_or(false),
        role,
        cpus: scalar("cpus"),
        mem: scalar("mem"),
        disk: scalar("disk"),
        ports,
    }
}

/// Who has reserved a resource.
fn reserved_for(resource: &pb::Resource) -> Option<&str> {
    resource
        .reservations
        .last()
        .and_then(|r| r.role.as_deref())
        .filter(|role| *role != "*")
}

/// The address in `slave(1)@192.0.2.1:5051`.
fn address(pid: &str) -> Option<Ipv4Addr> {
    let (_, endpoint) = pid.rsplit_once('@')?;
    endpoint.rsplit_once(':')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mesos_gets_the_token_of_dcos_and_no_password_of_marathons() {
        let file = marathon::Credentials::TokenFile("/sandbox/token".into());
        let Credentials::Token {
            token: SecretSource::File(path),
        } = credentials(&file)
        else {
            panic!("no token");
        };
        assert_eq!(path, std::path::Path::new("/sandbox/token"));
        let basic = marathon::Credentials::Basic {
            user: "u".to_owned(),
            password: "p".to_owned(),
        };
        assert!(matches!(credentials(&basic), Credentials::None));
        let others = marathon::Credentials::Token("another Marathon's".to_owned());
        assert!(matches!(credentials(&others), Credentials::None));
    }

    #[test]
    fn an_agents_address_is_in_its_pid() {
        assert_eq!(
            address("slave(1)@192.0.2.1:5051"),
            Some(Ipv4Addr::new(192, 0, 2, 1))
        );
        assert_eq!(address("slave(1)@[2001:db8::1]:5051"), None);
        assert_eq!(address("nonsense"), None);
    }
}
