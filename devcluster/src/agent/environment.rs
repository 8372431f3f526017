//! The environment of executors, exactly what a real agent gives them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::config::AgentConfig;
use super::core::Launch;
use super::duration;
use super::http::ExecutorClaims;
use super::images::SANDBOX;
use super::secrets::Secrets;
use crate::ids::AgentId;

/// The search path of programs, whatever the agent's own is.
const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an executor proves with that it is the one that the agent started.
pub const TOKEN: &str = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN";

/// Everything that an executor finds in its environment. Variables of its command come on top,
/// but cannot hide those that it needs to find its agent.
pub fn of(
    launch: &Launch,
    config: &AgentConfig,
    agent: &AgentId,
    address: SocketAddr,
    secrets: &Secrets,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        env.insert(name.to_owned(), value);
    };
    set("PATH", HOST_PATH.to_owned());
    let variables = launch
        .executor
        .command
        .iter()
        .flat_map(|c| &c.environment)
        .flat_map(|e| &e.variables);
    for variable in variables {
        // What cannot be had stops the launch before it comes here.
        if let Ok(value) = secrets.value_of(variable) {
            set(&variable.name, value);
        }
    }
    let checkpoint = launch.framework.checkpoint();
    let sandbox = launch.sandbox.display().to_string();
    let grace = launch
        .executor
        .shutdown_grace_period
        .and_then(|d| u64::try_from(d.nanoseconds).ok())
        .map_or(
            config.executor_shutdown_grace_period,
            std::time::Duration::from_nanos,
        );
    let framework = launch.framework.id.clone().unwrap_or_default();
    set("LIBPROCESS_IP", address.ip().to_string());
    set("LIBPROCESS_PORT", "0".to_owned());
    set("MESOS_FRAMEWORK_ID", framework.value);
    set(
        "MESOS_EXECUTOR_ID",
        launch.executor.executor_id.value.clone(),
    );
    set("MESOS_DIRECTORY", sandbox.clone());
    let image = launch.executor.container.as_ref();
    let image = image
        .is_some_and(|c| c.docker.is_some() || c.mesos.as_ref().is_some_and(|m| m.image.is_some()));
    set(
        "MESOS_SANDBOX",
        if image { SANDBOX.to_owned() } else { sandbox },
    );
    set("MESOS_SLAVE_ID", agent.to_string());
    set("MESOS_SLAVE_PID", format!("slave(1)@{address}"));
    set("MESOS_AGENT_ENDPOINT", address.to_string());
    set(
        "MESOS_CHECKPOINT",
        if checkpoint { "1" } else { "0" }.to_owned(),
    );
    set("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned());
    set(
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
        duration::format(grace),
    );
    if checkpoint {
        set(
            "MESOS_RECOVERY_TIMEOUT",
            duration::format(config.recovery_timeout),
        );
        set("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs".to_owned());
    }
    if let Some(key) = &config.executor_key {
        let claims = ExecutorClaims {
            fid: launch.framework.id.clone().unwrap_or_default().value,
            eid: launch.executor.executor_id.value.clone(),
            cid: launch.container.to_string(),
        };
        set(TOKEN, claims.sign(key));
    }
    env
}

#[cfg(test)]
mod tests {
    use mesos::pb;

    use super::*;

    fn launch(checkpoint: bool) -> Launch {
        Launch {
            framework: pb::FrameworkInfo {
                id: Some(pb::FrameworkId { value: "F".into() }),
                checkpoint: Some(checkpoint),
                ..Default::default()
            },
            executor: pb::ExecutorInfo {
                executor_id: pb::ExecutorId { value: "e1".into() },
                command: Some(pb::CommandInfo {
                    environment: Some(pb::Environment {
                        variables: [("USER_VAR", "x y"), ("MESOS_CHECKPOINT", "7")]
                            .map(|(name, value)| pb::environment::Variable {
                                name: name.into(),
                                value: Some(value.into()),
                                ..Default::default()
                            })
                            .into(),
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            },
            command_task: false,
            container: "c".into(),
            sandbox: "/w/runs/c".into(),
            grant: Default::default(),
            user: None,
            volumes: Vec::new(),
            secrets: Vec::new(),
        }
    }

    fn variables(checkpoint: bool, key: Option<crate::jwt::Key>) -> BTreeMap<String, String> {
        let listen = "10.1.2.3:5051".parse().unwrap();
        let master = "m:5050".parse().unwrap();
        let config = AgentConfig {
            executor_key: key,
            ..AgentConfig::new(listen, master, std::path::Path::new("/w"), &[])
        };
        let secrets = Secrets::default();
        of(&launch(checkpoint), &config, &"S0".into(), listen, &secrets)
    }

    fn text(checkpoint: bool) -> String {
        let env = variables(checkpoint, None);
        env.iter().map(|(k, v)| format!("{k}={v}\n")).collect()
    }

    #[test]
    fn a_token_names_framework_executor_and_container() {
        let key = crate::jwt::Key::random();
        let token = &variables(true, Some(key.clone()))[TOKEN];
        let claims = key.claims(token, 0).unwrap();
        assert_eq!(
            claims,
            serde_json::json!({"fid": "F", "eid": "e1", "cid": "c"})
        );
    }

    #[test]
    fn an_executor_finds_what_a_real_agent_gives() {
        insta::assert_snapshot!(text(true), @r"
        LIBPROCESS_IP=10.1.2.3
        LIBPROCESS_PORT=0
        MESOS_AGENT_ENDPOINT=10.1.2.3:5051
        MESOS_CHECKPOINT=1
        MESOS_DIRECTORY=/w/runs/c
        MESOS_EXECUTOR_ID=e1
        MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD=5secs
        MESOS_FRAMEWORK_ID=F
        MESOS_HTTP_COMMAND_EXECUTOR=0
        MESOS_RECOVERY_TIMEOUT=15mins
        MESOS_SANDBOX=/w/runs/c
        MESOS_SLAVE_ID=S0
        MESOS_SLAVE_PID=slave(1)@10.1.2.3:5051
        MESOS_SUBSCRIPTION_BACKOFF_MAX=2secs
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        USER_VAR=x y
        ");
    }

    #[test]
    fn without_checkpointing_there_is_nothing_to_wait_for() {
        let text = text(false);
        assert!(text.contains("MESOS_CHECKPOINT=0\n"), "{text}");
        assert!(!text.contains("RECOVERY_TIMEOUT"), "{text}");
    }
}
