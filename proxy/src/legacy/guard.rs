//! Who may use this machine's side: programs on this machine, and pages that it served itself.
//! Pure.
//!
//! Everybody on the machine reaches loopback, and so does every web page that a browser on it
//! shows. A page of another site is told apart by what browsers always say: the `Host` that the
//! page meant (a name that was made to point here, "DNS rebinding"), its `Origin`, and
//! `Sec-Fetch-Site`. Programs say none of it but a local `Host`.

use std::net::Ipv6Addr;

use http::HeaderMap;
use http::header::{self, HeaderName};

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Meant for another host.
    #[error(
        "the host {0:?} is not this machine: use localhost, 127.0.0.1 or [::1] with the port that you connect to"
    )]
    Host(String),
    /// From another page.
    #[error("a page of {0:?} asks: only pages of this address may")]
    Origin(String),
    /// From another site.
    #[error("the browser marks the request as {0:?}: only same-origin and none pass")]
    Site(String),
}

/// Checks a request. `authority` is that of an absolute request target, `port` ours.
pub fn check(headers: &HeaderMap, authority: Option<&str>, port: u16) -> Result<(), Foreign> {
    let hosts: Vec<String> = values(headers, &header::HOST).collect();
    match hosts.as_slice() {
        [host] if is_local(host, port, Bare::Fits) => {}
        [host] => return Err(Foreign::Host(host.clone())),
        // None, or two of which the next one might read the other.
        _ => return Err(Foreign::Host(hosts.join(", "))),
    }
    if let Some(authority) = authority.filter(|a| !is_local(a, port, Bare::Fits)) {
        return Err(Foreign::Host(authority.to_owned()));
    }
    for origin in values(headers, &header::ORIGIN) {
        let local = origin
            .strip_prefix("http://")
            .is_some_and(|host| is_local(host, port, Bare::Is80));
        if !local {
            return Err(Foreign::Origin(origin));
        }
    }
    for site in values(headers, &HeaderName::from_static("sec-fetch-site")) {
        // Another port of this machine is "same-site", and no friend.
        if !["same-origin", "none"].contains(&site.as_str()) {
            return Err(Foreign::Site(site));
        }
    }
    Ok(())
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + 'a {
    headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// What a name without a port means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// Our port: programs and people write `Host: localhost` for whatever port they connect to.
    Fits,
    /// Port 80: browsers write an origin's port unless it is that.
    Is80,
}

/// Whether `host[:port]` is this machine's own name for our port.
fn is_local(text: &str, port: u16, bare: Bare) -> bool {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let Some((address, rest)) = inner.split_once(']') else {
                return false;
            };
            if address.parse() != Ok(Ipv6Addr::LOCALHOST) {
                return false;
            }
            ("localhost", rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_fits = match rest.strip_prefix(':') {
        Some(number) => number.parse() == Ok(port),
        None => rest.is_empty() && (bare == Bare::Fits || port == 80),
    };
    port_fits && (host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ask(lines: &[(&'static str, &str)]) -> Result<(), Foreign> {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        check(&map, None, 8080)
    }

    #[test]
    fn programs_on_this_machine_pass() {
        for host in [
            "localhost:8080",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost",
            "127.0.0.1",
        ] {
            assert_eq!(ask(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn another_host_does_not_whatever_it_points_to() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "localhost:8081",
            "127.0.0.2:8080",
            "127.0.0.1.evil.example",
            "0.0.0.0:8080",
            "[::2]:8080",
            "[::1",
            "localhost:",
            "localhost:x",
            "user@localhost:8080",
            "",
        ] {
            let refused = ask(&[("host", host)]);
            assert!(matches!(refused, Err(Foreign::Host(_))), "{host}");
        }
        assert!(ask(&[]).is_err());
        assert!(ask(&[("host", "localhost:8080"), ("host", "evil.example")]).is_err());
        let mut map = HeaderMap::new();
        map.insert(header::HOST, HeaderValue::from_static("localhost:8080"));
        assert!(check(&map, Some("evil.example"), 8080).is_err());
        assert!(check(&map, Some("localhost:8080"), 8080).is_ok());
    }

    #[test]
    fn pages_of_other_sites_do_not() {
        let from = |origin: &str| ask(&[("host", "localhost:8080"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8080"), Ok(()));
        assert_eq!(from("http://127.0.0.1:8080"), Ok(()));
        for origin in [
            "null",
            "http://evil.example",
            "https://localhost:8080",
            "http://localhost:3000",
            "http://localhost",
            "http://[::1]",
            "http://localhost:8080.evil.example",
            "file://",
            "",
        ] {
            assert!(matches!(from(origin), Err(Foreign::Origin(_))), "{origin}");
        }
    }

    #[test]
    fn what_a_browser_marks_as_foreign_does_not() {
        let marked = |site: &str| ask(&[("host", "localhost:8080"), ("sec-fetch-site", site)]);
        assert_eq!(marked("same-origin"), Ok(()));
        assert_eq!(marked("none"), Ok(()));
        for site in ["cross-site", "same-site", "", "SAME-ORIGIN"] {
            assert!(matches!(marked(site), Err(Foreign::Site(_))), "{site}");
        }
    }
}
