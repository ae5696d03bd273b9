//! The server's certificate from an ACME directory (RFC 8555): ordered, renewed, kept in a cache.
//!
//! Two things leave this folder. Certificate and key go to a file in the cache, where [`reload`]
//! finds them like any renewed pair. The proof of a name goes to the handshake
//! ([`Challenges`](crate::server::Challenges)) while the name is being validated. A failure changes
//! nothing for clients.
//!
//! [`reload`]: crate::reload

mod cache;
mod certificate;
mod client;
mod failure;
mod order;
mod renewal;
mod schedule;
mod settings;
mod setup;

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use metrics::{counter, describe_counter, describe_gauge};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::fields::List;
use crate::trust::unix_time;
use crate::{Handle, NotReady};
use cache::Lock;
use renewal::Renewal;
use schedule::History;

pub use settings::{KeyType, Settings};
pub use setup::Acme;
pub(crate) use setup::pair;

/// The interval between attempts to take the lock of the process that orders.
const LOCK_INTERVAL: Duration = Duration::from_secs(5);

impl Acme {
    /// Keeps the certificate current, for ever. Returns the reason if there is none in time.
    pub async fn run(self, handle: Handle) -> String {
        describe();
        self.link.challenges.describe();
        let timeout = self.settings.timeout;
        let deadline = Instant::now() + timeout;
        let late = handle.clone();
        let reason = tokio::select! {
            never = self.renew(handle) => match never {},
            reason = without_certificate(&late, deadline) => reason.as_str(),
        };
        format!("no usable server certificate within {timeout:?} (--acme-timeout): {reason}")
    }

    async fn renew(self, handle: Handle) -> Infallible {
        self.log_start(&handle);
        let _lock = self.take_order_lock().await;
        let mut history = self.cache.history().unwrap_or_else(|problem| {
            warn!(problem, remedy = "none: failures are counted anew", "acme_cache_damaged");
            History::default()
        });
        let Settings { domains, directory, .. } = &self.settings;
        history.begin(format!("{} from {directory}", domains.join(" ")));
        history.forget_impossible_pause(unix_time(SystemTime::now()).as_secs());
        if let Err(problem) = self.cache.account() {
            warn!(problem, remedy = "none: a new account is made", "acme_cache_damaged");
        }
        if let Some(last) = &history.last_failure
            && history.not_before > unix_time(SystemTime::now()).as_secs()
        {
            // The process that logged the failure has ended, and its log may be gone.
            warn!(
                step = last.step,
                problem_type = last.problem_type,
                detail = last.detail,
                next_attempt = renewal::time(history.not_before),
                remedy = "once the cause is removed, delete history.json in --acme-cache and restart \
                          to order at once",
                "acme_order_postponed"
            );
        }
        Renewal::new(&self, &handle, history).run().await
    }

    fn log_start(&self, handle: &Handle) {
        let Settings { domains, directory, cache, is_balanced, .. } = &self.settings;
        info!(
            domains = List::new(domains).field(),
            %directory,
            cache = %cache.display(),
            note = "the directory connects to port 443 of each name: it must lead to this port of \
                    this replica",
            "acme_started"
        );
        if *is_balanced {
            warn!(
                remedy = "let one replica order, reached by a listener of its own or run alone, \
                          and have the others read its files by --cert and --key",
                "acme_behind_load_balancer"
            );
        }
        if lacks_certificate(handle).is_some() {
            warn!(
                remedy = "what carries port 443 must route to replicas that are not ready: a TCP \
                          health check, or publishNotReadyAddresses: true",
                "acme_not_ready_until_issued"
            );
        }
    }

    /// Waits until no other process orders with this cache.
    async fn take_order_lock(&self) -> Option<Lock> {
        let mut is_logged = false;
        loop {
            match self.cache.lock() {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) if is_logged => {}
                Ok(None) => {
                    is_logged = true;
                    warn!(
                        cache = %self.settings.cache.display(),
                        remedy = "none, if it is another replica: this one uses what that one \
                                  gets, and orders when it has ended",
                        "acme_cache_in_use"
                    );
                }
                Err(error) => {
                    let remedy = "use a file system with locks (flock) to be safe from two that \
                                  order";
                    warn!(%error, remedy, "acme_cache_not_locked");
                    return None;
                }
            }
            sleep(LOCK_INTERVAL).await;
        }
    }
}

/// Returns at the deadline, with the reason, if there is no usable certificate then.
async fn without_certificate(handle: &Handle, deadline: Instant) -> NotReady {
    sleep_until(deadline).await;
    match lacks_certificate(handle) {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

/// Why there is no certificate that API Gateway would connect to: an expired one is none.
fn lacks_certificate(handle: &Handle) -> Option<NotReady> {
    handle.not_ready().filter(|reason| {
        matches!(
            reason,
            NotReady::NoServerCertificate
                | NotReady::ServerCertificateExpired
                | NotReady::ServerCertificateNotYetValid
        )
    })
}

fn describe() {
    describe_counter!(
        "portcullis_acme_orders_total",
        "Orders of the server's certificate, by result (success, failure)."
    );
    describe_gauge!(
        "portcullis_acme_next_attempt_timestamp_seconds",
        "When the next order of the server's certificate begins."
    );
    for result in ["success", "failure"] {
        counter!("portcullis_acme_orders_total", "result" => result).absolute(0);
    }
}
