use super::*;
use crate::install::judge::Seen;
use serde_json::json;

fn wanted(ids: &[&str]) -> Vec<Wanted> {
    let one = |id: &&str| Wanted {
        id: (*id).to_owned(),
        definition: json!({"id": id, "instances": 1}),
    };
    ids.iter().map(one).collect()
}

fn world(ids: &[&str]) -> World {
    let seen = |id: &&str| {
        let seen = Seen {
            definition: json!({"id": id, "instances": 1}),
            instances: 1,
            running: 1,
            healthy: 1,
            ..Seen::default()
        };
        ((*id).to_owned(), seen)
    };
    World {
        apps: ids.iter().map(seen).collect(),
    }
}

const ALL: [&str; 7] = [
    "/k8s-cp/etcd-0",
    "/k8s-cp/etcd-1",
    "/k8s-cp/etcd-2",
    "/k8s-cp/apiserver",
    "/k8s-cp/controller-manager",
    "/k8s",
    "/k8s-cp/proxy",
];

fn lines(steps: &[Step]) -> String {
    let line = |s: &Step| match s {
        Step::Put { app, wait: true } => format!("put {app} and wait\n"),
        Step::Put { app, wait: false } => format!("put {app}\n"),
        other => format!("{other}\n"),
    };
    steps.iter().map(line).collect()
}

#[test]
fn the_steps_are_as_documented() {
    let (all, none) = (wanted(&ALL), World::default());
    let there = world(&ALL);
    let mut moved = all.clone();
    moved[1].definition["constraints"] = json!([["hostname", "CLUSTER", "agent-4"]]);
    let replacement = Replacement {
        number: 1,
        wipe: Some("/k8s-cp/wipe-1".to_owned()),
    };
    insta::assert_snapshot!(format!(
        "install\n{}\nrestore\n{}\nupgrade\n{}\nupgrade --replace-member 1\n{}\nstop\n{}\nuninstall\n{}\nuninstall --keep-data\n{}",
        lines(&install("k8s", &all, &none, 3)),
        lines(&restore("k8s", &all)),
        lines(&upgrade("k8s", &all, &there)),
        lines(&replace("k8s", &moved, &there, &replacement)),
        lines(&stop("k8s", &there)),
        lines(&uninstall(
            "k8s",
            &there,
            false,
            &["/k8s-cp/wipe-0".to_owned()],
            true,
        )),
        lines(&uninstall("k8s", &there, true, &[], true)),
    ));
}

#[test]
fn a_directory_is_removed_by_an_app_on_its_agent_and_no_other() {
    let apps = wipes("k8s", "id", "/var/lib/it's/", &["agent-7"]);
    let definition = &apps[0].definition;
    assert_eq!(
        definition["constraints"],
        json!([["hostname", "CLUSTER", "agent-7"]])
    );
    let command = definition["cmd"].as_str().unwrap();
    assert!(
        command.starts_with(r"rm -rf -- '/var/lib/it'\''s/k8s' && "),
        "{command}"
    );
    assert_eq!(Part::of("k8s", &apps[0].id), Some(Part::Wipe));
    let all = sweep("k8s", "id", "/srv/k8s/artifacts", &["agent-1", "agent.2"]);
    assert_eq!(all.definition["instances"], 2);
    let command = all.definition["cmd"].as_str().unwrap();
    let only_what_is_empty =
        "rm -rf -- '/srv/k8s/artifacts' && { rmdir -- '/srv/k8s' 2>/dev/null || :; } && ";
    assert!(command.starts_with(only_what_is_empty), "{command}");
    assert_eq!(all.definition["constraints"][1][2], r"agent-1|agent\.2");
    assert_eq!(Part::of("k8s", &all.id), Some(Part::Sweep));
}

#[test]
fn members_of_a_cluster_that_runs_change_one_at_a_time() {
    let steps = install("k8s", &wanted(&ALL), &world(&ALL), 0);
    let waits = steps.iter().all(|s| match s {
        Step::Put { app, wait } => !app.contains("etcd") || *wait,
        _ => true,
    });
    assert!(waits, "{}", lines(&steps));
}

#[test]
fn an_app_is_only_ours_by_its_whole_name() {
    let part = |id| Part::of("k8s", id);
    assert_eq!(part("/k8s"), Some(Part::Framework));
    assert_eq!(part("/k8s-cp/etcd-4"), Some(Part::Etcd));
    assert_eq!(part("/k8s-cp/proxy"), Some(Part::Proxy));
    for other in [
        "/k8s2",
        "/k8s-cp",
        "/k8s-cp/etcd-x",
        "/k8s-cp/other",
        "/a/k8s",
        "k8s",
    ] {
        assert_eq!(part(other), None, "{other}");
    }
}

#[test]
fn a_dry_run_says_what_is_created_changed_kept_and_removed() {
    let mut world = world(&["/k8s", "/k8s-cp/proxy", "/k8s-cp/etcd-0", "/k8s-cp/etcd-9"]);
    if let Some(app) = world.apps.get_mut("/k8s") {
        app.definition["instances"] = json!(0);
    }
    let plan = changes(
        "k8s",
        &wanted(&["/k8s-cp/etcd-0", "/k8s-cp/apiserver", "/k8s"]),
        &world,
    );
    let shown: Vec<(String, What)> = plan.iter().map(|p| (p.app.clone(), p.what)).collect();
    assert_eq!(
        shown,
        [
            ("/k8s-cp/etcd-0".to_owned(), What::Keep),
            ("/k8s-cp/apiserver".to_owned(), What::Create),
            ("/k8s".to_owned(), What::Update),
            ("/k8s-cp/proxy".to_owned(), What::Remove),
        ]
    );
    assert_eq!(plan[2].changes, ["instances: 0 -> 1"]);
}

#[test]
fn a_member_that_has_been_replaced_is_not_deleted_again() {
    let replacement = Replacement {
        number: 1,
        wipe: None,
    };
    let steps = replace("k8s", &wanted(&ALL), &world(&ALL), &replacement);
    let deletes = steps.iter().any(|s| matches!(s, Step::Delete { .. }));
    assert!(!deletes, "{}", lines(&steps));
}
