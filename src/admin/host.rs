//! The host names that the admin port accepts. By DNS rebinding a web page could read the port, but
//! only under the page's own host name.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Uri, header};

/// Suffixes of names that no public DNS resolves to an address of an attacker's choice.
const INTERNAL: [&str; 3] = [".svc", ".cluster.local", ".internal"];

/// The names that are allowed besides the internal ones (`--admin-host`).
#[derive(Debug, Default)]
pub(super) struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    pub(super) fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(names.into_iter().map(|name| normalize(&name.into())).collect())
    }

    /// True if every name by which a request addresses the server is allowed. A request may name
    /// none.
    pub(super) fn allow(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let hosts = headers.get_all(header::HOST).iter();
        let mut named = hosts.map(|host| host.to_str().ok());
        uri.authority().is_none_or(|authority| self.allows(without_port(authority.as_str())))
            && named.all(|host| host.is_some_and(|host| self.allows(without_port(host))))
    }

    fn allows(&self, host: &str) -> bool {
        let host = normalize(host);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match address {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => {
                is_name(&host)
                    && (!host.contains('.')
                        || host.parse::<IpAddr>().is_ok()
                        || INTERNAL.iter().any(|suffix| host.ends_with(suffix))
                        || self.0.contains(&host))
            }
        }
    }
}

/// True for labels between dots: no user name, no malformed port, no empty name.
fn is_name(host: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    host.split('.').all(|label| !label.is_empty() && label.bytes().all(is_part))
}

/// The name in lower case, without the dot of the DNS root.
fn normalize(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.is_empty() || is_port(port) => name,
        _ => host,
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        AllowedHosts::new(["Status.example.com"]).allow(&Uri::from_static("/status"), &headers)
    }

    #[test]
    fn internal_names_and_addresses_are_allowed_and_public_names_are_not() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9443",
            "[::1]:9443",
            "[::1]",
            "localhost",
            "LOCALHOST:9443",
            "localhost.",
            "portcullis",
            "a.b.svc",
            "a.b.svc.cluster.local:80",
            "ip-10-0-0-1.internal",
            "status.example.com",
            "STATUS.example.com.:9443",
            "localhost:",
            "my_host:65535",
        ] {
            assert!(is_allowed(host), "{host}");
        }
        for host in [
            "example.com",
            "status.example.com.evil.net",
            "127.0.0.1.nip.io",
            "xsvc.com",
            "[::1].evil.net",
            "[evil.net]",
            "a.svc.evil.net",
            "evil.net:9443",
            "1.2.3",
            "localhost:x.evil.net",
            "",
            ".",
            ":9443",
            ".svc",
            "a..svc",
            "localhost:x",
            "localhost:99999",
            "localhost:1:2",
            "user@localhost",
            "user@127.0.0.1:9443",
            "evil.net#.svc",
            "evil.net/.svc",
        ] {
            assert!(!is_allowed(host), "{host}");
        }
    }

    #[test]
    fn a_request_may_have_no_host_and_an_absolute_target_counts() {
        let allowed = AllowedHosts::default();
        let absolute = |uri: &'static str| allowed.allow(&Uri::from_static(uri), &HeaderMap::new());
        assert!(absolute("/status"));
        assert!(absolute("http://127.0.0.1:9443/status"));
        assert!(!absolute("http://evil.net/status"));
        assert!(!absolute("http://user@localhost/status"));
        assert!(absolute("http://[::1]/status"));
    }
}
