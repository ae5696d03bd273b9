//! Which clients are accepted: bytes → certificates → store → verifier → identity.
//!
//! Everything here is a pure function of its arguments and the time that it is given: no file is
//! read, nothing is awaited. The store of one generation never changes. [`TrustStore::admit`] is
//! the one place that decides whether a certificate is accepted.

mod assessment;
mod certificate;
mod identity;
mod nearest;
pub mod pem;
mod reason;
mod store;
mod usage;
mod validity;
mod verifier;

pub use assessment::{Assessment, State, Urgency};
pub(crate) use assessment::{SOON, assess, assess_server};
pub use certificate::{Certificate, Fingerprint, KeyKind, Summary};
pub use identity::ClientIdentity;
pub(crate) use identity::Origin;
pub use nearest::{Nearest, Relation};
pub use reason::Reason;
pub(crate) use reason::VerifyError;
pub use store::Role;
pub(crate) use store::{Loaded, TrustStore, is_anchor};
pub(crate) use usage::ConnectionApi;
pub use usage::{ApiUsage, Usage};
pub(crate) use validity::{
    Span, Validity, ValidityState, days_left, rfc3339, system_time, unix_time,
};
pub(crate) use verifier::{PinnedClientVerifier, Presented, take_rejection};

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
