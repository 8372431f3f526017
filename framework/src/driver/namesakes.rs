//! Other frameworks of our name on the same Mesos.
//!
//! Mesos tells frameworks apart by id and allows two of one name. One that is there besides ours is
//! either a second cluster by mistake, or ours from before its stored id was lost: its tasks then
//! run on, hold resources and block agents. Nothing is done about it, because both may be meant;
//! but it is said, on the status page, in the log and in the metrics.

use std::sync::Arc;
use std::time::Duration;

use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use mesos::operator::OperatorClient;
use mesos::pb;
use pb::master::response::GetFrameworks;
use tokio_util::sync::CancellationToken;

use super::status::Board;
use crate::metrics::Metrics;

/// How often is looked: two clusters of one name are a mistake of installing.
const PERIOD: Duration = Duration::from_secs(600);
/// After a call that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// Who we are.
#[derive(Debug, Clone)]
pub struct Ours {
    /// FrameworkInfo's name.
    pub name: String,
    /// The framework's id.
    pub id: String,
}

/// Looks for namesakes until `stop`.
pub async fn run(
    master: MasterUrl,
    config: ClientConfig,
    ours: Ours,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    // `poll_agents` has said it already.
    let Ok(client) = OperatorClient::new(&master, &config) else {
        return;
    };
    let call = pb::master::Call {
        r#type: Some(pb::master::call::Type::GetFrameworks.into()),
        ..Default::default()
    };
    let mut said: Option<String> = None;
    loop {
        let pause = match client.call(&call).await {
            Ok(answer) => {
                let found = find(&answer.get_frameworks.unwrap_or_default(), &ours);
                metrics.namesakes(found.len());
                let warning = (!found.is_empty()).then(|| words(&found, &ours));
                if said != warning {
                    if let Some(warning) = &warning {
                        tracing::warn!("{warning}");
                    }
                    board.warning(warning.clone());
                    said = warning;
                }
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "frameworks cannot be asked for");
                AGAIN
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))) => {}
        }
    }
}

/// Another framework of our name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Namesake {
    id: String,
    connected: bool,
    hostname: String,
}

fn find(answer: &GetFrameworks, ours: &Ours) -> Vec<Namesake> {
    // Completed ones are listed elsewhere: they hold nothing.
    answer
        .frameworks
        .iter()
        .filter_map(|framework| {
            let info = &framework.framework_info;
            let id = info.id.as_ref()?.value.clone();
            (info.name == ours.name && id != ours.id).then(|| Namesake {
                id,
                connected: framework.connected,
                hostname: info.hostname.clone().unwrap_or_default(),
            })
        })
        .collect()
}

fn words(found: &[Namesake], ours: &Ours) -> String {
    let each: Vec<String> = found
        .iter()
        .map(|it| {
            let state = if it.connected {
                "connected"
            } else {
                "disconnected, its tasks run on"
            };
            format!("{} of host `{}` ({state})", it.id, it.hostname)
        })
        .collect();
    format!(
        "Mesos knows other frameworks of the name `{}` besides this one ({}): {}. A second cluster needs a name of its own \
         (--framework-name). One that is left over from a lost id is ended with its tasks by: \
         curl -X POST http://<mesos master>/teardown -d frameworkId=<its id>",
        ours.name,
        ours.id,
        each.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framework(
        id: &str,
        name: &str,
        connected: bool,
    ) -> pb::master::response::get_frameworks::Framework {
        pb::master::response::get_frameworks::Framework {
            framework_info: pb::FrameworkInfo {
                name: name.to_owned(),
                id: Some(pb::FrameworkId {
                    value: id.to_owned(),
                }),
                hostname: Some("h1".to_owned()),
                ..Default::default()
            },
            connected,
            ..Default::default()
        }
    }

    #[test]
    fn only_other_frameworks_of_the_same_name_are_namesakes() {
        let ours = Ours {
            name: "kubernetes".to_owned(),
            id: "f1".to_owned(),
        };
        let answer = GetFrameworks {
            frameworks: vec![
                framework("f1", "kubernetes", true),
                framework("f0", "kubernetes", false),
                framework("f2", "marathon", true),
            ],
            completed_frameworks: vec![framework("f9", "kubernetes", false)],
            ..Default::default()
        };
        let found = find(&answer, &ours);
        insta::assert_snapshot!(words(&found, &ours), @"Mesos knows other frameworks of the name `kubernetes` besides this one (f1): f0 of host `h1` (disconnected, its tasks run on). A second cluster needs a name of its own (--framework-name). One that is left over from a lost id is ended with its tasks by: curl -X POST http://<mesos master>/teardown -d frameworkId=<its id>");
    }
}
