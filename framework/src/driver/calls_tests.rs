//! Effects as the calls that Mesos gets.

use super::*;
use crate::core::event::{Launch, PodLaunch};
use crate::core::pool::{Amounts, Pool};
use crate::resources::PortSet;
use crate::wire::tests::{executor, settings};

fn call_of(effect: Effect) -> Call {
    let (events, _inbox) = mpsc::channel(8);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime
        .block_on(call_for(effect, &settings(), &events))
        .unwrap()
}

#[test]
fn tasks_are_launched_one_by_one_and_never_as_a_group() {
    // LAUNCH_GROUP refuses an executor without resources.
    let cpu = Amounts {
        cpus: 1000,
        ..Amounts::default()
    };
    let launch = Launch::Pod(PodLaunch {
        task: "uid-1.00000001".into(),
        uid: "uid-1".into(),
        namespace: "default".into(),
        name: "p".into(),
        node: "n".into(),
        executor_info: executor(),
        grant: Pool::unreserved(cpu, PortSet::default()),
        cpu_limit: None,
        memory_limit: None,
        takes_limits: true,
    });
    let call = call_of(Effect::Accept {
        offers: vec!["o1".into()],
        agent: "a1".into(),
        role: "*".into(),
        launches: vec![launch],
        refuse_seconds: 5.0,
    });
    let accept = call.accept.unwrap();
    assert_eq!(accept.filters.unwrap().refuse_seconds, Some(5.0));
    let operation = &accept.operations[0];
    assert!(operation.launch_group.is_none());
    let task = &operation.launch.as_ref().unwrap().task_infos[0];
    assert!(task.executor.as_ref().unwrap().resources.is_empty());
}

#[test]
fn a_kill_leaves_the_grace_to_the_pod() {
    let call = call_of(Effect::Kill {
        task: "t".into(),
        agent: "a".into(),
        reason: "test",
    });
    assert_eq!(call.kill.unwrap().kill_policy, None);
}

#[test]
fn inverse_offers_are_accepted_or_declined_for_a_while() {
    let answer = |accept| {
        call_of(Effect::AnswerInverse {
            offers: vec!["o5".into()],
            accept,
            refuse_seconds: 30.0,
        })
    };
    let json = |call: &Call| mesos::codec::to_json(call).to_string();
    insta::assert_snapshot!(json(&answer(true)), @r#"{"type":"ACCEPT_INVERSE_OFFERS","accept_inverse_offers":{"inverse_offer_ids":[{"value":"o5"}],"filters":{"refuse_seconds":30.0}}}"#);
    insta::assert_snapshot!(json(&answer(false)), @r#"{"type":"DECLINE_INVERSE_OFFERS","decline_inverse_offers":{"inverse_offer_ids":[{"value":"o5"}],"filters":{"refuse_seconds":30.0}}}"#);
}
