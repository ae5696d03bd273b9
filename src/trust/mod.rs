//! Which clients are accepted: bytes → certificates → store → verifier → identity.
//!
//! Everything here is a pure function of its arguments and the time that it is given: no file is
//! read, nothing is awaited. The store of one generation never changes. [`TrustStore::admit`] is
//! the one place that decides whether a certificate is accepted.

mod ancient;
mod assessment;
mod builder;
mod certificate;
mod chain;
mod fingerprint;
mod identity;
mod key;
mod loaded;
mod nearest;
pub mod pem;
mod presented;
mod reason;
mod store;
mod usage;
mod validity;
mod verifier;

pub(crate) use ancient::WrittenPeriod;
pub use assessment::{Assessment, State, Urgency};
pub(crate) use assessment::{SOON, assess, assess_server, step_after_end};
pub use builder::TrustStoreBuilder;
pub(crate) use builder::parse_for;
pub use certificate::{Certificate, Summary};
pub use fingerprint::Fingerprint;
pub use identity::ClientIdentity;
pub(crate) use identity::Origin;
pub use key::KeyKind;
pub(crate) use key::unsupported_private_key;
pub(crate) use loaded::LoadedCertificate;
pub use loaded::Role;
pub use nearest::{Nearest, Relation};
pub(crate) use presented::PresentedCertificate;
pub use reason::Reason;
pub(crate) use reason::{VerifyError, in_words, violated_rule};
pub(crate) use store::LatestEnds;
pub use store::TrustStore;
pub(crate) use usage::ConnectionApi;
pub use usage::{ApiUsage, Usage};
#[cfg(feature = "cli")]
pub(crate) use validity::Span;
pub(crate) use validity::{Validity, ValidityState, days_left, rfc3339, system_time, unix_time};
pub use verifier::PinnedClientVerifier;
pub(crate) use verifier::{TlsRejection, take_rejection};

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
