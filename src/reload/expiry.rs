//! Telling, long before, that a certificate is about to end.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tracing::warn;

use crate::reload::generation::Generation;
use crate::trust::{Fingerprint, Loaded, Role, Summary, rfc3339};

const DAY: u64 = 24 * 60 * 60;
/// From then on before its end a certificate is said to be expiring.
const FROM: Duration = Duration::from_secs(60 * DAY);

/// When each certificate was last said to be expiring.
#[derive(Debug, Default)]
pub(super) struct Warnings(HashMap<Fingerprint, UnixTime>);

/// What is to come after a certificate that ends.
#[derive(Clone, Copy)]
enum Successor {
    /// One that ends later.
    Loaded,
    /// Nothing is loaded.
    Missing,
    /// The server's own is replaced.
    Renewal,
}

impl Warnings {
    /// Says which certificates end soon: daily from 60 days before, hourly in the last day.
    pub(super) fn say(&mut self, generation: &Generation, file: &Path, now: UnixTime) {
        let certificates = generation.store.certificates();
        let server = generation.identity.summary.fingerprint;
        if !self.0.is_empty() {
            let fingerprint = |loaded: &Loaded| loaded.certificate.summary().fingerprint;
            let known: HashSet<_> = certificates.iter().map(fingerprint).chain([server]).collect();
            self.0.retain(|fingerprint, _| known.contains(fingerprint));
        }
        let latest =
            [Role::Pin, Role::Anchor].map(|role| (role, generation.store.latest_end(role)));
        let latest = HashMap::from(latest);
        for loaded in certificates {
            let summary = loaded.certificate.summary();
            // The one that ends last has nothing loaded that could take its place.
            let latest = latest.get(&loaded.role).copied().flatten();
            let successor = match Some(summary.validity.not_after) < latest {
                true => Successor::Loaded,
                false => Successor::Missing,
            };
            self.say_one(summary, &loaded.file, successor, now);
        }
        self.say_one(&generation.identity.summary, file, Successor::Renewal, now);
    }

    fn say_one(&mut self, summary: &Summary, file: &Path, successor: Successor, now: UnixTime) {
        let Some(left) = summary.validity.not_after.as_secs().checked_sub(now.as_secs()) else {
            return;
        };
        if left > FROM.as_secs() {
            return;
        }
        let every = if left <= DAY { DAY / 24 } else { DAY };
        let said = self.0.get(&summary.fingerprint);
        if said.is_some_and(|said| now.as_secs().abs_diff(said.as_secs()) < every) {
            return;
        }
        self.0.insert(summary.fingerprint, now);
        let remedy = match successor {
            Successor::Loaded => "its successor is loaded; remove this one when it is out of use",
            Successor::Missing => {
                "no successor is loaded: generate the next one and put it beside this"
            }
            Successor::Renewal => "renew the server's certificate in place",
        };
        warn!(
            file = %file.display(),
            fingerprint = %summary.fingerprint,
            not_after = rfc3339(summary.validity.not_after),
            days_left = left / DAY,
            remedy,
            "certificate_expiring"
        );
    }
}
