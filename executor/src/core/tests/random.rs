//! Any events in any order.

use super::*;
use proptest::prelude::*;

fn events() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    proptest::collection::vec((0..20_u8, 0..3_u8, 0..3_u8), 0..80)
}

fn event(kind: u8, uid: u8, attempt: u8) -> Event {
    let name = ["u", "v", "w"][usize::from(uid)];
    let attempt = u32::from(attempt);
    match kind {
        0 => pod_task(name, attempt),
        1 => node_task(),
        2 => Event::Node(NodeEvent::Ready),
        3 => pod(name, PodPhase::Running),
        4 => pod(name, PodPhase::Succeeded),
        5 => gone(name),
        6 => kill(id(name, attempt)),
        7 => emptied(name),
        8 => Event::Subscribed,
        9 => Event::Disconnected,
        10 => Event::Node(NodeEvent::NotReady {
            reason: String::new(),
        }),
        11 => Event::Node(NodeEvent::Listed(vec![seen(name, PodPhase::Running)])),
        12 => pod(name, PodPhase::Pending),
        13 => Event::Revise {
            digest: name.to_owned(),
            revision: Box::new(config().revision()),
        },
        14 => Event::Fetched(Ok(Fetched {
            program_differs: attempt == 0,
        })),
        15 => Event::NotReplaced(String::new()),
        16 => Event::Node(NodeEvent::Failed {
            component: String::new(),
            message: String::new(),
        }),
        17 => kill_within(id(name, attempt), 1),
        18 => held(name),
        _ => Event::Tick,
    }
}

proptest! {
    /// Whatever happens: no task is told of after its terminal state, and the limit is the
    /// sum of the tasks that have no terminal state.
    #[test]
    fn terminal_states_are_final_and_limits_add_up(script in events()) {
        let mut bench = Bench::new();
        let mut launched = std::collections::BTreeSet::new();
        let mut node_launched = false;
        for (kind, uid, attempt) in script {
            if kind == 0 && !launched.insert((uid, attempt)) {
                continue; // The master refuses a task id that was used.
            }
            if kind == 1 && std::mem::replace(&mut node_launched, true) {
                continue;
            }
            bench.now += 500;
            bench.event(event(kind, uid, attempt));
        }
        bench.event(Event::Subscribed);
        bench.later(60_000);
        let mut ended = std::collections::BTreeSet::new();
        for (task, state) in bench.states() {
            prop_assert!(!ended.contains(task), "{task} was told of after its end");
            if !matches!(state, TaskStarting | TaskRunning) {
                ended.insert(task);
            }
        }
        if bench.core.node.is_some() {
            let live = bench.core.pods.len() as u64;
            prop_assert_eq!(bench.core.limits.unwrap().memory, live * 32 * MIB);
        }
    }
}
