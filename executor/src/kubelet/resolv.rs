//! The resolver file that kubelet gives to pods with `dnsPolicy: Default` (CoreDNS is one).
//!
//! A name server on the machine's loopback, such as systemd-resolved's 127.0.0.53, answers on the
//! machine only: inside a pod it is the pod itself, and CoreDNS would forward to itself in a loop.

use std::net::IpAddr;

/// What pods get instead of the machine's own resolver file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodResolver {
    /// Content of the file.
    pub text: String,
    /// Whether it names a server that pods can reach.
    pub usable: bool,
}

/// Files that may hold the machine's name servers, best first. The second is what
/// systemd-resolved itself asks; it is written for exactly this purpose.
pub const SOURCES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Makes the pods' file out of the first source that names a server beyond loopback.
pub fn for_pods<'a>(sources: impl IntoIterator<Item = &'a str>) -> PodResolver {
    let mut fallback: Option<PodResolver> = None;
    for source in sources {
        let resolver = without_loopback(source);
        if resolver.usable {
            return resolver;
        }
        fallback.get_or_insert(resolver);
    }
    fallback.unwrap_or(PodResolver {
        text: String::new(),
        usable: false,
    })
}

fn without_loopback(source: &str) -> PodResolver {
    let mut text = String::new();
    let mut usable = false;
    for line in source.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                // `fe80::1%eth0` is an address too, though a zone means nothing inside a pod.
                let address = words.next().unwrap_or_default();
                let bare = address.split('%').next().unwrap_or_default();
                let loopback = bare
                    .parse::<IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
                if !address.is_empty() && !loopback {
                    text.push_str(&format!("nameserver {address}\n"));
                    usable = true;
                }
            }
            Some("search" | "domain" | "options") => {
                text.push_str(line.trim());
                text.push('\n');
            }
            _ => {}
        }
    }
    PodResolver { text, usable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_file_passes_unchanged() {
        let text = "search example.org\nnameserver 10.0.0.2\noptions ndots:2\n";
        assert_eq!(
            for_pods([text]),
            PodResolver {
                text: text.to_owned(),
                usable: true
            }
        );
    }

    #[test]
    fn behind_systemd_resolved_pods_get_the_servers_that_it_asks() {
        let stub = "# stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\n";
        let upstream = "nameserver 192.168.1.1\nnameserver fe80::1%eth0\nsearch lan\n";
        assert_eq!(for_pods([stub, upstream]).text, upstream);
    }

    #[test]
    fn a_machine_with_nothing_but_loopback_is_told_apart() {
        let resolver = for_pods(["nameserver 127.0.0.1\nnameserver ::1\n"]);
        assert_eq!(resolver.text, "");
        assert!(!resolver.usable);
        assert!(!for_pods([]).usable);
    }
}
