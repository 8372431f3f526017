use super::*;

fn report() -> Report {
    Report {
        root: true,
        kernel: "6.1.0-18-amd64".to_owned(),
        cgroups: CgroupVersion::V1,
        overlay: true,
        space_free: 20 << 30,
        cpus: Some(4),
        mem: Some(4096),
        flags: Some([("isolation".to_owned(), "cgroups/cpu,cgroups/mem".to_owned())].into()),
        ..Report::default()
    }
}

fn probed(agent: &str, report: Report) -> Probed {
    Probed {
        agent: agent.to_owned(),
        report: Some(report),
        cpus: 4.0,
        mem: 4096.0,
        clock_off: 0.1,
        why: String::new(),
    }
}

#[test]
fn an_agent_without_faults_is_not_mentioned() {
    assert_eq!(judge(&[probed("agent-1", report())], &[]), []);
}

#[test]
fn every_fault_is_told_with_its_agent_and_its_remedy() {
    let mut bad = probed(
        "agent-2",
        Report {
            root: false,
            kernel: "4.19.0-27".to_owned(),
            cgroups: CgroupVersion::V2,
            missing_controllers: vec!["memory".to_owned()],
            overlay: false,
            missing_tools: [("nft".to_owned(), "nftables".to_owned())].into(),
            space_free: 1 << 30,
            cpus: Some(2),
            mem: Some(4000),
            unreachable: [(
                "http://192.0.2.1/artifacts.json".to_owned(),
                "refused".to_owned(),
            )]
            .into(),
            flags: Some([("isolation".to_owned(), "posix/cpu".to_owned())].into()),
            ..Report::default()
        },
    );
    bad.clock_off = -61.0;
    let silent = Probed {
        agent: "agent-3".to_owned(),
        report: None,
        cpus: 4.0,
        mem: 4096.0,
        clock_off: 0.0,
        why: "no offer of it fits".to_owned(),
    };
    let all = [probed("agent-1", report()), bad, silent];
    let text: Vec<String> = judge(&all, &[]).iter().map(ToString::to_string).collect();
    let rows: Vec<String> = rows(&all).iter().map(|row| row.join(" | ")).collect();
    insta::assert_snapshot!(format!(
        "{}\n\n{}\n{}",
        text.join("\n"),
        HEAD.join(" | "),
        rows.join("\n")
    ));
}

#[test]
fn a_cluster_none_of_whose_agents_can_run_a_node_is_refused() {
    let bad = |agent| {
        probed(
            agent,
            Report {
                overlay: false,
                ..report()
            },
        )
    };
    let one = judge(&[bad("agent-1"), probed("agent-2", report())], &["agent-1"]);
    assert!(one.iter().all(|f| f.level == Level::Warning), "{one:?}");
    let all = judge(&[bad("agent-1"), bad("agent-2")], &[]);
    assert!(all.iter().all(|f| f.level == Level::Fatal), "{all:?}");
}

#[test]
fn an_agent_that_was_chosen_and_runs_nothing_is_refused() {
    let silent = Probed {
        agent: "agent-2".to_owned(),
        report: None,
        cpus: 4.0,
        mem: 4096.0,
        clock_off: 0.0,
        why: "it cannot fetch".to_owned(),
    };
    let both = [probed("agent-1", report()), silent];
    assert_eq!(judge(&both, &["agent-1"])[0].level, Level::Warning);
    assert_eq!(judge(&both, &["agent-2"])[0].level, Level::Fatal);
}

#[test]
fn the_app_runs_once_on_each_agent_and_has_no_place_of_its_own() {
    let mut options = Options::default();
    options.registry.mirrors = vec!["docker.io=https://mirror.example.org/".to_owned()];
    let program = Artifact {
        uri: "http://192.0.2.1:8088/abc/k8sm".to_owned(),
        sha256: "abc".to_owned(),
        size: 1,
    };
    let probe = Probe::new(
        &options,
        "http://192.0.2.1:8088/",
        &["192.0.2.9:6443".to_owned()],
    );
    let app = app(&options, &probe, "id", "0.1.0", Some(&program), 3).unwrap();
    let findings = crate::marathon::lint(std::slice::from_ref(&app));
    // It lives for seconds, and whoever asks it notices when it hangs.
    let others: Vec<_> = findings
        .iter()
        .filter(|f| f.member != "healthChecks")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let text = serde_json::to_string_pretty(&app).unwrap();
    insta::assert_snapshot!(text);
}
