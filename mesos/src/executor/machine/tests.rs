use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn timing(recovery_timeout: Duration) -> Timing {
    Timing {
        retry_interval: Duration::from_millis(250),
        recovery_timeout,
        first_subscription: 60 * SECOND,
        subscribe_timeout: 15 * SECOND,
    }
}

fn machine(recovery_timeout: Duration) -> Machine {
    let (machine, effects) = Machine::new(Time::ZERO, timing(recovery_timeout), 7);
    assert_eq!(show(&effects), ["open"]);
    machine
}

fn event(kind: Type) -> Input {
    Input::Event(Box::new(pb::executor::Event {
        r#type: Some(kind.into()),
        ..Default::default()
    }))
}

fn unreachable() -> Input {
    Input::Failed(Error::Transport {
        attempt: "SUBSCRIBE",
        url: "http://a:5051/".to_owned(),
        reason: "connection refused".to_owned(),
    })
}

fn status(code: u16, text: &str) -> Input {
    Input::Failed(Error::Status {
        attempt: "SUBSCRIBE",
        url: "http://a:5051/".to_owned(),
        status: StatusCode::from_u16(code).expect("a status"),
        text: text.to_owned(),
    })
}

fn show(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Open => "open".to_owned(),
            Effect::Close => "close".to_owned(),
            Effect::Ready => "ready".to_owned(),
            Effect::NotReady => "not ready".to_owned(),
            Effect::Notify(ExecutorEvent::Event(event)) => {
                format!("event {}", event.r#type().as_str_name())
            }
            Effect::Notify(ExecutorEvent::Disconnected { error }) => {
                format!("disconnected ({error})")
            }
            Effect::Notify(ExecutorEvent::RecoveryTimeout) => "recovery timeout".to_owned(),
        })
        .collect()
}

fn subscribe(machine: &mut Machine, now: Time) {
    machine.step(now, Input::Accepted);
    assert_eq!(
        show(&machine.step(now, event(Type::Subscribed))),
        ["ready", "event SUBSCRIBED"]
    );
}

#[test]
fn a_lost_agent_is_asked_again_every_quarter_of_a_second_until_the_recovery_timeout() {
    let mut machine = machine(10 * SECOND);
    subscribe(&mut machine, SECOND);
    assert_eq!(machine.deadline(), None);
    let mut now = 2 * SECOND;
    let lost = Input::Failed(Error::StreamEnded {
        url: "http://a:5051/".to_owned(),
    });
    assert_eq!(
        show(&machine.step(now, lost)),
        [
            "not ready",
            "close",
            "disconnected (http://a:5051/ ended the event stream)",
        ]
    );
    let mut attempts = 0;
    let mut told = 0;
    loop {
        let deadline = machine.deadline().expect("it waits");
        assert!(deadline - now <= Duration::from_millis(250), "{deadline:?}");
        now = deadline;
        match show(&machine.step(now, Input::Tick)).as_slice() {
            [open] if open == "open" => attempts += 1,
            [close, end] if close == "close" && end == "recovery timeout" => break,
            other => panic!("{other:?}"),
        }
        told += show(&machine.step(now, unreachable())).len() - 1;
    }
    assert_eq!(now, 12 * SECOND);
    assert!((40..=50).contains(&attempts), "{attempts} attempts");
    assert_eq!(told, 1, "the same reason is told once");
    assert_eq!(*machine.state(), State::Ended);
}

#[test]
fn an_executor_that_is_not_wanted_any_more_is_told_to_shut_down_first_of_all() {
    let mut machine = machine(10 * SECOND);
    machine.step(SECOND, Input::Accepted);
    assert_eq!(
        show(&machine.step(SECOND, event(Type::Shutdown))),
        ["ready", "event SHUTDOWN"]
    );
    assert_eq!(*machine.state(), State::Subscribed);
}

#[test]
fn an_attempt_that_hangs_does_not_outlive_the_recovery_timeout() {
    let mut machine = machine(10 * SECOND);
    subscribe(&mut machine, Time::ZERO);
    machine.step(Time::ZERO, unreachable());
    let until = machine.deadline().expect("it waits");
    assert_eq!(show(&machine.step(until, Input::Tick)), ["open"]);
    assert_eq!(machine.deadline(), Some(10 * SECOND));
    assert_eq!(
        show(&machine.step(10 * SECOND, Input::Tick)),
        ["close", "recovery timeout"]
    );
}

#[test]
fn a_subscription_in_time_starts_the_count_anew() {
    let mut machine = machine(10 * SECOND);
    subscribe(&mut machine, Time::ZERO);
    for round in 1..5 {
        let now = round * 9 * SECOND;
        machine.step(now, unreachable());
        let until = machine.deadline().expect("it waits");
        assert_eq!(show(&machine.step(until, Input::Tick)), ["open"]);
        subscribe(&mut machine, until);
    }
}

#[test]
fn without_checkpointing_there_is_no_second_attempt() {
    let mut machine = machine(Duration::ZERO);
    subscribe(&mut machine, Time::ZERO);
    assert_eq!(
        show(&machine.step(SECOND, unreachable())),
        [
            "not ready",
            "disconnected (SUBSCRIBE at http://a:5051/: connection refused)",
            "recovery timeout",
        ]
    );
}

#[test]
fn the_first_subscription_is_tried_for_a_minute_even_without_checkpointing() {
    let mut machine = machine(Duration::ZERO);
    machine.step(Time::ZERO, unreachable());
    let until = machine.deadline().expect("it waits");
    assert_eq!(show(&machine.step(until, Input::Tick)), ["open"]);
    assert_eq!(machine.deadline(), Some(60 * SECOND));
}

#[test]
fn an_agent_that_recovers_is_waited_for_and_one_that_does_not_know_us_is_not() {
    let mut machine = machine(10 * SECOND);
    let effects = machine.step(Time::ZERO, status(503, "Agent has not finished recovery"));
    assert_eq!(effects.len(), 2);
    let until = machine.deadline().expect("it waits");
    machine.step(until, Input::Tick);
    let effects = show(&machine.step(until, status(400, "Framework cannot be found")));
    assert_eq!(effects[2], "recovery timeout", "{effects:?}");
    assert_eq!(*machine.state(), State::Ended);
}

#[test]
fn heartbeats_and_events_of_a_later_mesos_are_left_out() {
    let mut machine = machine(10 * SECOND);
    subscribe(&mut machine, Time::ZERO);
    assert!(machine.step(SECOND, event(Type::Heartbeat)).is_empty());
    assert!(machine.step(SECOND, event(Type::Unknown)).is_empty());
    assert_eq!(
        show(&machine.step(SECOND, event(Type::Shutdown))),
        ["event SHUTDOWN"]
    );
}

proptest! {
    #[test]
    fn no_order_of_inputs_confuses_it(
        steps in prop::collection::vec((0_u8..9, 0_u64..5_000), 0..200),
        seed in any::<u64>(),
    ) {
        let (mut machine, _) = Machine::new(Time::ZERO, timing(10 * SECOND), seed);
        let (mut now, mut ready, mut ended) = (Time::ZERO, false, false);
        for (number, milliseconds) in steps {
            now += Duration::from_millis(milliseconds);
            let input = match number {
                0 | 1 => Input::Accepted,
                2 | 3 => event(Type::Subscribed),
                4 => event(Type::Launch),
                5 => unreachable(),
                6 => status(503, ""),
                7 => Input::NotSubscribed,
                _ => Input::Tick,
            };
            for effect in machine.step(now, input) {
                prop_assert!(!ended);
                match effect {
                    Effect::Ready => {
                        prop_assert!(!ready);
                        ready = true;
                    }
                    Effect::NotReady => {
                        prop_assert!(ready);
                        ready = false;
                    }
                    Effect::Notify(ExecutorEvent::Event(event)) => {
                        prop_assert!(ready || event.r#type() == Type::Error);
                    }
                    Effect::Notify(ExecutorEvent::RecoveryTimeout) => ended = true,
                    Effect::Notify(ExecutorEvent::Disconnected { .. })
                    | Effect::Open
                    | Effect::Close => {}
                }
            }
            prop_assert_eq!(ready, *machine.state() == State::Subscribed);
            prop_assert_eq!(ended, *machine.state() == State::Ended);
            if !ready && !ended {
                prop_assert!(machine.deadline().is_some());
            }
        }
    }
}
