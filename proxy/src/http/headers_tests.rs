use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::try_from(*value).unwrap(),
        );
    }
    map
}

fn names(map: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn everything_that_claims_an_identity_is_taken_off() {
    let mut map = headers(&[
        ("Accept", "application/json"),
        ("Authorization", "Bearer abc"),
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Extra-Scopes", "all"),
        ("X-Remote-Uid", "1"),
        ("Impersonate-User", "admin"),
        ("Impersonate-Extra-Reason", "because"),
        ("X-SSL-Client-Cert", "..."),
        ("Ssl-Client-Subject-DN", "..."),
        ("X-Forwarded-Client-Cert", "..."),
        ("Client-Cert", "..."),
        ("Cookie", "dcos-acs-auth-cookie=..."),
        ("Proxy-Authorization", "Basic ..."),
    ]);
    strip(&mut map);
    assert_eq!(names(&map), ["accept", "authorization"]);
}

#[test]
fn what_belongs_to_the_connection_stays_there() {
    let mut map = headers(&[
        ("Connection", "Upgrade, X-Private"),
        ("Upgrade", "websocket"),
        ("X-Private", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Transfer-Encoding", "chunked"),
    ]);
    strip(&mut map);
    assert_eq!(names(&map), ["connection", "upgrade"]);
    let protocol = upgrade(&mut map).unwrap();
    assert!(map.is_empty());
    set_upgrade(&mut map, protocol);
    assert_eq!(map["upgrade"], "websocket");
    assert_eq!(map["connection"], "upgrade");
}

#[test]
fn an_upgrade_needs_both_headers() {
    assert!(upgrade(&mut headers(&[("Upgrade", "h2c")])).is_none());
    assert!(upgrade(&mut headers(&[("Connection", "upgrade")])).is_none());
    assert!(
        upgrade(&mut headers(&[
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "SPDY/3.1")
        ]))
        .is_some()
    );
}

#[test]
fn only_a_bearer_token_passes() {
    let passes = |lines: &[(&str, &str)]| {
        let mut map = headers(lines);
        let bearer = keep_bearer(&mut map);
        (bearer, map.contains_key("authorization"))
    };
    assert_eq!(passes(&[("Authorization", "Bearer abc")]), (true, true));
    assert_eq!(passes(&[("Authorization", "bearer abc")]), (true, true));
    assert_eq!(passes(&[]), (false, false));
    for other in ["Basic abc", "token=abc", "Bearer", "Bearer ", "abc"] {
        assert_eq!(
            passes(&[("Authorization", other)]),
            (false, false),
            "{other}"
        );
    }
    let two = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")];
    assert_eq!(passes(&two), (false, false));
    let socket = [(
        "Sec-WebSocket-Protocol",
        "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj",
    )];
    assert_eq!(passes(&socket), (true, false));
}

#[test]
fn a_token_is_taken_out_of_a_websockets_protocols_and_the_others_stay() {
    let mut map = headers(&[
        ("Authorization", "Bearer abc"),
        (
            "Sec-WebSocket-Protocol",
            "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io",
        ),
    ]);
    drop_bearer(&mut map);
    assert_eq!(map["sec-websocket-protocol"], "v5.channel.k8s.io");
    assert_eq!(names(&map), ["sec-websocket-protocol"]);
}

proptest::proptest! {
    #[test]
    fn nothing_that_claims_an_identity_ever_passes(
        lines in proptest::collection::vec(
            ("(x-remote-[a-z]{1,5}|impersonate-[a-z]{1,5}|cookie|accept|connection|x-[a-z]{1,4})", "[a-z, -]{0,20}"),
            0..12,
        ),
    ) {
        let lines: Vec<(&str, &str)> = lines.iter().map(|(a, b)| (a.as_str(), b.trim())).collect();
        let mut map = headers(&lines);
        strip(&mut map);
        proptest::prop_assert!(!map.keys().any(claims_identity));
    }
}
