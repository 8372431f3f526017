use super::*;

fn id(value: &str) -> pb::TaskId {
    pb::TaskId {
        value: value.to_owned(),
    }
}

fn task(value: &str) -> pb::TaskInfo {
    pb::TaskInfo {
        task_id: id(value),
        ..Default::default()
    }
}

fn uuid(update: &Update) -> Vec<u8> {
    update.status.uuid.clone().expect("every update has one")
}

#[test]
fn every_update_has_a_uuid_of_its_own_that_agents_accept() {
    let a = new_update(id("t"), pb::TaskState::TaskRunning);
    let b = new_update(id("t"), pb::TaskState::TaskRunning);
    assert_ne!(uuid(&a), uuid(&b));
    let parsed = uuid::Uuid::from_slice(&uuid(&a)).expect("16 bytes");
    assert_eq!(parsed.get_version_num(), 4);
    assert!(check_update(Some(&a)).is_ok());
    assert!(a.status.timestamp.is_some_and(|at| at > 1.7e9));
}

#[test]
fn the_order_of_updates_is_kept_until_each_is_acknowledged() {
    let mut ledger = Ledger::default();
    for name in ["b", "a"] {
        ledger.launched(task(name));
    }
    let updates: Vec<Update> = [
        ("b", pb::TaskState::TaskStarting),
        ("a", pb::TaskState::TaskStarting),
        ("b", pb::TaskState::TaskRunning),
    ]
    .into_iter()
    .map(|(name, state)| new_update(id(name), state))
    .collect();
    for update in &updates {
        ledger.sent(update.clone());
    }
    // Sent again after a reconnection, it still counts once.
    ledger.sent(updates[0].clone());
    ledger.launched(task("b"));
    assert_eq!(
        ledger.unacknowledged(),
        (vec![task("b"), task("a")], updates.clone())
    );
    let (tasks, unacknowledged) = ledger.unacknowledged();
    let restored = Ledger::restore(tasks, unacknowledged);
    assert_eq!(restored.unacknowledged(), ledger.unacknowledged());
    ledger.acknowledged(&id("b"), &uuid(&updates[0]));
    assert_eq!(
        ledger.unacknowledged(),
        (vec![task("a")], updates[1..].to_vec())
    );
}

#[test]
fn an_acknowledgement_of_something_else_changes_nothing() {
    let mut ledger = Ledger::default();
    let update = new_update(id("a"), pb::TaskState::TaskRunning);
    ledger.sent(update.clone());
    ledger.acknowledged(&id("b"), &uuid(&update));
    ledger.acknowledged(&id("a"), b"another");
    assert_eq!(ledger.unacknowledged().1, [update]);
}
