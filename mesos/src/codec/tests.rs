//! What Mesos 1.12 does with JSON, as recorded (`NOTES.md`, row 6).

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pb;

fn call(value: serde_json::Value) -> Result<pb::scheduler::Call, DecodeError> {
    from_json(&value)
}

#[test]
fn members_that_are_not_known_are_ignored() {
    let call = call(json!({"type": "REVIVE", "nonsense": {"a": [1, null]}})).expect("a call");
    assert_eq!(call.r#type(), pb::scheduler::call::Type::Revive);
}

#[test]
fn an_enumeration_value_that_is_not_known_is_the_same_as_none() {
    assert_eq!(call(json!({"type": "NOPE"})).expect("a call").r#type, None);
    let info: pb::FrameworkInfo = from_json(&json!({
        "user": "u", "name": "n", "capabilities": [{"type": "FROM_THE_FUTURE"}, {"type": "MULTI_ROLE"}],
    }))
    .expect("a framework");
    let types: Vec<_> = info.capabilities.iter().map(|c| c.r#type).collect();
    let multi_role = pb::framework_info::capability::Type::MultiRole;
    assert_eq!(types, [None, Some(multi_role.into())]);
}

#[test]
fn a_number_may_be_a_string_and_a_string_no_number() {
    let value: pb::value::Range =
        from_json(&json!({"begin": "31000", "end": 32000})).expect("a range");
    assert_eq!((value.begin, value.end), (31000, 32000));
    let value: pb::value::Scalar = from_json(&json!({"value": "0.5"})).expect("a scalar");
    assert_eq!(value.value, 0.5);
    let error = from_json::<pb::FrameworkId>(&json!({"value": 5})).expect_err("no string");
    assert!(
        error
            .to_string()
            .starts_with("not a JSON mesos.v1.FrameworkID: "),
        "{error}"
    );
}

#[test]
fn bytes_are_base64_and_doubles_have_a_point() {
    let message = pb::scheduler::call::Message {
        data: vec![0, 255, 254],
        ..Default::default()
    };
    assert_eq!(to_json(&message)["data"], "AP/+");
    let scalar = pb::value::Scalar { value: 2.0 };
    assert_eq!(to_json(&scalar).to_string(), r#"{"value":2.0}"#);
}

#[test]
fn numbers_of_64_bits_are_numbers() {
    let range = pb::value::Range {
        begin: u64::MAX,
        end: 1 << 60,
    };
    assert_eq!(
        to_json(&range).to_string(),
        format!(r#"{{"begin":{},"end":{}}}"#, u64::MAX, 1_u64 << 60)
    );
}

#[test]
fn durations_have_no_form_of_their_own() {
    let text = json!({"type": "DRAIN_AGENT", "drain_agent": {
        "agent_id": {"value": "S0"}, "max_grace_period": {"seconds": 3}}});
    let call: pb::master::Call = from_json(&text).expect("a call");
    let drain = call.drain_agent.clone().expect("a drain");
    assert_eq!(drain.max_grace_period.expect("a duration").seconds, 3);
    assert_eq!(to_json(&call), text);
}

#[test]
fn explicit_defaults_are_kept_and_unset_fields_are_left_out() {
    let filters = pb::Filters {
        refuse_seconds: Some(5.0),
    };
    assert_eq!(to_json(&filters), json!({"refuse_seconds": 5.0}));
    assert_eq!(to_json(&pb::Filters::default()), json!({}));
    let kill = pb::scheduler::Call {
        suppress: Some(Default::default()),
        ..Default::default()
    };
    assert_eq!(to_json(&kill), json!({"suppress": {}}));
}

#[test]
fn an_error_names_the_message_and_the_place() {
    let error = Encoding::Json
        .decode::<pb::scheduler::Call>(b"{\"type\":\"REVIVE\",}")
        .expect_err("no JSON");
    let text = error.to_string();
    assert!(text.contains("mesos.v1.scheduler.Call"), "{text}");
    assert!(text.contains("line 1 column 18"), "{text}");
    let error = Encoding::Json
        .decode::<pb::scheduler::Call>(b"{} {}")
        .expect_err("more than one");
    assert!(error.to_string().contains("trailing characters"), "{error}");
    let error = Encoding::Protobuf
        .decode::<pb::scheduler::Call>(b"\xff")
        .expect_err("no protobuf");
    assert!(
        error.to_string().contains("mesos.v1.scheduler.Call"),
        "{error}"
    );
}

#[test]
fn only_the_two_exact_media_types_are_known() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        assert_eq!(
            Encoding::from_media_type(encoding.media_type()),
            Some(encoding)
        );
    }
    assert_eq!(
        Encoding::from_media_type("application/json; charset=utf-8"),
        None
    );
}

#[test]
fn messages_nested_beyond_reason_do_not_exhaust_the_stack() {
    // What is not known is skipped, however deep it is.
    let deep = [
        b"{\"x\":".repeat(100_000),
        b"1".to_vec(),
        b"}".repeat(100_000),
    ]
    .concat();
    assert!(Encoding::Json.decode::<pb::scheduler::Event>(&deep).is_ok());
    // Groups are the only way to nest in protobuf where a message does not nest by itself.
    let deep = [vec![0x0b; 100_000], vec![0x0c; 100_000]].concat();
    assert!(
        Encoding::Protobuf
            .decode::<pb::scheduler::Event>(&deep)
            .is_err()
    );
    // A container id has a parent, which is a container id.
    let (open, close) = (br#"{"value":"c","parent":"#.to_vec(), b"}".to_vec());
    let deep = [open.repeat(100_000), b"{}".to_vec(), close.repeat(100_000)].concat();
    assert!(Encoding::Json.decode::<pb::ContainerId>(&deep).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            if let Ok(event) = encoding.decode::<pb::scheduler::Event>(&bytes) {
                for encoding in [Encoding::Json, Encoding::Protobuf] {
                    encoding.encode(&event);
                }
            }
        }
    }
}
