//! The checks that each request passes in front of every service: a method that a server behind a
//! gateway serves, and one well-formed host. hyper requires neither.

use http::{Method, Request, Version, header, uri};

use crate::server::http::malformed::Malformed;

/// Refuses a request that two programs could read differently.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Malformed> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Malformed::Method);
    }
    check_target(request)?;
    check_host(request)
}

/// A path, or `*` for the server as a whole. hyper takes `GET a` for a request of an authority.
fn check_target<B>(request: &Request<B>) -> Result<(), Malformed> {
    let (uri, path) = (request.uri(), request.uri().path());
    let is_whole_server = path == "*" && *request.method() == Method::OPTIONS;
    let is_http = matches!(uri.scheme_str(), None | Some("http" | "https"));
    match (path.starts_with('/') || is_whole_server) && is_http {
        true => Ok(()),
        false => Err(Malformed::BadTarget),
    }
}

/// One host, in `Host` or, in HTTP/2, in `:authority`.
fn check_host<B>(request: &Request<B>) -> Result<(), Malformed> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Malformed::SeveralHosts),
        (Some(host), None) if host.is_empty() => return Err(Malformed::NoHost),
        (Some(host), None) if is_host(host.as_bytes()) => Some(host),
        (Some(_), None) => return Err(Malformed::BadHost),
        (None, None) => None,
    };
    let authority = request.uri().authority().map(uri::Authority::as_str);
    match (host, authority) {
        (Some(host), Some(other)) if !host.as_bytes().eq_ignore_ascii_case(other.as_bytes()) => {
            Err(Malformed::AuthorityDiffers)
        }
        (Some(_), _) => Ok(()),
        (None, Some(authority)) if request.version() != Version::HTTP_11 => {
            if is_host(authority.as_bytes()) { Ok(()) } else { Err(Malformed::BadHost) }
        }
        (None, _) if request.version() < Version::HTTP_11 => Ok(()),
        (None, _) => Err(Malformed::NoHost),
    }
}

/// True for a host with an optional port. It is stricter than the grammar, which allows characters
/// that separate hosts elsewhere.
fn is_host(text: &[u8]) -> bool {
    let is_name =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let is_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let (host, rest) = match text.strip_prefix(b"[") {
        Some(text) => {
            let (host, rest) = split_after(text, is_address);
            (host, rest.strip_prefix(b"]").unwrap_or(b"["))
        }
        None => split_after(text, is_name),
    };
    !host.is_empty() && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

/// True for a port of up to five digits. The grammar allows none, which is the default port.
fn is_port(text: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let number = text.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?));
    text.len() <= 5 && number.is_some_and(|number| number <= u32::from(u16::MAX))
}

/// Splits a text after the bytes that are part of a host.
fn split_after(text: &[u8], is_part: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len()))
}

/// Finds a fragment (`#`) in the target of an HTTP/1.1 request, which hyper drops without an error.
/// The bytes of a head may arrive in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FragmentScanner {
    #[default]
    Method,
    Target,
    Done,
}

impl FragmentScanner {
    /// True if the target has a fragment.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) -> bool {
        if matches!(self, Self::Method) {
            // Empty lines may precede a request.
            let is_method = |byte: &u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'\r' | b'\n')
            };
            let Some(end) = bytes.iter().position(|byte| !is_method(byte)) else { return false };
            *self = if bytes.get(end) == Some(&b' ') { Self::Target } else { Self::Done };
            bytes = bytes.get(end + 1..).unwrap_or_default();
        }
        if !matches!(self, Self::Target) {
            return false;
        }
        let found = bytes.iter().find(|byte| matches!(byte, b' ' | b'\r' | b'\n' | b'#'));
        if found.is_some() {
            *self = Self::Done;
        }
        found == Some(&b'#')
    }
}

/// Finds a fragment in the target of a pipelined request that arrives with the head before it;
/// returns how many heads end before it. `at_boundary` means that the bytes begin with a request
/// line. Requests after one with a body are not scanned.
pub(super) fn pipelined_fragment(bytes: &[u8], at_boundary: bool) -> Option<u64> {
    // Nearly no request has one. Without an early exit the compiler vectorises the search.
    if !bytes.iter().fold(false, |found, byte| found | (*byte == b'#')) {
        return None;
    }
    let (mut heads, mut awaits_request, mut has_body) = (0, at_boundary, false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_whole = line.ends_with(b"\n");
        let line = line.trim_ascii_end();
        match (awaits_request, line.is_empty()) {
            (true, true) => {}
            (true, false) => {
                if is_request_with_fragment(line, is_whole) {
                    return Some(heads);
                }
                awaits_request = false;
            }
            (false, true) if is_whole => {
                if has_body {
                    return None;
                }
                (heads, awaits_request) = (heads + 1, true);
            }
            (false, true) => {}
            (false, false) => has_body |= announces_body(line),
        }
    }
    None
}

/// A piece may begin within a header line, which must not pass for a request line.
fn is_request_with_fragment(line: &[u8], is_whole: bool) -> bool {
    let mut parts = line.split(|byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    let target = parts.next().unwrap_or_default();
    let version = parts.next().unwrap_or_default();
    method.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
        && (target.starts_with(b"/") || target.starts_with(b"http"))
        && target.contains(&b'#')
        && (!is_whole || version.starts_with(b"HTTP/"))
}

fn announces_body(line: &[u8]) -> bool {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    name.eq_ignore_ascii_case(b"transfer-encoding")
        || name.eq_ignore_ascii_case(b"content-length")
            && value.get(1..).is_some_and(|value| value.trim_ascii() != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragment_in_a_later_target_is_found_and_one_elsewhere_is_not() {
        for (bytes, at_boundary, heads) in [
            ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2#x HTTP/1.1\r\n", false, Some(1)),
            ("GET /1 HTTP/1.1\nA: b\n\nGET /2 HTTP/1.1\n\nGET /3#", false, Some(2)),
            ("GET /2#x HTTP/1.1\r\n", true, Some(0)),
            ("GET /2#x", true, Some(0)),
            ("rer: http://a/#x\r\n", true, None),
            ("of http://a/#x\r\n", true, None),
            ("GET /2#x HTTP/1.1\r\n", false, None),
            ("POST /1 HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /2#x", false, None),
            ("POST /1 HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /2#x", false, Some(1)),
            ("GET /1 HTTP/1.1\r\nA: b#\r\n\r\nGET /2 HTTP/1.1\r\nA: #\r\n\r\n", false, None),
        ] {
            assert_eq!(pipelined_fragment(bytes.as_bytes(), at_boundary), heads, "{bytes:?}");
        }
    }

    fn refusal(version: Version, target: &str, hosts: &[&str]) -> Option<Malformed> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        check(&request.body(()).unwrap()).err()
    }

    #[test]
    fn host_is_a_name_or_an_address_with_an_optional_port() {
        for good in [
            "a",
            "A.b-c_d",
            "127.0.0.1:80",
            "[::1]",
            "[::ffff:1.2.3.4]:65535",
            "a:1",
            "a:",
            "[::1]:",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", "a b", "a,b", "u@a", "a/", "a?b", "a#b", "a:b", "a:123456", "a:65536", "a:99999",
            "a::", "[::1", "[]", "[::1]a", "[::1]:x", "[g::1]", "a\tb", "http://a", "a\\b", "a%41",
            "é", ":80",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn request_names_exactly_one_host() {
        const H1: Version = Version::HTTP_11;
        assert_eq!(refusal(H1, "/", &["a"]), None);
        assert_eq!(refusal(H1, "/", &[]), Some(Malformed::NoHost));
        assert_eq!(refusal(H1, "/", &[""]), Some(Malformed::NoHost));
        assert_eq!(refusal(H1, "http://a/", &[]), Some(Malformed::NoHost));
        assert_eq!(refusal(H1, "/", &["a", "a"]), Some(Malformed::SeveralHosts));
        assert_eq!(refusal(H1, "/", &["a,b"]), Some(Malformed::BadHost));
        assert_eq!(refusal(H1, "https://a/", &["A"]), None);
        assert_eq!(refusal(H1, "http://a:/", &["a:"]), None);
        assert_eq!(refusal(H1, "http://b/", &["a"]), Some(Malformed::AuthorityDiffers));
        assert_eq!(refusal(Version::HTTP_10, "/", &[]), None);
        assert_eq!(refusal(Version::HTTP_2, "https://a/", &[]), None);
        assert_eq!(refusal(Version::HTTP_2, "https://a@b/", &[]), Some(Malformed::BadHost));
        assert_eq!(refusal(Version::HTTP_2, "/", &[]), Some(Malformed::NoHost));
    }

    #[test]
    fn target_is_a_path_or_the_whole_server_for_options() {
        let refusal = |method: Method, target: &str| {
            let request = Request::builder().method(method).uri(target).header(header::HOST, "a");
            check(&request.body(()).unwrap()).err()
        };
        for good in ["/", "//", "/*", "http://a", "https://a/?b"] {
            assert_eq!(refusal(Method::GET, good), None, "{good}");
        }
        assert_eq!(refusal(Method::OPTIONS, "*"), None);
        for bad in ["*", "a", "a:1", "ftp://a/", "urn://a"] {
            assert_eq!(refusal(Method::GET, bad), Some(Malformed::BadTarget), "{bad}");
        }
        assert_eq!(refusal(Method::OPTIONS, "a"), Some(Malformed::BadTarget));
    }

    #[test]
    fn connect_and_trace_are_refused() {
        for (method, refusal) in [
            (Method::CONNECT, Some(Malformed::Method)),
            (Method::TRACE, Some(Malformed::Method)),
            (Method::OPTIONS, None),
        ] {
            let request = Request::builder().method(method).uri("/").header(header::HOST, "a");
            assert_eq!(check(&request.body(()).unwrap()).err(), refusal);
        }
    }

    #[test]
    fn fragment_is_found_in_the_target_only_and_in_any_pieces() {
        for (head, has_fragment) in [
            ("GET /a#b HTTP/1.1\r\n", true),
            ("\r\nM-SEARCH /# HTTP/1.1\r\n", true),
            ("GET http://a/?b#c HTTP/1.1\r\n", true),
            ("GET /a HTTP/1.1\r\nReferer: /a#b\r\n", false),
            ("POST / HTTP/1.1\r\n\r\nPOST /# HTTP/1.1", false),
            ("{\"colour\": \"#fff\"}", false),
        ] {
            for size in 1..head.len() {
                let mut scanner = FragmentScanner::default();
                let found = head.as_bytes().chunks(size).filter(|it| scanner.scan(it)).count();
                assert_eq!(found > 0, has_fragment, "{head:?} by {size}");
            }
        }
    }
}
