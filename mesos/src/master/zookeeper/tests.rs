use super::*;

fn found(json: &str, scheme: Scheme) -> Result<Vec<String>, String> {
    addresses(json.as_bytes(), scheme).map(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn the_lowest_sequence_number_leads_by_value_not_by_text() {
    let children = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        choose(&children(&[
            "json.info_0000000012",
            "json.info_0000000009",
            "info_0000000001",
            "log_replicas",
            "json.info_",
            "json.info_-1",
        ])),
        Some("json.info_0000000009".to_owned())
    );
    assert_eq!(
        choose(&children(&[
            "json.info_10000000000",
            "json.info_9999999999"
        ])),
        Some("json.info_9999999999".to_owned())
    );
    assert_eq!(choose(&children(&["log_replicas"])), None);
}

#[test]
fn a_master_is_reached_by_address_or_with_tls_by_name() {
    let info = r#"{"address":{"hostname":"m","ip":"10.0.0.1","port":5050},"hostname":"m",
        "id":"x","ip":16777226,"pid":"master@10.0.0.1:5050","port":5050,"version":"1.12.0",
        "later":{}}"#;
    assert_eq!(
        found(info, Scheme::Http),
        Ok(vec![
            "http://10.0.0.1:5050".to_owned(),
            "http://m:5050".to_owned()
        ])
    );
    assert_eq!(
        found(info, Scheme::Https),
        Ok(vec![
            "https://m:5050".to_owned(),
            "https://10.0.0.1:5050".to_owned()
        ])
    );
}

#[test]
fn an_entry_without_the_new_field_is_understood() {
    // 16777343 is 127.0.0.1 in network order on a little-endian machine.
    let info = r#"{"id":"x","ip":16777343,"port":5050}"#;
    assert_eq!(
        found(info, Scheme::Http),
        Ok(vec!["http://127.0.0.1:5050".to_owned()])
    );
    let info = r#"{"id":"x","ip":0,"port":5050,"address":{"ip":"fd00::1","port":5051}}"#;
    assert_eq!(
        found(info, Scheme::Http),
        Ok(vec!["http://[fd00::1]:5051".to_owned()])
    );
}

#[test]
fn an_entry_that_says_nothing_is_refused_with_a_reason() {
    assert!(found("", Scheme::Http).is_err());
    assert_eq!(
        found(r#"{"id":"x","ip":1,"port":0}"#, Scheme::Http),
        Err("it has no port".to_owned())
    );
    assert_eq!(
        found(r#"{"id":"x","ip":0,"port":5050}"#, Scheme::Http),
        Err("it has no address".to_owned())
    );
}
