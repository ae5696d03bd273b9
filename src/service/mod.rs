//! Services: `hello world`, the proxy to an application, and layers that restrict requests.

mod api_id;
mod authorize;
mod body_timeout;
pub mod headers;
mod hello;
pub mod proxy;

pub use api_id::{ApiId, ApiIdLayer};
pub use authorize::{Authorize, Authorized};
pub use body_timeout::{BodyStalled, BodyTimeout};
pub use hello::Hello;
pub use proxy::{Proxy, Upstream};

pub use crate::request_context::RequestId;
