use super::*;
use crate::master::DetectError;

fn status(code: u16, text: &str) -> Error {
    Error::Status {
        attempt: "KILL",
        url: "http://m:5050/".to_owned(),
        status: StatusCode::from_u16(code).expect("a status"),
        text: text.to_owned(),
    }
}

#[test]
fn what_may_be_tried_again_is_what_mesos_means_so() {
    for (error, retryable) in [
        (status(503, "Master has not finished recovery"), true),
        (status(500, ""), true),
        (status(429, ""), true),
        (status(403, "Framework is not subscribed"), true),
        (status(403, "Forbidden"), false),
        (status(401, "401 Unauthorized."), false),
        (status(400, "Framework cannot be found"), false),
        (status(404, ""), false),
        (Error::NotSubscribed, true),
        (Error::Stopped, false),
    ] {
        assert_eq!(error.retryable(), retryable, "{error}");
    }
}

#[test]
fn a_message_says_what_was_attempted_where() {
    assert_eq!(
        status(400, "no").to_string(),
        "KILL at http://m:5050/: 400 Bad Request: no"
    );
}

#[test]
fn recorded_refusals_are_understood() {
    // Every text of an ERROR event in the recordings.
    for (text, refusal) in [
        ("Framework failed over", Refusal::FailedOver),
        ("Framework has been removed", Refusal::Removed),
        (
            "Not authorized to register framework  with roles { r9 }",
            Refusal::Unauthorized,
        ),
        (
            "Changing framework's principal is not allowed.",
            Refusal::Invalid,
        ),
        ("'a/b' contains invalid characters", Refusal::Invalid),
    ] {
        assert_eq!(Refusal::classify(text), refusal, "{text}");
    }
}

#[test]
fn people_read_these_messages() {
    let url = || "http://m:5050/api/v1/scheduler".to_owned();
    let hosts = || "zk1:2181,zk2:2181".to_owned();
    let errors: Vec<Error> = vec![
        ConfigError::Read {
            path: "/etc/mesos/secret".into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        }
        .into(),
        ConfigError::EmptySecret {
            path: "/etc/mesos/secret".into(),
        }
        .into(),
        ConfigError::Pem {
            origin: "/etc/ca.pem".to_owned(),
            reason: "no certificate in it".to_owned(),
        }
        .into(),
        DetectError::ZooKeeper {
            hosts: hosts(),
            reason: "timeout".to_owned(),
        }
        .into(),
        DetectError::Unauthorized {
            hosts: hosts(),
            path: "/mesos".to_owned(),
        }
        .into(),
        DetectError::Entry {
            node: "json.info_0000000001".to_owned(),
            reason: "it has no port".to_owned(),
        }
        .into(),
        Error::Transport {
            attempt: "ACCEPT",
            url: url(),
            reason: "connection refused".to_owned(),
        },
        Error::Timeout {
            attempt: "SUBSCRIBE",
            url: url(),
            after: Duration::from_secs(15),
        },
        Error::Redirect {
            attempt: "KILL",
            url: url(),
            location: "//m2:5050/api/v1/scheduler".to_owned(),
        },
        RecordIoError::TooLong {
            length: 1 << 40,
            limit: 1 << 20,
        }
        .into(),
        RecordIoError::Truncated { missing: 7 }.into(),
        Error::StreamEnded { url: url() },
        Error::HeartbeatsMissed {
            url: url(),
            silence: Duration::from_millis(75_250),
        },
        Error::LeaderChanged { url: url() },
        Error::NotSubscribed,
        Error::Stopped,
    ];
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(text.join("\n"));
}
