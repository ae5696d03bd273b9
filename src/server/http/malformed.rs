//! Why a request is malformed, as a closed list for the log and the counters.

use http::StatusCode;

/// Why a request did not reach the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Malformed {
    /// hyper cannot parse the method.
    BadMethod,
    /// The version is not HTTP/1.0 or HTTP/1.1.
    BadVersion,
    /// The target is no URI, or has a fragment.
    BadTarget,
    TargetTooLong,
    /// A header line cannot be parsed.
    BadHeader,
    ContentLength,
    TransferEncoding,
    HeadTooLarge,
    TooManyHeaders,
    /// A frame breaks the rules of HTTP/2 for the connection.
    Http2,
    /// There is no `Host`, or it is empty.
    NoHost,
    SeveralHosts,
    /// `Host` is no host with an optional port.
    BadHost,
    /// The target names another authority than `Host`.
    AuthorityDiffers,
    /// CONNECT or TRACE.
    Method,
    /// hyper refuses it in a way that this list does not have.
    Other,
}

impl Malformed {
    /// Every reason, in the order of the enum.
    pub(in crate::server) const ALL: [Self; 16] = [
        Self::BadMethod,
        Self::BadVersion,
        Self::BadTarget,
        Self::TargetTooLong,
        Self::BadHeader,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::HeadTooLarge,
        Self::TooManyHeaders,
        Self::Http2,
        Self::NoHost,
        Self::SeveralHosts,
        Self::BadHost,
        Self::AuthorityDiffers,
        Self::Method,
        Self::Other,
    ];

    /// Its stable name.
    pub(in crate::server) fn as_str(self) -> &'static str {
        match self {
            Self::BadMethod => "bad_method",
            Self::BadVersion => "bad_version",
            Self::BadTarget => "bad_target",
            Self::TargetTooLong => "target_too_long",
            Self::BadHeader => "bad_header",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::Http2 => "http2",
            Self::NoHost => "no_host",
            Self::SeveralHosts => "several_hosts",
            Self::BadHost => "bad_host",
            Self::AuthorityDiffers => "authority_differs",
            Self::Method => "method",
            Self::Other => "other",
        }
    }

    /// The status of the response, where the gate writes it.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client may know.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::NoHost => "The request names no host.",
            Self::SeveralHosts => "The request names more than one host.",
            Self::BadHost => "The request's host is malformed.",
            Self::AuthorityDiffers => "The request's target and host differ.",
            Self::BadTarget => "The request's target is malformed.",
            Self::Method => "The method is not allowed here.",
            Self::TooManyHeaders => "The request has too many header lines.",
            _ => "The request is malformed.",
        }
    }

    /// Why hyper refused a request; `None` if the connection failed otherwise. `head` is what hyper
    /// has read of the request and not parsed.
    pub(super) fn from_hyper(
        error: &hyper::Error,
        head: &[u8],
        max_headers: usize,
    ) -> Option<Self> {
        if let Some(h2) = std::error::Error::source(error).and_then(|it| it.downcast_ref()) {
            let h2: &h2::Error = h2;
            let is_flooding = h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
            return (h2.is_library() && !is_flooding).then_some(Self::Http2);
        }
        if !error.is_parse() {
            return None;
        }
        // Only hyper's texts distinguish these errors; a test pins them.
        Some(match error.to_string().as_str() {
            "invalid HTTP method parsed" => Self::BadMethod,
            text if text.starts_with("invalid HTTP version parsed") => {
                if is_target_split(head) {
                    Self::BadTarget
                } else {
                    Self::BadVersion
                }
            }
            "invalid URI" => Self::BadTarget,
            "URI too long" => Self::TargetTooLong,
            "invalid HTTP header parsed" => Self::BadHeader,
            "invalid content-length parsed" => Self::ContentLength,
            "invalid transfer-encoding parsed" | "unexpected transfer-encoding parsed" => {
                Self::TransferEncoding
            }
            // hyper has one error for both limits.
            "message head is too large" if lines(head).count() > max_headers + 1 => {
                Self::TooManyHeaders
            }
            "message head is too large" => Self::HeadTooLarge,
            _ => Self::Other,
        })
    }
}

/// The lines of a head, the request line among them. The last one may be incomplete.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    // Empty lines may precede a request, and one ends its head.
    lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty())
}

/// True if the request line has a version, and a target with a space in it.
fn is_target_split(head: &[u8]) -> bool {
    let mut parts = lines(head).next().unwrap_or_default().splitn(3, |byte| *byte == b' ');
    let behind = parts.nth(2).unwrap_or_default();
    !behind.starts_with(b"HTTP/") && behind.windows(6).any(|window| window == b" HTTP/")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;
    use std::pin::Pin;

    use http::{Request, Response};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn every_reason_of_a_malformed_request_is_at_its_index() {
        for (index, reason) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }

    async fn refusal(request: &[u8]) -> Option<Malformed> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        let respond = |_: Request<_>| async { Ok::<_, Infallible>(Response::new(String::new())) };
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None).max_header_size(32 << 10);
        let mut connection = builder.serve_connection(TokioIo::new(server), service_fn(respond));
        let error = poll_fn(|context| Pin::new(&mut connection).poll(context)).await.err()?;
        Malformed::from_hyper(&error, &connection.into_parts().read_buf, 100)
    }

    #[tokio::test]
    async fn each_way_in_which_hyper_refuses_a_request_has_its_reason() {
        let with = |header: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
        let many = "a: b\r\n".repeat(101);
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(66_000));
        for (request, reason) in [
            (with("a: b"), None),
            ("G(T / HTTP/1.1\r\n\r\n".to_owned(), Some(Malformed::BadMethod)),
            ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), Some(Malformed::BadTarget)),
            ("\r\nGET /a  HTTP/1.1\r\n\r\n".to_owned(), Some(Malformed::BadTarget)),
            ("GET /a HTTQ/1.1\r\n\r\n".to_owned(), Some(Malformed::BadVersion)),
            ("GET /a b\r\na: b HTTP/1.1\r\n\r\n".to_owned(), Some(Malformed::BadVersion)),
            ("GET / HTTP/3.0\r\n\r\n".to_owned(), Some(Malformed::BadVersion)),
            ("GET /\x01 HTTP/1.1\r\n\r\n".to_owned(), Some(Malformed::BadTarget)),
            ("GET a:b:c HTTP/1.1\r\n\r\n".to_owned(), Some(Malformed::BadTarget)),
            (with("a b: c"), Some(Malformed::BadHeader)),
            (with("a: \x01"), Some(Malformed::BadHeader)),
            (with("content-length: +1"), Some(Malformed::ContentLength)),
            (with("transfer-encoding: gzip"), Some(Malformed::TransferEncoding)),
            (with(&many), Some(Malformed::TooManyHeaders)),
            (with(&"a: b\r\n".repeat(97)), None),
            (with(&format!("a: {}", "b".repeat(40_000))), Some(Malformed::HeadTooLarge)),
            (long, Some(Malformed::HeadTooLarge)),
        ] {
            let head = request.get(..60).unwrap_or(&request);
            assert_eq!(refusal(request.as_bytes()).await, reason, "{head:?}");
        }
    }
}
