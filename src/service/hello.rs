//! `hello world`, as AWS's example answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::service::Service;
use pin_project_lite::pin_project;

use crate::service::{BodyStalled, BodyTimeout};

/// Answers every request `200` and `hello world`, once its body has been read and dropped; `413`
/// where that is larger than 10 MiB, the largest payload that API Gateway passes on, and `408`
/// where nothing more of it comes.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    max_body: u64,
    body_timeout: Duration,
}

impl Default for Hello {
    fn default() -> Self {
        Self { max_body: super::MAX_BODY, body_timeout: Duration::from_secs(30) }
    }
}

impl Hello {
    /// How many bytes the body of a request may have. 10 MiB.
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// How long nothing may come of a request's body. 30 s.
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
        let body = request.into_body();
        if body.is_end_stream() {
            return HelloFuture::Now;
        }
        let most = usize::try_from(self.max_body).unwrap_or(usize::MAX);
        let mut body = Box::pin(Limited::new(BodyTimeout::new(body, self.body_timeout), most));
        HelloFuture::Later(Box::pin(async move {
            while let Some(frame) = body.frame().await {
                if let Err(error) = frame {
                    return Some((body, error));
                }
            }
            None
        }))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

type HelloRequestBody<B> = Pin<Box<Limited<BodyTimeout<B>>>>;

/// What is left of a body that was not read to its end, and why it was not.
type Unread<B> = Option<(HelloRequestBody<B>, BoxError)>;

/// The answer that comes when the request's body has been read.
pub enum HelloFuture<B> {
    /// There is no body.
    Now,
    /// What of the body could not be read.
    Later(Pin<Box<dyn Future<Output = Unread<B>> + Send>>),
}

impl<B> Future for HelloFuture<B> {
    type Output = Result<Response<HelloBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let unread = match &mut *self {
            Self::Now => None,
            Self::Later(read) => ready!(read.as_mut().poll(context)),
        };
        let (status, text) = match &unread {
            None => (StatusCode::OK, "hello world\n"),
            Some((_, error)) => why_unread(error),
        };
        let unread = unread.map(|(body, _)| body);
        let mut response = Response::new(HelloBody { text: Full::from(text), unread });
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Poll::Ready(Ok(response))
    }
}

fn why_unread(error: &BoxError) -> (StatusCode, &'static str) {
    if error.is::<LengthLimitError>() {
        (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n")
    } else if error.is::<BodyStalled>() {
        (StatusCode::REQUEST_TIMEOUT, "nothing more of the body came\n")
    } else {
        (StatusCode::BAD_REQUEST, "the body could not be read\n")
    }
}

pin_project! {
    /// The answer's text. It keeps the rest of a request's body until it has been sent: an HTTP/2
    /// stream whose body is dropped before it has been answered is reset, and its answer lost.
    pub struct HelloBody<B> {
        #[pin]
        text: Full<Bytes>,
        unread: Option<HelloRequestBody<B>>,
    }
}

impl<B> Body for HelloBody<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.project().text.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.text.size_hint()
    }
}
