//! What answers: a greeting, or an application behind a proxy; and who may ask what.

mod api_id;
mod authorize;
mod body_timeout;
pub mod headers;
mod hello;
mod problem;
pub mod proxy;

pub use api_id::{ApiId, ApiIdLayer};
pub use authorize::{Authorize, Authorized};
pub use body_timeout::{BodyStalled, BodyTimeout};
pub use hello::Hello;
pub use problem::RequestId;
pub use proxy::{Proxy, Upstream};

/// The most that a request's body may have unless told otherwise: the largest payload that API
/// Gateway passes on.
const MAX_BODY: u64 = 10 << 20;
