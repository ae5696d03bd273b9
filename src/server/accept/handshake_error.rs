//! The error of a failed handshake, with the rejection to log and the socket to close.

use std::io;

use rustls::{AlertDescription, Error};

use crate::server::buffered::BufferedSocket;
use crate::server::rejections::Rejection;
use crate::trust::{Reason, TlsRejection};

/// Why a handshake failed.
#[derive(Debug)]
pub(in crate::server) enum HandshakeError {
    /// The client connected and left without a byte, as port scans and TCP health checks do.
    LeftSilently,
    /// The client was rejected. The socket, where there is one, still carries an alert or a
    /// response.
    Rejected(Box<Rejection>, Option<BufferedSocket>),
    /// It was a validation by an ACME directory, which is done and closed.
    #[cfg_attr(not(feature = "acme"), expect(dead_code, reason = "nothing is ever validated"))]
    Validation,
}

impl From<Reason> for HandshakeError {
    fn from(reason: Reason) -> Self {
        Self::Rejected(Box::new(reason.into()), None)
    }
}

/// The reason of a failed handshake, from the verifier's verdict if it gave one.
pub(super) fn classify(error: &io::Error, verdict: Option<TlsRejection>) -> Rejection {
    if let Some(TlsRejection { reason, presented, detail }) = verdict {
        return Rejection { reason, presented: Some(presented), detail };
    }
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    let reason = match tls {
        Some(Error::NoCertificatesPresented) => {
            return Reason::NoCertificate.into();
        }
        Some(Error::AlertReceived(
            AlertDescription::CloseNotify | AlertDescription::UserCanceled,
        ))
        | None => Reason::LeftHandshake,
        Some(Error::AlertReceived(_)) => Reason::RefusedByClient,
        Some(_) => Reason::TlsError,
    };
    Rejection { reason, presented: None, detail: Some(error.to_string()) }
}
