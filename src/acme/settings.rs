//! What to order, as the flags say.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

/// What to order, and from whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The names, in lower case.
    pub domains: Vec<String>,
    /// The e-mail address of the account.
    pub email: Option<String>,
    /// The URL of the directory.
    pub directory: Uri,
    /// A PEM file of the CA of the directory's own certificate; the system's CAs without it.
    pub ca: Option<PathBuf>,
    /// Where certificate, keys and history are kept.
    pub cache: PathBuf,
    /// What kind of key is made for each certificate.
    pub key: KeyType,
    /// How long the first certificate may take.
    pub timeout: Duration,
    /// Whether a load balancer stands before this server.
    pub is_balanced: bool,
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// RSA of 2048 bits: AWS's support page warns of more.
    Rsa2048,
    /// ECDSA on P-256, whose handshakes cost a third.
    P256,
}
