//! Forwards only requests that every HTTP implementation reads in the same way.
//!
//! hyper rejects malformed HTTP before this. These checks cover what hyper accepts.

use http::uri::{self, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri, header, request};

use crate::service::proxy::failure::InvalidRequest;

/// The target of a request that can be forwarded.
#[derive(Debug)]
pub(super) struct Target {
    /// In origin form, or `*`.
    pub(super) uri: Uri,
    /// The host of a request without `Host`.
    pub(super) host: Option<HeaderValue>,
}

/// Returns the target of a request, or why the request cannot be forwarded.
pub(super) fn check(head: &request::Parts) -> Result<Target, InvalidRequest> {
    check_framing(&head.headers)?;
    Ok(Target { uri: check_target(head)?, host: host(head)? })
}

/// The body is chunked, or its length is one number, or there is none.
fn check_framing(headers: &HeaderMap) -> Result<(), InvalidRequest> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => {}
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err(InvalidRequest::TransferEncoding),
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    if is_number && lengths.all(|other| other == first) {
        Ok(())
    } else {
        Err(InvalidRequest::ContentLength)
    }
}

/// The host of a request without `Host`: that of its target.
fn host(head: &request::Parts) -> Result<Option<HeaderValue>, InvalidRequest> {
    if head.headers.contains_key(header::HOST) {
        return Ok(None);
    }
    let authority = head.uri.authority().map(|authority| authority.as_str());
    authority.map(HeaderValue::from_str).transpose().map_err(|_| InvalidRequest::BadTarget)
}

/// The target in the form in which an application expects it.
fn check_target(head: &request::Parts) -> Result<Uri, InvalidRequest> {
    let uri = &head.uri;
    if uri.scheme().is_none() && uri.authority().is_some() {
        return Err(InvalidRequest::BadTarget);
    }
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let is_whole_server = path == "*" && head.method == Method::OPTIONS;
    let is_path = uri.path().starts_with('/');
    // hyper accepts some bytes that no URI may contain, and other programs read them differently.
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    if !(is_whole_server || is_path) || !is_plain {
        return Err(InvalidRequest::BadTarget);
    }
    let mut parts = uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    Uri::from_parts(parts).map_err(|_| InvalidRequest::BadTarget)
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};
    use proptest::prelude::*;

    use super::*;

    fn head(version: Version, target: &str, headers: &[(&'static str, &str)]) -> request::Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn refusal(
        version: Version,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Option<InvalidRequest> {
        check(&head(version, target, headers)).err()
    }

    #[test]
    fn a_target_is_passed_on_in_origin_form() {
        let target = |target| {
            let target = check(&head(Version::HTTP_11, target, &[("host", "a")]));
            target.unwrap().uri.to_string()
        };
        assert_eq!(target("/b?c=d"), "/b?c=d");
        assert_eq!(target("//b/../c"), "//b/../c");
        assert_eq!(target("http://a"), "/");
        assert_eq!(target("http://a?b"), "/?b");
        assert_eq!(target("https://a/b?c"), "/b?c");
    }

    #[test]
    fn a_body_is_framed_in_one_way() {
        let framed = |name, value| refusal(Version::HTTP_11, "/", &[("host", "a"), (name, value)]);
        assert_eq!(framed("transfer-encoding", "chunked"), None);
        for value in ["gzip, chunked", "chunked, chunked", "identity", "xchunked", ""] {
            let refusal = framed("transfer-encoding", value);
            assert_eq!(refusal, Some(InvalidRequest::TransferEncoding), "{value}");
        }
        assert_eq!(framed("content-length", "0"), None);
        for value in ["", "+1", "-1", "1 ", "0x1", "1, 1"] {
            let refusal = framed("content-length", value);
            assert_eq!(refusal, Some(InvalidRequest::ContentLength), "{value}");
        }
    }

    proptest! {
        /// However its framing is spelled, a request passes only where there is one way to read it.
        #[test]
        fn a_body_that_could_be_framed_in_two_ways_is_refused(
            encodings in proptest::collection::vec(
                "(chunked|Chunked|CHUNKED|identity|gzip|chunked, ?chunked|gzip, ?chunked|,chunked|chunked;a|)", 0..3),
            lengths in proptest::collection::vec("(0|5|5|05|[+-]5|5,5|5, 5|0x5|5_|5 5|)", 0..4),
        ) {
            let mut headers = vec![("host", "a")];
            headers.extend(encodings.iter().map(|value| ("transfer-encoding", value.as_str())));
            headers.extend(lengths.iter().map(|value| ("content-length", value.as_str())));
            let is_chunked = encodings.len() == 1 && encodings[0].to_lowercase() == "chunked";
            let is_number = |text: &String| text.parse::<u64>().is_ok() && !text.starts_with('+');
            let is_one = lengths.iter().all(is_number) && lengths.windows(2).all(|two| two[0] == two[1]);
            let expected = match (encodings.is_empty() || is_chunked, is_one) {
                (true, true) => None,
                (false, _) => Some(InvalidRequest::TransferEncoding),
                (true, false) => Some(InvalidRequest::ContentLength),
            };
            prop_assert_eq!(refusal(Version::HTTP_11, "/", &headers), expected);
        }
    }
}
