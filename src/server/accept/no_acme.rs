//! Replaces `acme.rs` in a build without the feature `acme`. The type has no value, so the
//! handshake's branch for validations compiles to nothing.

use tokio::time::Instant;
use tokio_rustls::server::Accept;

use crate::reload::Current;
use crate::server::accept::handshake_error::HandshakeError;
use crate::server::accept::limiter::HandshakeLimiter;
use crate::server::buffered::BufferedSocket;

#[derive(Debug)]
pub(crate) enum Challenges {}

impl Challenges {
    pub(super) fn is_open(&self) -> bool {
        match *self {}
    }
}

pub(super) async fn begin(
    _socket: BufferedSocket,
    challenges: &Challenges,
    _current: &Current,
    _limiter: &HandshakeLimiter,
    _deadline: Instant,
) -> Result<Accept<BufferedSocket>, HandshakeError> {
    match *challenges {}
}
