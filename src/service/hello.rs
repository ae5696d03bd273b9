//! `hello world`, the response of AWS's Node.js example.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::service::Service;

use crate::error::BoxError;
use crate::problem::{self, DiscardLimit, KeepUnread};
use crate::request_context::{RequestContext, log_request};
use crate::service::body_timeout::{BodyStalled, BodyTimeout, MAX_BODY};

/// Reads and drops each request's body, then responds `200` and `hello world`; `413` to a body
/// larger than 10 MiB, the largest payload of API Gateway, and `408` to one that stalls.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    max_body: u64,
    body_timeout: Duration,
}

impl Default for Hello {
    fn default() -> Self {
        Self { max_body: MAX_BODY, body_timeout: Duration::from_secs(30) }
    }
}

impl Hello {
    /// The largest request body in bytes. 10 MiB.
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// The longest pause within a request's body. 30 s.
    #[must_use]
    pub fn body_timeout(mut self, limit: Duration) -> Self {
        self.body_timeout = limit;
        self
    }
}

impl<B> Service<Request<B>> for Hello
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<HelloBody<B>>;
    type Error = Infallible;
    type Future = HelloFuture<B>;

    fn call(&self, request: Request<B>) -> Self::Future {
        if request.body().is_end_stream() {
            return HelloFuture::Ready;
        }
        let context = RequestContext::of(&request);
        let version = request.version();
        let limit = usize::try_from(self.max_body).unwrap_or(usize::MAX);
        let max_body = self.max_body;
        let is_too_large = request.body().size_hint().lower() > self.max_body;
        let body = BodyTimeout::new(request.into_body(), self.body_timeout);
        let mut body = Box::pin(Limited::new(body, limit));
        HelloFuture::Reading(Box::pin(async move {
            if is_too_large {
                return Some(Unread {
                    body,
                    failure: Failure::TooLarge,
                    context,
                    version,
                    max_body,
                });
            }
            while let Some(frame) = body.frame().await {
                if let Err(error) = frame {
                    let failure = Failure::of(&error);
                    return Some(Unread { body, failure, context, version, max_body });
                }
            }
            None
        }))
    }
}

type HelloRequestBody<B> = Pin<Box<Limited<BodyTimeout<B>>>>;

/// The body of a response of [`Hello`].
pub type HelloBody<B> = KeepUnread<Full<Bytes>, HelloRequestBody<B>>;

/// A request whose body was not read to its end.
pub struct Unread<B> {
    body: HelloRequestBody<B>,
    failure: Failure,
    context: RequestContext,
    version: Version,
    max_body: u64,
}

/// The response of [`Hello`], once the request's body has been read.
pub enum HelloFuture<B> {
    /// The request has no body.
    Ready,
    /// The body is being read. It yields the request if the body cannot be read to its end.
    Reading(Pin<Box<dyn Future<Output = Option<Unread<B>>> + Send>>),
}

impl<B: Body<Error: Into<BoxError>>> Future for HelloFuture<B> {
    type Output = Result<Response<HelloBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let unread = match &mut *self {
            Self::Ready => None,
            Self::Reading(read) => ready!(read.as_mut().poll(context)),
        };
        if let Some(unread) = unread {
            return Poll::Ready(Ok(unread.refuse()));
        }
        let mut response = Response::new(HelloBody::new(Full::from("hello world\n"), None));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Poll::Ready(Ok(response))
    }
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    TooLarge,
    Stalled,
    Broken,
}

impl Failure {
    fn of(error: &BoxError) -> Self {
        match error {
            error if error.is::<LengthLimitError>() => Self::TooLarge,
            error if error.is::<BodyStalled>() => Self::Stalled,
            _ => Self::Broken,
        }
    }
}

impl<B: Body<Error: Into<BoxError>>> Unread<B> {
    fn refuse(self) -> Response<HelloBody<B>> {
        let (status, reason, detail) = match self.failure {
            Failure::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large.")
            }
            Failure::Stalled => {
                (StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body did not arrive in time.")
            }
            Failure::Broken => {
                (StatusCode::BAD_REQUEST, "body_broken", "The body is malformed or incomplete.")
            }
        };
        let number = status.as_u16();
        log_request!(info, &self.context, "request_refused", reason, status = number);
        let limit = DiscardLimit(self.max_body);
        let mut response = problem::refuse(status, detail, &self.context, self.version, self.body);
        response.extensions_mut().insert(limit);
        response
    }
}
