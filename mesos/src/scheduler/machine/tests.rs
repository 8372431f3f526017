use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn address(name: &str) -> MasterAddress {
    MasterAddress::new(url::Url::parse(&format!("http://{name}:5050")).expect("a URL"))
}

fn detected(names: &[&str]) -> Input {
    Input::Detected {
        candidates: names.iter().map(|name| address(name)).collect(),
        error: None,
    }
}

fn subscribed(interval: Option<f64>) -> Input {
    event(pb::scheduler::Event {
        r#type: Some(Type::Subscribed.into()),
        subscribed: Some(pb::scheduler::event::Subscribed {
            framework_id: pb::FrameworkId {
                value: "F".to_owned(),
            },
            heartbeat_interval_seconds: interval,
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn event(event: pb::scheduler::Event) -> Input {
    Input::Event(Box::new(event))
}

fn heartbeat() -> Input {
    event(pb::scheduler::Event {
        r#type: Some(Type::Heartbeat.into()),
        ..Default::default()
    })
}

fn refused(message: &str) -> Input {
    event(pb::scheduler::Event {
        r#type: Some(Type::Error.into()),
        error: Some(pb::scheduler::event::Error {
            message: message.to_owned(),
        }),
        ..Default::default()
    })
}

fn unreachable() -> Input {
    Input::Failed(Error::Transport {
        attempt: "SUBSCRIBE",
        url: "http://m:5050/".to_owned(),
        reason: "connection refused".to_owned(),
    })
}

fn status(code: u16) -> Input {
    Input::Failed(Error::Status {
        attempt: "SUBSCRIBE",
        url: "http://m:5050/".to_owned(),
        status: StatusCode::from_u16(code).expect("a status"),
        text: String::new(),
    })
}

fn redirect(to: &str) -> Input {
    Input::Failed(Error::Redirect {
        attempt: "SUBSCRIBE",
        url: "http://m:5050/".to_owned(),
        location: format!("//{to}:5050/api/v1/scheduler"),
    })
}

/// Effects on one line each, so that a test shows a conversation.
fn show(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Open { master } => format!("open {master}"),
            Effect::Close => "close".to_owned(),
            Effect::Ready { framework_id, .. } => format!("ready {}", framework_id.value),
            Effect::NotReady => "not ready".to_owned(),
            Effect::Notify(SchedulerEvent::Connected { master }) => format!("connected {master}"),
            Effect::Notify(SchedulerEvent::Event(event)) => {
                format!("event {}", event.r#type().as_str_name())
            }
            Effect::Notify(SchedulerEvent::Disconnected { error, retry_in }) => {
                let wait = if retry_in.is_zero() { "now" } else { "later" };
                format!("disconnected ({error}), again {wait}")
            }
            Effect::Notify(SchedulerEvent::Fatal { error }) => format!("fatal ({error})"),
        })
        .collect()
}

fn machine() -> Machine {
    Machine::new(Timing::default(), 7)
}

fn subscribed_machine(names: &[&str]) -> Machine {
    let mut machine = machine();
    machine.step(Time::ZERO, detected(names));
    machine.step(Time::ZERO, Input::Accepted);
    machine.step(Time::ZERO, subscribed(Some(15.0)));
    machine
}

fn waits(effects: &[Effect]) -> Duration {
    let wait = effects.iter().find_map(|effect| match effect {
        Effect::Notify(SchedulerEvent::Disconnected { retry_in, .. }) => Some(*retry_in),
        _ => None,
    });
    wait.expect("it was told")
}

#[test]
fn a_subscription_goes_through_its_states() {
    let mut machine = machine();
    assert_eq!(*machine.state(), State::Detecting);
    assert_eq!(
        show(&machine.step(Time::ZERO, detected(&["m"]))),
        ["open http://m:5050"]
    );
    assert!(machine.step(SECOND, Input::Accepted).is_empty());
    assert_eq!(
        show(&machine.step(SECOND, subscribed(Some(15.0)))),
        ["ready F", "connected http://m:5050", "event SUBSCRIBED"]
    );
    assert!(machine.step(2 * SECOND, heartbeat()).is_empty());
    // Five intervals after the last heartbeat.
    assert_eq!(machine.deadline(), Some(77 * SECOND));
    assert!(machine.step(76 * SECOND, Input::Tick).is_empty());
    assert_eq!(
        show(&machine.step(77 * SECOND, Input::Tick)),
        [
            "not ready",
            "close",
            "disconnected (nothing heard from http://m:5050 for 75s, though it promised \
             heartbeats), again later",
        ]
    );
    let until = machine.deadline().expect("it waits");
    assert_eq!(
        show(&machine.step(until, Input::Tick)),
        ["open http://m:5050"]
    );
}

#[test]
fn every_candidate_is_tried_before_it_waits() {
    let mut machine = machine();
    assert_eq!(
        show(&machine.step(Time::ZERO, detected(&["a", "b"]))),
        ["open http://a:5050"]
    );
    assert_eq!(
        show(&machine.step(Time::ZERO, unreachable())),
        ["close", "open http://b:5050"]
    );
    assert_eq!(
        show(&machine.step(Time::ZERO, unreachable())),
        [
            "close",
            "disconnected (SUBSCRIBE at http://m:5050/: connection refused), again later",
        ]
    );
    let until = machine.deadline().expect("it waits");
    assert_eq!(
        show(&machine.step(until, Input::Tick)),
        ["open http://a:5050"]
    );
}

#[test]
fn the_back_off_doubles_up_to_its_limit_and_is_never_less_than_half() {
    let timing = Timing::default();
    let mut machine = machine();
    machine.step(Time::ZERO, detected(&["m"]));
    let mut now = Time::ZERO;
    let mut expected = timing.backoff;
    for _ in 0..10 {
        let wait = waits(&machine.step(now, unreachable()));
        assert!(
            wait >= expected / 2 && wait <= expected,
            "{wait:?} of {expected:?}"
        );
        assert_eq!(machine.deadline(), Some(now + wait));
        expected = (expected * 2).min(timing.backoff_max);
        now += wait;
        machine.step(now, Input::Tick);
    }
    assert_eq!(expected, timing.backoff_max);
    // A subscription that does not last does not make it start anew.
    for lasts in [SECOND, timing.backoff_max] {
        machine.step(now, Input::Accepted);
        machine.step(now, subscribed(Some(15.0)));
        now += lasts;
        let wait = waits(&machine.step(now, unreachable()));
        if lasts < timing.backoff_max {
            assert!(wait >= timing.backoff_max / 2, "{wait:?}");
        } else {
            assert!(wait <= timing.backoff, "{wait:?}");
        }
        now += wait;
        machine.step(now, Input::Tick);
    }
}

#[test]
fn frameworks_that_lose_a_master_together_do_not_come_back_together() {
    let mut waited: Vec<Duration> = (0..50)
        .map(|seed| {
            let mut machine = Machine::new(Timing::default(), seed);
            machine.step(Time::ZERO, detected(&["m"]));
            waits(&machine.step(Time::ZERO, unreachable()))
        })
        .collect();
    waited.sort();
    waited.dedup();
    assert!(waited.len() > 40, "{waited:?}");
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let mut machine = machine();
    machine.step(Time::ZERO, detected(&["a"]));
    for name in ["b", "c", "b", "c"] {
        assert_eq!(
            show(&machine.step(Time::ZERO, redirect(name))),
            [format!("open http://{name}:5050")]
        );
    }
    assert_eq!(
        show(&machine.step(Time::ZERO, redirect("b"))),
        [
            "close",
            "disconnected (SUBSCRIBE at http://m:5050/: redirected to \
             //b:5050/api/v1/scheduler), again later",
        ]
    );
}

#[test]
fn another_leader_is_followed_at_once_and_no_leader_is_waited_out() {
    let mut machine = subscribed_machine(&["a"]);
    assert!(machine.step(SECOND, detected(&[])).is_empty());
    assert!(machine.step(SECOND, detected(&["a"])).is_empty());
    assert_eq!(
        show(&machine.step(SECOND, detected(&["b", "b.test"]))),
        [
            "not ready",
            "close",
            "disconnected (another master leads instead of http://a:5050), again now",
            "open http://b:5050",
        ]
    );
    // Who is gone and has no successor is waited for.
    assert!(machine.step(SECOND, detected(&[])).is_empty());
    assert_eq!(
        show(&machine.step(SECOND, unreachable())),
        [
            "close",
            "disconnected (SUBSCRIBE at http://m:5050/: connection refused), again now",
        ]
    );
    assert_eq!(*machine.state(), State::Detecting);
    assert_eq!(machine.deadline(), None);
    assert_eq!(
        show(&machine.step(SECOND, detected(&["c"]))),
        ["open http://c:5050"]
    );
}

#[test]
fn why_no_leader_is_known_is_told_once() {
    let mut machine = machine();
    let error = DetectError::NoMaster {
        hosts: "z:2181".to_owned(),
        path: "/mesos".to_owned(),
    };
    let input = || Input::Detected {
        candidates: Vec::new(),
        error: Some(error.clone()),
    };
    assert_eq!(
        show(&machine.step(Time::ZERO, input())),
        ["disconnected (no master is registered below /mesos in ZooKeeper at z:2181), again now"]
    );
    assert!(machine.step(SECOND, input()).is_empty());
}

#[test]
fn an_answer_that_will_not_change_ends_it() {
    for code in [400, 405, 406, 415] {
        let mut machine = machine();
        machine.step(Time::ZERO, detected(&["a", "b"]));
        let effects = show(&machine.step(Time::ZERO, status(code)));
        assert_eq!(effects[0], "close");
        assert!(effects[1].starts_with("fatal"), "{effects:?}");
        assert_eq!(*machine.state(), State::Ended);
        assert!(machine.step(SECOND, detected(&["c"])).is_empty());
        assert_eq!(machine.deadline(), None);
    }
}

#[test]
fn refused_credentials_wait_for_somebody() {
    for code in [401, 403] {
        let mut machine = machine();
        machine.step(Time::ZERO, detected(&["a"]));
        let wait = waits(&machine.step(Time::ZERO, status(code)));
        assert!(wait >= Timing::default().backoff_max / 2, "{wait:?}");
    }
}

#[test]
fn an_error_event_ends_it_before_and_after_subscribed() {
    let mut machine = machine();
    machine.step(Time::ZERO, detected(&["m"]));
    machine.step(Time::ZERO, Input::Accepted);
    assert_eq!(
        show(&machine.step(Time::ZERO, refused("Framework has been removed"))),
        [
            "close",
            "fatal (the master refused the subscription: Framework has been removed)",
        ]
    );
    let mut machine = subscribed_machine(&["m"]);
    assert_eq!(
        show(&machine.step(SECOND, refused("Framework failed over"))),
        [
            "not ready",
            "close",
            "fatal (the master refused the subscription: Framework failed over)",
        ]
    );
}

#[test]
fn a_master_that_accepts_and_says_nothing_or_something_else_is_left() {
    let mut machine = machine();
    machine.step(Time::ZERO, detected(&["m"]));
    machine.step(Time::ZERO, Input::Accepted);
    let deadline = machine.deadline().expect("it does not wait for ever");
    assert_eq!(deadline, Timing::default().subscribe_timeout);
    let effects = show(&machine.step(deadline, Input::Tick));
    assert!(effects[1].contains("no answer within 15s"), "{effects:?}");
    let until = machine.deadline().expect("it waits");
    machine.step(until, Input::Tick);
    machine.step(until, Input::Accepted);
    let effects = show(&machine.step(until, heartbeat()));
    assert!(
        effects[1].contains("HEARTBEAT where SUBSCRIBED is due"),
        "{effects:?}"
    );
}

#[test]
fn an_interval_that_makes_no_sense_is_not_believed() {
    for interval in [
        None,
        Some(0.0),
        Some(-1.0),
        Some(f64::NAN),
        Some(f64::INFINITY),
    ] {
        let mut machine = machine();
        machine.step(Time::ZERO, detected(&["m"]));
        machine.step(Time::ZERO, Input::Accepted);
        machine.step(Time::ZERO, subscribed(interval));
        assert_eq!(machine.deadline(), Some(75 * SECOND), "{interval:?}");
    }
}

#[test]
fn our_own_pauses_are_not_the_masters_silence() {
    let mut machine = subscribed_machine(&["m"]);
    machine.step(100 * SECOND, Input::Resumed);
    assert!(machine.step(101 * SECOND, Input::Tick).is_empty());
    assert_eq!(machine.deadline(), Some(175 * SECOND));
}

#[test]
fn events_of_a_later_mesos_are_left_out() {
    let mut machine = subscribed_machine(&["m"]);
    assert!(
        machine
            .step(SECOND, event(pb::scheduler::Event::default()))
            .is_empty()
    );
}

fn any_input() -> impl Strategy<Value = u8> {
    0_u8..16
}

fn input(number: u8) -> Input {
    match number {
        0 => detected(&[]),
        1 => detected(&["a"]),
        2 => detected(&["a", "b", "c"]),
        3 => Input::Detected {
            candidates: Vec::new(),
            error: Some(DetectError::Timeout { after: SECOND }),
        },
        4 | 5 => Input::Accepted,
        6 => unreachable(),
        7 => status(503),
        8 => status(401),
        9 => redirect("b"),
        10 | 11 => subscribed(Some(1.0)),
        12 => heartbeat(),
        13 => Input::Resumed,
        14 => Input::NotSubscribed,
        _ => Input::Tick,
    }
}

proptest! {
    /// Whatever happens in whatever order: calls are possible exactly while subscribed, every
    /// connection is followed by one disconnection, and it never waits without a deadline while
    /// there is somebody to try.
    #[test]
    fn no_order_of_inputs_confuses_it(
        steps in prop::collection::vec((any_input(), 0_u64..20_000), 0..200),
        seed in any::<u64>(),
    ) {
        let timing = Timing::default();
        let mut machine = Machine::new(timing, seed);
        let (mut now, mut ready, mut connected, mut open) = (Time::ZERO, false, false, false);
        let mut candidates = 0;
        for (number, milliseconds) in steps {
            now += Duration::from_millis(milliseconds);
            let input = input(number);
            if let Input::Detected { candidates: found, .. } = &input {
                candidates = found.len();
            }
            for effect in machine.step(now, input) {
                match effect {
                    Effect::Open { .. } => open = true,
                    Effect::Close => open = false,
                    Effect::Ready { .. } => {
                        prop_assert!(open && !ready);
                        ready = true;
                    }
                    Effect::NotReady => {
                        prop_assert!(ready);
                        ready = false;
                    }
                    Effect::Notify(SchedulerEvent::Connected { .. }) => {
                        prop_assert!(ready && !connected);
                        connected = true;
                    }
                    Effect::Notify(SchedulerEvent::Event(_)) => prop_assert!(connected),
                    Effect::Notify(SchedulerEvent::Disconnected { retry_in, .. }) => {
                        prop_assert!(!ready);
                        prop_assert!(retry_in <= timing.backoff_max);
                        connected = false;
                    }
                    Effect::Notify(SchedulerEvent::Fatal { .. }) => prop_assert!(!ready),
                }
            }
            let subscribed = matches!(machine.state(), State::Subscribed { .. });
            prop_assert_eq!(ready, subscribed);
            prop_assert_eq!(connected, subscribed);
            let attached = matches!(
                machine.state(),
                State::Connecting { .. } | State::Subscribing { .. } | State::Subscribed { .. }
            );
            prop_assert_eq!(open, attached);
            if *machine.state() == State::Detecting {
                prop_assert_eq!(candidates, 0);
            }
            if matches!(machine.state(), State::Waiting { .. }) {
                prop_assert!(machine.deadline().is_some());
            }
        }
    }
}
