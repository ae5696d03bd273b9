//! Who is let in: bytes → certificates → store → verifier → identity.
//!
//! Everything here is a pure function of its arguments and the time it is given: no file is read,
//! nothing is waited for. The store of one generation never changes; [`TrustStore::admit`] is the
//! one place in which it is decided whether a certificate gets in.

mod certificate;
mod identity;
pub mod pem;
mod refusal;
mod store;
mod verifier;

pub use certificate::{Certificate, Fingerprint, KeyKind, Summary};
pub(crate) use certificate::{Validity, rfc3339, system_time};
pub use identity::ClientIdentity;
pub(crate) use identity::Origin;
pub use refusal::Reason;
pub(crate) use refusal::Refusal;
pub use store::Role;
pub(crate) use store::{Loaded, TrustStore, is_anchor};
pub(crate) use verifier::{PinVerifier, Presented, take_refused};

#[cfg(test)]
mod tests;
