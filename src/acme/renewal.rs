//! The renewal loop: waits until an order is due, then orders, judges, stores and activates.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use instant_acme::{CertificateIdentifier, Error};
use metrics::{counter, gauge};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::failure::{Again, Failure, Step};
use super::order::{Client, Issued};
use super::schedule::{self, History};
use super::setup::Acme;
use super::{certificate, client};
use crate::Handle;
use crate::fields::List;
use crate::random::random;
use crate::server::{AcmeFailure, AcmeState};
use crate::trust::{rfc3339, unix_time};

/// The longest sleep before the clock is read again: it may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How often an order is restarted at once when the directory's response asks for that.
const MOST_AT_ONCE: usize = 8;

/// The state of the renewal loop.
pub(super) struct Renewal<'a> {
    acme: &'a Acme,
    handle: &'a Handle,
    history: History,
    /// When renewal information is fetched next.
    next_ari: u64,
}

/// The certificate that the server presents.
struct Active {
    chain: Vec<CertificateDer<'static>>,
    fingerprint: String,
    not_before: u64,
    not_after: u64,
    covers_all: bool,
    identifier: Option<CertificateIdentifier<'static>>,
}

impl<'a> Renewal<'a> {
    pub(super) fn new(acme: &'a Acme, handle: &'a Handle, history: History) -> Self {
        Self { acme, handle, history, next_ari: 0 }
    }

    /// Keeps the certificate current, for ever.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let now = unix_time(SystemTime::now()).as_secs();
            self.history.forget_impossible_pause(now);
            let active = self.active();
            self.publish(self.next_attempt(active.as_ref()).max(now));
            if let Some(active) = active.as_ref().filter(|it| it.covers_all)
                && now >= self.next_ari
            {
                self.fetch_renewal_information(active, now).await;
            }
            let at = self.next_attempt(active.as_ref());
            self.publish(at.max(now));
            if at <= now {
                self.attempt(active.as_ref()).await;
                continue;
            }
            let until = at.min(self.next_ari.max(now + 1));
            sleep(Duration::from_secs(until - now).min(LONGEST_SLEEP)).await;
        }
    }

    fn active(&self) -> Option<Active> {
        let identity = self.handle.server_identity()?;
        let chain = identity.certified_key.cert.clone();
        let leaf = chain.first()?;
        let domains = &self.acme.settings.domains;
        let covers_all = certificate::covered(leaf, domains).len() == domains.len();
        let validity = identity.summary.validity;
        Some(Active {
            fingerprint: identity.summary.fingerprint.to_string(),
            not_before: validity.not_before.as_secs(),
            not_after: validity.not_after.as_secs(),
            covers_all,
            identifier: certificate::identifier(leaf),
            chain,
        })
    }

    fn next_attempt(&self, active: Option<&Active>) -> u64 {
        self.due(active).max(self.history.not_before)
    }

    /// When an order is due, failures aside.
    fn due(&self, active: Option<&Active>) -> u64 {
        let Some(active) = active.filter(|active| active.covers_all) else { return 0 };
        let by_window = self.history.renewal.as_ref();
        match by_window.filter(|renewal| renewal.certificate == active.fingerprint) {
            Some(renewal) => renewal.at,
            None => schedule::renewal_by_lifetime(active.not_before, active.not_after),
        }
    }

    /// Asks the directory when it wants the certificate renewed. (RFC 9773)
    async fn fetch_renewal_information(&mut self, active: &Active, now: u64) {
        self.next_ari = schedule::next_ari_after_failure(now);
        let Some(identifier) = &active.identifier else { return };
        let Ok(client) = self.client() else { return };
        // An order would fail for the same reason, and logs it.
        let Ok(account) = client.account().await else { return };
        match account.renewal_info(identifier).await {
            Ok((info, asked)) => {
                self.next_ari = schedule::next_ari(now, asked.as_secs());
                let window = info.suggested_window;
                let window = (
                    unix_time(window.start.into()).as_secs(),
                    unix_time(window.end.into()).as_secs(),
                );
                let before = self.history.renewal.as_ref();
                let renewal = schedule::renewal_by_window(
                    &active.fingerprint,
                    active.not_after,
                    window,
                    before,
                    random(),
                );
                if renewal != self.history.renewal {
                    self.history.renewal = renewal;
                    self.store_history();
                }
            }
            Err(Error::Unsupported(_)) => self.next_ari = schedule::next_ari(now, u64::MAX),
            Err(_) => {}
        }
    }

    async fn attempt(&mut self, active: Option<&Active>) {
        let result = match self.issue(active).await {
            Ok(issued) => self.activate(&issued, active).await,
            Err(failure) => Err(failure),
        };
        let now = unix_time(SystemTime::now()).as_secs();
        let outcome = match &result {
            Ok(()) => {
                self.history.record_success(now);
                self.next_ari = now + self.history.first_ari();
                "success"
            }
            Err(failure) => {
                self.history.record_failure(failure, now, random());
                "failure"
            }
        };
        counter!("portcullis_acme_orders_total", "result" => outcome).increment(1);
        // Before the event is logged: its reader may ask for the status, or end the process.
        self.store_history();
        let active = self.active();
        let next_attempt = self.next_attempt(active.as_ref());
        self.publish(next_attempt.max(now));
        let domains = List::new(&self.acme.settings.domains);
        match (result, active) {
            (Ok(()), Some(active)) => info!(
                domains = domains.field(),
                fingerprint = active.fingerprint,
                not_after = time(active.not_after),
                next_attempt = time(next_attempt),
                "acme_certificate_issued"
            ),
            (Ok(()), None) => {}
            (Err(failure), _) => error!(
                domains = domains.field(),
                step = failure.step.as_str(),
                problem_type = failure.problem_type,
                detail = failure.detail,
                next_attempt = time(next_attempt),
                remedy = failure.step.remedy(),
                "acme_order_failed"
            ),
        }
    }

    /// Orders a certificate, and restarts at once when the directory's response asks for that.
    async fn issue(&self, active: Option<&Active>) -> Result<Issued, Failure> {
        // A certificate that cannot be stored would count against the directory's limits in vain.
        self.acme.cache.probe().map_err(|error| Failure::of_store(&error))?;
        let mut replaces = active.and_then(|active| active.identifier.clone());
        let mut may_have_new_account = true;
        for _ in 1..MOST_AT_ONCE {
            let failure = match self.client()?.order(replaces.clone()).await {
                Ok(issued) => return Ok(issued),
                Err(failure) => failure,
            };
            match failure.again() {
                Again::WithNewNonce => {}
                Again::WithoutReplaces if replaces.is_some() => replaces = None,
                Again::WithNewAccount if may_have_new_account => {
                    may_have_new_account = false;
                    let removed = self.acme.cache.remove_account();
                    removed.map_err(|error| Failure::of_store(&error))?;
                }
                _ => return Err(failure),
            }
        }
        self.client()?.order(replaces).await
    }

    /// Stores an issued pair and activates it. If that fails, the former pair is restored.
    async fn activate(&self, issued: &Issued, active: Option<&Active>) -> Result<(), Failure> {
        let cache = &self.acme.cache;
        let chain = active.map(|active| active.chain.as_slice());
        let now = unix_time(SystemTime::now());
        let names = &self.acme.settings.domains;
        let summary = certificate::check(issued, names, chain, &cache.pair(), now)?;
        let before = cache.read_pair().map_err(|error| Failure::of_store(&error))?;
        cache.write_pair(&issued.chain, &issued.key).map_err(|error| Failure::of_store(&error))?;
        self.handle.reload().await;
        let newest = self.handle.server_identity();
        if newest.is_some_and(|newest| newest.summary.fingerprint == summary.fingerprint) {
            return Ok(());
        }
        if let Some(before) = before {
            cache.restore_pair(&before).map_err(|error| Failure::of_store(&error))?;
        }
        Err(Failure::new(Step::Activate, "the new pair did not become active"))
    }

    fn client(&self) -> Result<Client<'_>, Failure> {
        let http = client::Http::new(self.acme.roots.clone());
        Ok(Client {
            settings: &self.acme.settings,
            cache: &self.acme.cache,
            challenges: &self.acme.link.challenges,
            http: http.map_err(|error| Failure::new(Step::Directory, error.to_string()))?,
        })
    }

    fn store_history(&self) {
        if let Err(error) = self.acme.cache.write_history(&self.history) {
            let remedy = "make room in --acme-cache: a restart would forget the pause";
            warn!(%error, remedy, "acme_cache_not_written");
        }
    }

    /// Updates the status page and the metrics.
    fn publish(&self, next_attempt: u64) {
        // A damaged history may hold any number.
        let time = |seconds| {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            time.unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let at = Duration::from_secs(next_attempt).as_secs_f64();
        gauge!("portcullis_acme_next_attempt_timestamp_seconds").set(at);
        let last_failure = self.history.last_failure.as_ref().map(|failure| AcmeFailure {
            at: time(failure.at),
            step: failure.step.clone(),
            problem_type: failure.problem_type.clone(),
            detail: failure.detail.clone(),
        });
        self.acme.link.set_state(AcmeState {
            domains: self.acme.settings.domains.clone(),
            directory: self.acme.settings.directory.to_string(),
            next_attempt: Some(time(next_attempt)),
            last_issued: self.history.last_issued.map(time),
            failures: self.history.failures,
            last_failure,
        });
    }
}

pub(super) fn time(seconds: u64) -> String {
    rfc3339(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}
