//! Restarts: of the agent, of the master, and what happened meanwhile.

use devcluster::agent::container::ProcessRef;
use mesos::pb;
use pb::TaskState as S;
use pb::task_status::{Reason, Source};

use super::support::{Cluster, Framework, Target, command_task, eventually, executor_task};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_survive_a_killed_agent_and_its_successor_knows_them() {
    let mut cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    framework.launch(command_task("cmd", "sleep 1000")).await;
    let command = framework.update_to(S::TaskRunning).await;
    let processes = [target.pid, command.container_status.unwrap().executor_pid()]
        .map(|pid| ProcessRef::of(pid).unwrap());

    cluster.kill_agent();
    assert!(processes.iter().all(|p| p.is_alive()));
    cluster.start_agent();
    // Nothing is said of the tasks; the executor answers through the new agent.
    let message = async {
        loop {
            framework.message(&target, "echo").await;
            let answer = framework.wait("message", |e| e.message);
            let soon = std::time::Duration::from_secs(1);
            if let Ok(answer) = tokio::time::timeout(soon, answer).await {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(super::support::PATIENCE, message)
        .await
        .unwrap();
    assert_eq!(answer.data, b"echoed");
    assert!(processes.iter().all(|p| p.is_alive()));
    framework.message(&target, "update t1 TASK_FINISHED").await;
    let finished = framework.update().await;
    assert_eq!(
        (finished.state(), finished.task_id.value.as_str()),
        (S::TaskFinished, "t1")
    );
    let same = finished.container_status.unwrap();
    assert_eq!(same.container_id.unwrap().value, target.container);
    assert_eq!(same.executor_pid, Some(target.pid));

    framework.kill("cmd").await;
    let killed = framework.update_to(S::TaskKilled).await;
    assert_eq!(
        killed.message(),
        "Command terminated with signal Terminated"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_nobody_acknowledged_is_sent_again_by_the_next_agent() {
    let mut cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let starting = framework.wait("update", |e| e.update).await.status;
    assert_eq!(starting.state(), S::TaskStarting);
    cluster.kill_agent();
    cluster.start_agent();
    let again = framework.wait("update", |e| e.update).await.status;
    assert_eq!(again.uuid, starting.uuid);
    framework.acknowledge(&again).await;
    // The next one was waiting behind it, on disk.
    loop {
        let next = framework.update().await;
        if next.uuid != starting.uuid {
            assert_eq!(next.state(), S::TaskRunning);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_died_with_its_agent_fails_its_tasks() {
    let mut cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    cluster.kill_agent();
    devcluster::agent::container::kill(target.pid);
    cluster.start_agent();
    // The update before may come again: its acknowledgement was on the way.
    let failed = framework.update_to(S::TaskFailed).await;
    assert_eq!(failed.source(), Source::Agent);
    assert_eq!(failed.reason(), Reason::ExecutorTerminated);
    assert_eq!(failed.message(), "Executor terminated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_does_not_come_back_is_ended() {
    let mut cluster = Cluster::start(&["--executor-reregistration-timeout=1secs"]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    framework.ask(&target, "gone").await;
    let process = ProcessRef::of(target.pid).unwrap();
    cluster.kill_agent();
    cluster.start_agent();
    let gone = framework.update_to(S::TaskGone).await;
    assert_eq!(gone.reason(), Reason::ExecutorReregistrationTimeout);
    assert_eq!(gone.message(), "Executor did not reregister within 1secs");
    assert!(!process.is_alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_checkpointing_an_executor_does_not_outlive_a_restart_of_its_agent() {
    let mut cluster = Cluster::start(&[]).await;
    let mut framework = Framework::with_checkpoint(&cluster, false).await;
    framework.launch(command_task("cmd", "sleep 1000")).await;
    let running = framework.update_to(S::TaskRunning).await;
    let process = ProcessRef::of(running.container_status.unwrap().executor_pid()).unwrap();
    cluster.kill_agent();
    let lost = framework.update_to(S::TaskLost).await;
    assert_eq!(lost.reason(), Reason::AgentDisconnected);
    cluster.start_agent();
    eventually("the orphan ends", || !process.is_alive()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_come_back_to_a_restarted_master_with_their_tasks() {
    let mut cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    cluster.restart_master().await;
    framework.wait("SUBSCRIBED", |e| e.subscribed).await;
    // Offers of the agent mean that it is back.
    framework.wait("offer", |e| e.offers).await;
    framework.ask(&target, "echo").await;
    framework.kill("t1").await;
    framework.update_to(S::TaskKilled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_changed_says_what_and_how_to_go_on() {
    let mut cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    // A task that runs means that the agent has noted its id.
    framework.launch(command_task("c", "true")).await;
    framework.update_to(S::TaskFinished).await;
    cluster.kill_agent();
    let output = cluster
        .run_agent(&["--resources=cpus:1;mem:64;disk:1;ports:[1-2]"])
        .await;
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.contains("Incompatible agent info detected: resources differ"),
        "{words}"
    );
    assert!(words.contains("meta/slaves/latest"), "{words}");
}
