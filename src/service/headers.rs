//! Which headers pass a proxy, and what it adds to them.
//!
//! For applications that do not speak TLS themselves. The functions are pure: a service of your own
//! may use them as [`Proxy`](crate::service::Proxy) does.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::{Version, request};

use crate::ClientIdentity;

/// The certificate of the client, as RFC 9440 has it: its DER in base64, between colons.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The SHA-256 of that DER in lower-case hex.
pub const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

/// The address of the client, behind those that stood there before.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// `https`, always.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The API of API Gateway that a request came by, as it says itself.
pub const API_ID: HeaderName = HeaderName::from_static("x-amzn-apigateway-api-id");

/// Of an answer: meant for one connection and not for the message (RFC 9110 section 7.6.1, and
/// those that were hop-by-hop by name before). `Trailer` is not among them: it says what stands
/// behind the body.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What is said of a header of a request by its name, folded.
enum Rule {
    /// By one of this name, and whatever it goes on with, somebody tells an application who the
    /// client is: AWS, Apache, Azure, Cloudflare, Envoy, HAProxy, nginx, Traefik and RFC 9440.
    Identity(&'static str),
    /// One of this name is meant for one connection, or is made anew, and its former value must not
    /// reach an application.
    Ends(&'static str),
    /// It passes in this one right spelling, and in none that an application may take for it.
    NoLookalike(&'static str),
}

/// The rules that a name may fall under. The first and the third character tell nearly all names
/// apart from all of these.
fn rules(name: &[u8]) -> &'static [Rule] {
    use Rule::{Ends, Identity, NoLookalike};

    let at = |index| name.get(index).map_or(0, |byte| fold(*byte));
    match (at(0), at(2)) {
        (b'c', b'-') => &[Identity("cf-client-cert")],
        (b'c', b'i') => &[Identity("client-cert")],
        (b'c', b'n') => &[Ends("connection"), Ends("content-length")],
        (b'e', b'p') => &[Ends("expect")],
        (b'f', b'r') => &[Ends("forwarded")],
        (b'h', b't') => &[Ends("http2-settings")],
        (b'k', b'e') => &[Ends("keep-alive")],
        (b'p', b'o') => {
            &[Ends("proxy-authenticate"), Ends("proxy-authorization"), Ends("proxy-connection")]
        }
        (b's', b'l') => &[Identity("ssl-client")],
        (b't', 0) => &[Ends("te")],
        (b't', b'a') => &[Ends("transfer-encoding")],
        (b'u', b'g') => &[Ends("upgrade")],
        (b'x', b'a') => &[
            Identity("x-amzn-mtls-"),
            Identity("x-arr-clientcert"),
            NoLookalike("x-amzn-apigateway-api-id"),
        ],
        (b'x', b'c') => {
            &[Identity("x-client-cert"), Identity("x-client-dn"), Identity("x-client-verif")]
        }
        (b'x', b'f') => &[
            Identity("x-forwarded-client-cert"),
            Identity("x-forwarded-tls-client"),
            Ends("x-forwarded-proto"),
            NoLookalike("x-forwarded-for"),
        ],
        (b'x', b'm') => &[Identity("x-mtls-")],
        (b'x', b'r') => &[Ends("x-real-ip")],
        (b'x', b's') => &[Identity("x-ssl")],
        (b'x', b't') => &[Identity("x-tls-")],
        _ => &[],
    }
}

/// Whether a header could tell an application who the client is, in any spelling that it might fold
/// together with one that does: CGI, WSGI and what came after them take `X_SSL_Client` for
/// `X-SSL-Client`, and some do so with every character that is neither a letter nor a digit.
///
/// ```
/// use portcullis::service::headers::is_identity;
///
/// assert!(is_identity("client-cert"));
/// assert!(is_identity("X_SSL.Client-Verify"));
/// assert!(!is_identity("x-forwarded-port"));
/// ```
pub fn is_identity(name: &str) -> bool {
    let name = name.as_bytes();
    rules(name).iter().any(|rule| matches!(rule, Rule::Identity(prefix) if begins(name, prefix)))
}

/// Whether a header of a request ends at a proxy, whatever `Connection` says.
fn ends_here(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is = |other: &str| name.len() == other.len() && begins(name, other);
    rules(name).iter().any(|rule| match rule {
        Rule::Identity(prefix) => begins(name, prefix),
        Rule::Ends(other) => is(other),
        Rule::NoLookalike(right) => name != right.as_bytes() && is(right),
    })
}

fn fold(character: u8) -> u8 {
    if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { b'-' }
}

/// Whether a name, folded, begins with this.
fn begins(name: &[u8], prefix: &str) -> bool {
    // From the end: the beginnings of many are alike.
    let are_alike = |(one, other): (&u8, u8)| fold(*one) == other;
    let beginning = name.get(..prefix.len());
    beginning.is_some_and(|it| it.iter().rev().zip(prefix.bytes().rev()).all(are_alike))
}

/// The headers with which a request goes on to an application: those it came with, in their order,
/// without those that end here, and with what is known of the client.
///
/// How long the body is is not among them: that follows from the body. `Host` is, if it came.
///
/// ```
/// # fn example(head: &http::request::Parts, client: &portcullis::ClientIdentity) {
/// use portcullis::service::headers;
///
/// let peer = "192.0.2.7".parse().ok();
/// let headers = headers::for_application(head, client, peer);
/// assert_eq!(headers[&headers::FORWARDED_PROTO], "https");
/// # }
/// ```
pub fn for_application(
    head: &request::Parts,
    client: &ClientIdentity,
    peer: Option<IpAddr>,
) -> HeaderMap {
    let came = &head.headers;
    let naming = naming(came);
    let mut headers = HeaderMap::with_capacity(came.len() + 6);
    let (mut forwarded_for, mut via) = (List::default(), List::default());
    for (name, value) in came {
        if ends_here(name) || is_named(&naming, name) {
            continue;
        }
        if *name == FORWARDED_FOR {
            forwarded_for.push(value.as_bytes());
        } else if *name == header::VIA {
            via.push(value.as_bytes());
        } else if *name == header::COOKIE && head.version == Version::HTTP_2 {
            join_cookie(&mut headers, value);
        } else {
            headers.append(name.clone(), value.clone());
        }
    }
    let [certificate, fingerprint] = client.as_headers(certificate_headers);
    headers.insert(CLIENT_CERT, certificate.clone());
    headers.insert(FINGERPRINT, fingerprint.clone());
    if let Some(peer) = peer {
        forwarded_for.push_address(peer.to_canonical());
    }
    if let Some(all) = forwarded_for.value() {
        headers.insert(FORWARDED_FOR, all);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    let received_by = HeaderValue::from_static(received_by(head.version));
    if !via.0.is_empty() {
        via.push(received_by.as_bytes());
    }
    headers.insert(header::VIA, via.value().unwrap_or(received_by));
    headers
}

/// The header values that name a client: the certificate, then its fingerprint.
fn certificate_headers(client: &ClientIdentity) -> [HeaderValue; 2] {
    let certificate = format!(":{}:", STANDARD.encode(client.der()));
    let fingerprint = client.fingerprint().to_string();
    // Both are letters, digits and a few signs: there is no other way.
    [certificate, fingerprint]
        .map(|value| HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("")))
}

fn received_by(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2.0 portcullis",
        Version::HTTP_10 => "1.0 portcullis",
        _ => "1.1 portcullis",
    }
}

/// The values of several headers as that of one.
#[derive(Default)]
struct List(Vec<u8>);

impl List {
    /// What an address more takes, so that it rarely has to grow.
    const ROOM: usize = 64;

    fn push(&mut self, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        if !self.0.is_empty() {
            self.0.extend_from_slice(b", ");
        }
        self.0.reserve(value.len() + Self::ROOM);
        self.0.extend_from_slice(value);
    }

    fn push_address(&mut self, address: IpAddr) {
        match address {
            // Nearly all are; to format one takes longer than all other headers together.
            IpAddr::V4(address) => {
                let [first, rest @ ..] = address.octets();
                self.push(itoa::Buffer::new().format(first).as_bytes());
                for octet in rest {
                    self.0.push(b'.');
                    self.0.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
                }
            }
            IpAddr::V6(address) => self.push(address.to_string().as_bytes()),
        }
    }

    fn value(self) -> Option<HeaderValue> {
        // What came were values, and what joins them is allowed in one.
        HeaderValue::from_maybe_shared(Bytes::from(self.0)).ok().filter(|value| !value.is_empty())
    }
}

/// HTTP/2 may split a cookie into several headers, HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookie(headers: &mut HeaderMap, value: &HeaderValue) {
    match headers.entry(header::COOKIE) {
        Entry::Vacant(vacant) => {
            vacant.insert(value.clone());
        }
        Entry::Occupied(mut cookie) => {
            let joined = [cookie.get().as_bytes(), b"; ", value.as_bytes()].concat();
            if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
                cookie.insert(joined);
            }
        }
    }
}

/// Takes out of the headers of an answer what was meant for the connection that it came by.
///
/// ```
/// use http::{HeaderMap, HeaderName, HeaderValue};
///
/// let mut headers = HeaderMap::new();
/// for (name, value) in [("connection", "keep-alive, x-hop"), ("x-hop", "1"), ("x-end", "2")] {
///     headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
/// }
/// portcullis::service::headers::for_client(&mut headers);
/// assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-end"]);
/// ```
pub fn for_client(headers: &mut HeaderMap) {
    let naming = naming(headers);
    let goes = |name: &HeaderName| {
        matches!(name.as_str().as_bytes().first(), Some(b'c' | b'h' | b'k' | b'p' | b't' | b'u'))
            && HOP_BY_HOP.contains(&name.as_str())
            || is_named(&naming, name)
    };
    if headers.keys().any(goes) {
        // Removing one by one would not keep the order of those that stay.
        let mut last = None;
        let came = std::mem::take(headers);
        headers.reserve(came.len());
        for (name, value) in came {
            last = name.or(last);
            if let Some(name) = last.as_ref().filter(|name| !goes(name)) {
                headers.append(name.clone(), value);
            }
        }
    }
}

/// Takes out of the trailers of a message what must not stand there: whatever frames, routes or
/// authorises a message (RFC 9110 section 6.5.1), and all that a header may not tell either.
pub fn for_trailers(trailers: &mut HeaderMap) {
    let out = |name: &HeaderName| {
        ends_here(name)
            || [FORWARDED_FOR, API_ID].contains(name)
            || [header::HOST, header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE]
                .contains(name)
            || [header::TRAILER, header::VIA, header::CONTENT_TYPE].contains(name)
            || [header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name)
    };
    let gone: Vec<_> = trailers.keys().filter(|name| out(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// Those headers called `Connection` that name headers: most name none.
fn naming(headers: &HeaderMap) -> Vec<HeaderValue> {
    let values = headers.get_all(header::CONNECTION).iter();
    let is_common = |value: &HeaderValue| {
        COMMON.iter().any(|common| value.as_bytes().eq_ignore_ascii_case(common))
    };
    values.filter(|value| !is_common(value)).cloned().collect()
}

/// What `Connection` says most of the time.
const COMMON: [&[u8]; 2] = [b"close", b"keep-alive"];

/// Whether `Connection` names a header. It cannot name `Host`: without that a request would be
/// another one.
fn is_named(naming: &[HeaderValue], name: &HeaderName) -> bool {
    naming.iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|other| other.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }) && *name != header::HOST
}

#[cfg(test)]
mod tests;
