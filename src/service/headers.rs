//! The headers that a proxy passes on, strips and adds.
//!
//! The rules by name are the table in `rules.rs`, those of the operator are in `operator.rs`. The
//! functions are pure: a service of your own may use them as [`Proxy`](crate::service::Proxy) does.

mod names;
mod operator;
mod rules;

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::{Version, request};

use crate::ClientIdentity;
use crate::service::headers::names::HOP_BY_HOP;
use crate::service::headers::operator::Custom;
use crate::service::headers::rules::is_stripped;

pub use names::{API_ID, CLIENT_CERT, FINGERPRINT, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
pub use operator::{BadHeaderRule, HeaderRules};
pub use rules::is_identity;

/// The headers of a request to an application: those that the client sent, in their order, without
/// those that the table strips, and with the verified identity and address.
///
/// They include `Host`, if the client sent it, but do not frame the body.
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
    HeaderRules::default().for_application(head, client, peer)
}

impl HeaderRules {
    /// As [`for_application`], with these rules.
    pub fn for_application(
        &self,
        head: &request::Parts,
        client: &ClientIdentity,
        peer: Option<IpAddr>,
    ) -> HeaderMap {
        let custom = self.get();
        let received = &head.headers;
        let nominating = nominating_values(received);
        let mut headers = HeaderMap::with_capacity(received.len() + 7);
        let (mut forwarded_for, mut via) = (List::default(), List::default());
        for (name, value) in received {
            let is_passed = custom.is_some_and(|custom| custom.passes(name));
            if is_stripped(name) && !is_passed || is_nominated(&nominating, name) {
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
        // The caller's value is there only where a rule passes it.
        if let Entry::Vacant(vacant) = headers.entry(FORWARDED_PROTO) {
            vacant.insert(HeaderValue::from_static("https"));
        }
        if let Some(authority) = authority(head)
            && let Entry::Vacant(vacant) = headers.entry(FORWARDED_HOST)
        {
            vacant.insert(authority);
        }
        let received_by = HeaderValue::from_static(received_by(head.version));
        if !via.0.is_empty() {
            via.push(received_by.as_bytes());
        }
        headers.insert(header::VIA, via.value().unwrap_or(received_by));
        if let Some(custom) = custom {
            custom.apply(&mut headers);
        }
        headers
    }
}

impl Custom {
    /// Strips and sets what the operator named, those that portcullis sets itself included.
    fn apply(&self, headers: &mut HeaderMap) {
        remove_all(headers, |name| self.replaces(name));
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// The host of a request, from `Host` or from its target.
fn authority(head: &request::Parts) -> Option<HeaderValue> {
    let host = head.headers.get(header::HOST).cloned();
    host.or_else(|| HeaderValue::from_str(head.uri.authority()?.as_str()).ok())
}

/// Removes headers and keeps the order of the others, which `HeaderMap::remove` does not.
fn remove_all(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&is_removed) {
        return;
    }
    let mut last = None;
    let all = std::mem::take(headers);
    headers.reserve(all.len());
    for (name, value) in all {
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| !is_removed(name)) {
            headers.append(name.clone(), value);
        }
    }
}

/// The header values that identify a client: the certificate, then its fingerprint.
fn certificate_headers(client: &ClientIdentity) -> [HeaderValue; 2] {
    let certificate = format!(":{}:", STANDARD.encode(client.der()));
    let fingerprint = client.fingerprint().to_string();
    // Base64 and hex are always valid header values.
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

/// The values of several headers, joined into one.
#[derive(Default)]
struct List(Vec<u8>);

impl List {
    /// Room for one more address, so that the list rarely grows.
    const ROOM: usize = 64;

    fn push(&mut self, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        match self.0.is_empty() {
            true => self.0.reserve(value.len() + Self::ROOM),
            false => self.0.extend_from_slice(b", "),
        }
        self.0.extend_from_slice(value);
    }

    fn push_address(&mut self, address: IpAddr) {
        match address {
            // Formatting with `Display` costs more than all other headers together.
            IpAddr::V4(address) => {
                let [first, rest @ ..] = address.octets();
                self.push(itoa::Buffer::new().format(first).as_bytes());
                for byte in rest {
                    self.0.push(b'.');
                    self.0.extend_from_slice(itoa::Buffer::new().format(byte).as_bytes());
                }
            }
            IpAddr::V6(address) => self.push(address.to_string().as_bytes()),
        }
    }

    fn value(self) -> Option<HeaderValue> {
        // Valid values joined by a comma are a valid value.
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

/// Strips the headers of a response that belong to the connection it came by.
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
    let nominating = nominating_values(headers);
    remove_all(headers, |name| {
        matches!(name.as_str().as_bytes().first(), Some(b'c' | b'h' | b'k' | b'p' | b't' | b'u'))
            && HOP_BY_HOP.contains(&name.as_str())
            || is_nominated(&nominating, name)
    });
}

/// Strips trailers that frame, route or authorise a message (RFC 9110 section 6.5.1), and those
/// that a request may not have as headers.
pub fn for_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| {
        is_stripped(name)
            || [FORWARDED_FOR, API_ID].contains(name)
            || [header::HOST, header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE]
                .contains(name)
            || [header::TRAILER, header::VIA, header::CONTENT_TYPE].contains(name)
            || [header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name)
    });
}

/// The values of `Connection` that may name headers: most name none.
fn nominating_values(headers: &HeaderMap) -> Vec<HeaderValue> {
    const COMMON: [&[u8]; 2] = [b"close", b"keep-alive"];
    let values = headers.get_all(header::CONNECTION);
    let is_common = |value: &HeaderValue| {
        COMMON.iter().any(|common| value.as_bytes().eq_ignore_ascii_case(common))
    };
    match values.iter().all(is_common) {
        true => Vec::new(),
        false => values.iter().cloned().collect(),
    }
}

/// True if `Connection` names this header as hop-by-hop. `Host` cannot be named: without it the
/// request would be another one.
fn is_nominated(nominating: &[HeaderValue], name: &HeaderName) -> bool {
    nominating.iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|other| other.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }) && *name != header::HOST
}

#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;
