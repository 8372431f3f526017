//! The supervisor's decisions, without processes.

use packaging::control_plane::Readiness;

use super::*;

fn process(name: &str, after: &[&str]) -> ProcessSpec {
    ProcessSpec {
        name: name.to_owned(),
        program: format!("/bin/{name}").into(),
        args: vec![],
        env: vec![],
        readiness: Readiness::Running,
        after: after.iter().map(|a| (*a).to_owned()).collect(),
        stop_seconds: 5,
        fingerprint: "1".to_owned(),
    }
}

fn spec(generation: u64) -> Spec {
    Spec {
        generation,
        processes: vec![process("etcd", &[]), process("apiserver", &["etcd"])],
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn started(name: &str, pid: u32) -> Event {
    Event::Started {
        name: name.to_owned(),
        pid,
    }
}

fn ready(name: &str, pid: u32) -> Event {
    Event::Probed {
        name: name.to_owned(),
        pid,
        result: Ok(()),
    }
}

fn exited(name: &str, pid: u32) -> Event {
    Event::Exited {
        name: name.to_owned(),
        pid,
        how: "exit status: 1".to_owned(),
    }
}

fn starts(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|e| match e {
            Effect::Start(spec) => Some(spec.name.as_str()),
            _ => None,
        })
        .collect()
}

fn terminated(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|e| match e {
            Effect::Terminate { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect()
}

/// Both processes ready at second 1.
fn running() -> Machine {
    let mut machine = Machine::new(7);
    machine.handle(at(0), Event::Configure(spec(1)));
    machine.handle(at(0), started("etcd", 10));
    machine.handle(at(1), ready("etcd", 10));
    machine.handle(at(1), started("apiserver", 11));
    machine.handle(at(1), ready("apiserver", 11));
    machine
}

#[test]
fn a_process_starts_once_those_it_waits_for_are_ready() {
    let mut machine = Machine::new(7);
    let effects = machine.handle(at(0), Event::Configure(spec(1)));
    assert_eq!(starts(&effects), ["etcd"]);
    assert_eq!(starts(&machine.handle(at(0), started("etcd", 10))), [""; 0]);
    assert_eq!(
        starts(&machine.handle(at(1), ready("etcd", 10))),
        ["apiserver"]
    );
}

#[test]
fn a_process_that_ends_is_started_again_ever_later() {
    let mut machine = running();
    let mut now = at(2);
    let mut waits = Vec::new();
    for pid in 20..30 {
        machine.handle(now, exited("etcd", if pid == 20 { 10 } else { pid - 1 }));
        let due = machine
            .processes
            .get("etcd")
            .map(|p| match p.phase {
                Phase::Waiting { not_before } => not_before,
                ref other => panic!("{other:?}"),
            })
            .unwrap();
        waits.push(due - now);
        assert_eq!(starts(&machine.handle(due, Event::Tick)), ["etcd"]);
        now = due;
        machine.handle(now, started("etcd", pid));
    }
    assert!(waits[0] <= BACK_OFF_FIRST, "{waits:?}");
    assert!(waits.iter().all(|w| *w <= BACK_OFF_LAST), "{waits:?}");
    assert!(waits[9] >= BACK_OFF_LAST / 2, "{waits:?}");
}

#[test]
fn a_minute_of_running_forgets_earlier_failures() {
    let mut machine = running();
    machine.handle(at(2), exited("etcd", 10));
    machine.handle(at(40), Event::Tick);
    machine.handle(at(40), started("etcd", 20));
    machine.handle(at(40), ready("etcd", 20));
    machine.handle(at(101), exited("etcd", 20));
    assert_eq!(machine.processes["etcd"].failures, 1);
}

#[test]
fn the_end_of_an_earlier_process_is_no_news() {
    let mut machine = running();
    assert_eq!(machine.handle(at(2), exited("etcd", 9)), []);
    assert_eq!(machine.report()[1].stage, Stage::Ready);
}

#[test]
fn everything_stops_backwards() {
    let mut machine = running();
    let effects = machine.handle(at(2), Event::Stop);
    assert_eq!(terminated(&effects), ["apiserver"]);
    let effects = machine.handle(at(3), exited("apiserver", 11));
    assert_eq!(terminated(&effects), ["etcd"]);
    let effects = machine.handle(at(4), exited("etcd", 10));
    assert_eq!(effects, [Effect::Finished]);
}

#[test]
fn what_does_not_end_is_killed() {
    let mut machine = running();
    machine.handle(at(2), Event::Stop);
    assert_eq!(machine.next_wakeup().map(|w| w <= at(7)), Some(true));
    let effects = machine.handle(at(7), Event::Tick);
    assert!(effects.contains(&Effect::Kill {
        name: "apiserver".to_owned(),
        pid: 11
    }));
    let again = machine.handle(at(8), Event::Tick);
    assert!(!again.iter().any(|e| matches!(e, Effect::Kill { .. })));
}

#[test]
fn a_changed_process_is_replaced_and_others_stay() {
    let mut machine = running();
    let mut changed = spec(2);
    changed.processes[1].fingerprint = "2".to_owned();
    let effects = machine.handle(at(2), Event::Configure(changed));
    assert_eq!(terminated(&effects), ["apiserver"]);
    assert_eq!(
        starts(&machine.handle(at(3), exited("apiserver", 11))),
        ["apiserver"]
    );
    assert_eq!(machine.generation(), 2);
    assert_eq!(machine.report()[1].stage, Stage::Ready, "etcd");
}

#[test]
fn a_new_supervisor_adopts_what_runs_and_stops_what_is_no_longer_wanted() {
    let mut machine = Machine::new(7);
    for (name, pid) in [("etcd", 10), ("old", 12)] {
        machine.handle(
            at(0),
            Event::Adopted {
                name: name.to_owned(),
                pid,
                fingerprint: "1".to_owned(),
            },
        );
    }
    let effects = machine.handle(at(0), Event::Configure(spec(1)));
    assert_eq!(starts(&effects), [""; 0], "etcd runs already");
    assert_eq!(terminated(&effects), ["old"]);
    machine.handle(at(1), exited("old", 12));
    assert_eq!(machine.report().len(), 2, "it is gone");
}

#[test]
fn a_process_that_answers_no_probe_is_restarted() {
    let mut machine = running();
    let mut effects = Vec::new();
    for second in 0..=u64::from(PROBES_LOST) * 5 {
        effects = machine.handle(
            at(10 + second),
            Event::Probed {
                name: "etcd".to_owned(),
                pid: 10,
                result: Err("no answer".to_owned()),
            },
        );
        if !terminated(&effects).is_empty() {
            break;
        }
        assert_eq!(machine.report()[1].stage, Stage::Unhealthy);
    }
    assert_eq!(terminated(&effects), ["etcd"]);
}

#[test]
fn a_program_that_cannot_be_started_is_tried_again() {
    let mut machine = Machine::new(7);
    machine.handle(at(0), Event::Configure(spec(1)));
    machine.handle(
        at(0),
        Event::StartFailed {
            name: "etcd".to_owned(),
            reason: "no such file".to_owned(),
        },
    );
    let report = &machine.report()[1];
    assert_eq!(report.stage, Stage::BackOff);
    assert_eq!(report.last_error.as_deref(), Some("no such file"));
    assert_eq!(starts(&machine.handle(at(1), Event::Tick)), ["etcd"]);
}
