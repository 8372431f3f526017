//! What the pre-flight finds and chooses.

use serde_json::json;

use super::*;
use crate::install::judge::Seen;
use crate::options::Layers;

fn options(sets: &[&str]) -> Options {
    let mut layers = Layers::new();
    for set in sets {
        layers.set(set).unwrap();
    }
    layers.finish().unwrap()
}

fn agent(number: u8, disk: f64) -> Agent {
    Agent {
        id: format!("S{number}"),
        hostname: format!("agent-{number}"),
        address: Some(Ipv4Addr::new(192, 0, 2, number)),
        version: "1.11.0".to_owned(),
        active: true,
        role: None,
        cpus: 4.0,
        mem: 8192.0,
        disk,
        ports: vec![(2379, 2381), (6443, 6500), (8132, 8134), (31000, 32000)],
    }
}

fn situation() -> Situation {
    Situation {
        marathon_version: "1.11.24".to_owned(),
        mesos_version: "1.11.0".to_owned(),
        agents: vec![
            agent(1, 10_000.0),
            agent(2, 50_000.0),
            agent(3, 20_000.0),
            agent(4, 30_000.0),
        ],
        ..Situation::default()
    }
}

fn names(hosts: &[AgentHost]) -> Vec<&str> {
    hosts.iter().map(|h| h.hostname.as_str()).collect()
}

fn fatal(options: &Options, found: &Situation, own: Option<&str>) -> Vec<String> {
    check(options, found, own)
        .into_iter()
        .filter(|f| f.level == Level::Fatal)
        .map(|f| f.to_string())
        .collect()
}

#[test]
fn etcd_gets_the_roomiest_agents_and_every_choice_has_a_reason() {
    let choice = choose(&options(&[]), &situation(), None).unwrap();
    assert_eq!(names(&choice.etcd_hosts), ["agent-2", "agent-4", "agent-3"]);
    assert_eq!(choice.etcd_storage, EtcdStorage::HostPath);
    assert_eq!(choice.pki, "env");
    assert_eq!(choice.api_hosts.len(), 4);
    insta::assert_snapshot!(choice.why.join("\n"));
}

#[test]
fn a_choice_is_kept_when_agents_come() {
    let first = choose(&options(&[]), &situation(), None).unwrap();
    let mut later = situation();
    later.agents.push(agent(5, 900_000.0));
    later.marathon_role = Some("k8s".to_owned());
    later.marathon_principal = Some("marathon".to_owned());
    let again = choose(&options(&[]), &later, Some(&first)).unwrap();
    assert_eq!(again.etcd_hosts, first.etcd_hosts);
    assert_eq!(again.etcd_storage, first.etcd_storage);
    assert_eq!(again.api_hosts, first.api_hosts);
}

#[test]
fn a_marathon_that_can_reserve_gets_volumes_and_one_with_secrets_keeps_keys_there() {
    let mut found = situation();
    found.marathon_role = Some("k8s".to_owned());
    found.marathon_principal = Some("marathon".to_owned());
    found.marathon_secrets = true;
    let choice = choose(&options(&[]), &found, None).unwrap();
    assert_eq!(choice.etcd_storage, EtcdStorage::Persistent);
    assert_eq!(choice.pki, "secrets");
}

#[test]
fn too_few_agents_are_told_with_what_would_help() {
    let mut found = situation();
    found.agents.truncate(2);
    let error = choose(&options(&[]), &found, None).unwrap_err().to_string();
    assert!(
        error.contains("3 agent(s)") && error.contains("etcd.count"),
        "{error}"
    );
    let mut found = situation();
    for agent in &mut found.agents {
        agent.ports = vec![(31000, 32000)];
    }
    let error = choose(&options(&[]), &found, None).unwrap_err().to_string();
    assert!(
        error.contains("2379") && error.contains("require_ports"),
        "{error}"
    );
    let loose = options(&["marathon.require_ports=false"]);
    assert!(choose(&loose, &found, None).is_ok());
}

#[test]
fn an_agent_that_is_named_and_not_there_is_told() {
    let named = options(&["etcd.count=1", "etcd.agents=nowhere"]);
    let error = choose(&named, &situation(), None).unwrap_err().to_string();
    assert!(
        error.contains("nowhere") && error.contains("agent-1"),
        "{error}"
    );
}

#[test]
fn public_and_inactive_agents_are_left_alone() {
    let mut found = situation();
    found.agents[1].role = Some("slave_public".to_owned());
    found.agents[3].active = false;
    let error = choose(&options(&[]), &found, None).unwrap_err();
    assert_eq!(error.level, Level::Fatal);
    let one = choose(
        &options(&["etcd.count=1", "apiserver.instances=1"]),
        &found,
        None,
    )
    .unwrap();
    assert_eq!(names(&one.etcd_hosts), ["agent-3"]);
}

#[test]
fn names_that_are_taken_are_found_in_marathon_and_among_frameworks() {
    let options = options(&[]);
    let mut found = situation();
    let app = Seen {
        definition: json!({"labels": {"K8SM_INSTALL_ID": "other"}}),
        ..Seen::default()
    };
    found.world.apps.insert("/kubernetes".to_owned(), app);
    found.frameworks.push(FrameworkSeen {
        id: "F1".to_owned(),
        name: "kubernetes".to_owned(),
        connected: false,
    });
    let text = fatal(&options, &found, Some("mine")).join("\n");
    assert!(text.contains("installation other"), "{text}");
    assert!(text.contains("F1") && text.contains("teardown"), "{text}");
    // Our own are no obstacle.
    assert_eq!(fatal(&options, &found, Some("other")), Vec::<String>::new());
}

#[test]
fn old_versions_and_node_ports_that_agents_offer_are_fatal() {
    let mut found = situation();
    found.marathon_version = "1.4.9".to_owned();
    found.mesos_version = "1.8.1".to_owned();
    let wide = options(&["kubernetes.node_port_range=30000-32767"]);
    let text = fatal(&wide, &found, None).join("\n");
    assert!(text.contains("Marathon 1.4.9 is older than 1.5"), "{text}");
    assert!(text.contains("Mesos 1.8.1 is older than 1.9"), "{text}");
    assert!(text.contains("31000-32000"), "{text}");
}

#[test]
fn keys_in_the_environment_are_said_loudly() {
    let findings = check(&options(&[]), &situation(), None);
    let warned = findings
        .iter()
        .any(|f| f.level == Level::Warning && f.what.contains("environment"));
    assert!(warned, "{findings:?}");
}

#[test]
fn a_control_plane_that_never_fits_is_refused_with_what_there_is() {
    let mut found = situation();
    found.agents.truncate(1);
    found.agents[0].cpus = 2.0;
    let one = options(&["etcd.count=1", "apiserver.instances=1"]);
    let text = fatal(&one, &found, None).join("\n");
    assert!(
        text.contains("3.0 CPUs") || text.contains("3.1 CPUs"),
        "{text}"
    );
    assert!(text.contains("together have 2.0"), "{text}");
    assert_eq!(fatal(&one, &found, Some("mine")), Vec::<String>::new());
}

#[test]
fn a_lost_member_of_etcd_stays_on_its_agent_or_moves_to_one_without_a_member() {
    let options = options(&[]);
    let before = choose(&options, &situation(), None).unwrap();
    let same = replace_member(&options, &situation(), &before, 1).unwrap();
    assert_eq!(same.etcd_hosts, before.etcd_hosts);
    let mut found = situation();
    found.agents.retain(|a| a.hostname != "agent-4");
    let moved = replace_member(&options, &found, &before, 1).unwrap();
    assert_eq!(names(&moved.etcd_hosts), ["agent-2", "agent-1", "agent-3"]);
    found.agents.retain(|a| a.hostname != "agent-1");
    let full = replace_member(&options, &found, &before, 1).unwrap_err();
    assert!(full.what.contains("etcd needs 1 agent"), "{full}");
    let none = replace_member(&options, &found, &before, 7).unwrap_err();
    assert!(none.what.contains("etcd-7"), "{none}");
}
