//! The trait bound of a service, stated once.

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};

use crate::error::BoxError;

/// A [hyper service](Service) of HTTP requests whose errors and body can be sent between threads.
///
/// It is implemented for every service that fits, and for nothing else.
pub trait HttpService:
    Service<
        Request<Incoming>,
        Response = Response<Self::ResponseBody>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    >
    + Send
    + Sync
    + 'static
    + sealed::Sealed<Self::ResponseBody>
{
    /// The body of its responses.
    type ResponseBody: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<
            Request<Incoming>,
            Response = Response<B>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type ResponseBody = B;
}

mod sealed {
    use super::{Incoming, Request, Response, Service};

    pub trait Sealed<B> {}

    impl<S, B> Sealed<B> for S where S: Service<Request<Incoming>, Response = Response<B>> {}
}
