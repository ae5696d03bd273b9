//! `hello world`, as AWS's example answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::service::Service;
use pin_project_lite::pin_project;

/// Answers every request `200` and `hello world`, once its body has been read and dropped; `413`
/// where that is larger than 10 MiB, the largest payload that API Gateway passes on.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    max_body: u64,
}

impl Default for Hello {
    fn default() -> Self {
        Self { max_body: super::MAX_BODY }
    }
}

impl Hello {
    /// How many bytes the body of a request may have. 10 MiB.
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }
}

impl<B> Service<Request<B>> for Hello
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    type Response = Response<HelloBody<B>>;
    type Error = Infallible;
    type Future = Answer<B>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let body = request.into_body();
        if body.is_end_stream() {
            return Answer::Now;
        }
        let most = usize::try_from(self.max_body).unwrap_or(usize::MAX);
        let mut body = Box::pin(Limited::new(body, most));
        Answer::Later(Box::pin(async move {
            while let Some(frame) = body.frame().await {
                if let Err(error) = frame {
                    let status = match error.is::<LengthLimitError>() {
                        true => StatusCode::PAYLOAD_TOO_LARGE,
                        false => StatusCode::BAD_REQUEST,
                    };
                    return Some((status, body));
                }
            }
            None
        }))
    }
}

/// What is left of a body that cannot be read to its end, and why not.
type Unread<B> = Option<(StatusCode, Pin<Box<Limited<B>>>)>;

/// The answer that comes when the request's body has been read.
pub enum Answer<B> {
    /// There is no body.
    Now,
    /// The body, if it was not read to its end.
    Later(Pin<Box<dyn Future<Output = Unread<B>> + Send>>),
}

impl<B> Future for Answer<B> {
    type Output = Result<Response<HelloBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let unread = match &mut *self {
            Self::Now => None,
            Self::Later(read) => ready!(read.as_mut().poll(context)),
        };
        let (status, text) = match &unread {
            None => (StatusCode::OK, "hello world\n"),
            Some((StatusCode::PAYLOAD_TOO_LARGE, _)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n")
            }
            Some((status, _)) => (*status, "the body cannot be read\n"),
        };
        let mut response = Response::new(HelloBody { text: Full::from(text), unread });
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Poll::Ready(Ok(response))
    }
}

pin_project! {
    /// The answer's text. It keeps the rest of a request's body until it has been sent: an HTTP/2
    /// stream whose body is dropped before it has been answered is reset, and its answer lost.
    pub struct HelloBody<B> {
        #[pin]
        text: Full<Bytes>,
        unread: Unread<B>,
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
