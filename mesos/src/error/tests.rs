use super::*;

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
