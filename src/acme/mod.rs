//! The server's certificate from an ACME directory (RFC 8555): ordered, renewed, kept in a cache.
//!
//! Two things leave this folder. The pair goes to its file in the cache, where [`reload`] finds it
//! like any other that was renewed; the proof of a name goes to the handshake
//! ([`Challenges`](crate::server::Challenges)), for as long as the name is being validated. Nothing
//! else changes for clients, and a failure changes nothing at all.
//!
//! [`reload`]: crate::reload

mod cache;
mod certificate;
mod client;
mod failure;
mod order;
mod renewal;
mod schedule;

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;
use metrics::{counter, describe_counter, describe_gauge};
use rustls::RootCertStore;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::fields::List;
use crate::server::{AcmeLink, AcmeState};
use crate::trust::{pem, unix_time};
use crate::{Config, Handle, NotReady};
use cache::{Cache, Lock, Unusable};
use failure::{Again, Failure, Step};
use renewal::Renewal;
use schedule::History;

/// How often it is tried to become the one that orders.
const LOCK_INTERVAL: Duration = Duration::from_secs(5);

/// What to order, and from whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The names, in lower case.
    pub domains: Vec<String>,
    /// Where the directory may write to.
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

/// A certificate that is kept current.
#[derive(Debug)]
pub struct Acme {
    settings: Settings,
    cache: Cache,
    roots: RootCertStore,
    link: Arc<AcmeLink>,
}

/// Why there will be no certificate: the flags or the cache are wrong.
#[derive(Debug)]
pub struct NotUsable {
    problem: String,
    remedy: &'static str,
}

impl NotUsable {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        self.remedy
    }
}

impl fmt::Display for NotUsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for NotUsable {}

impl From<Unusable> for NotUsable {
    fn from(Unusable { file, problem, remedy }: Unusable) -> Self {
        Self { problem: format!("{}: {problem}", file.display()), remedy }
    }
}

impl Acme {
    /// Opens the cache and reads the CAs: before a sandbox keeps the process from it.
    ///
    /// # Errors
    /// The cache cannot be used, or is that of another server.
    pub fn prepare(settings: Settings) -> Result<Self, NotUsable> {
        let cache = Cache::open(&settings.cache)?;
        let roots = roots(&settings)?;
        is_ours(&cache, &settings)?;
        let state = AcmeState {
            domains: settings.domains.clone(),
            directory: settings.directory.to_string(),
            ..AcmeState::default()
        };
        Ok(Self { settings, cache, roots, link: Arc::new(AcmeLink::new(state)) })
    }

    /// Finds what [`Acme::prepare`] would refuse, and writes nothing.
    ///
    /// # Errors
    /// The same, except that the cache cannot be made or written to.
    pub fn check(settings: &Settings) -> Result<(), NotUsable> {
        let cache = Cache::inspect(&settings.cache)?;
        roots(settings)?;
        is_ours(&cache, settings)
    }

    /// Has a server prove the names to the directory.
    pub fn attach(&self, config: Config) -> Config {
        config.acme(Arc::clone(&self.link))
    }

    /// Keeps the certificate current, for ever. Returns only if there is none in time, with the reason.
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
        let _lock = self.become_the_one().await;
        let mut history = self.cache.history().unwrap_or_else(|problem| {
            warn!(problem, remedy = "none: failures are counted anew", "acme_cache_damaged");
            History::default()
        });
        let Settings { domains, directory, .. } = &self.settings;
        history.begin(format!("{} from {directory}", domains.join(" ")));
        history.forget_impossible_pause(seconds(SystemTime::now()));
        if let Err(problem) = self.cache.account() {
            warn!(problem, remedy = "none: a new account is made", "acme_cache_damaged");
        }
        if let Some(last) = &history.last_failure
            && history.not_before > seconds(SystemTime::now())
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
    async fn become_the_one(&self) -> Option<Lock> {
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

/// Where a cache has the certificate, its chain and its key.
pub(crate) fn pair(cache: &Path) -> PathBuf {
    cache.join(cache::PAIR)
}

fn roots(settings: &Settings) -> Result<RootCertStore, NotUsable> {
    let roots = client::roots(settings.ca.as_deref());
    roots.map_err(|(problem, remedy)| NotUsable { problem, remedy })
}

/// Refuses a cache that was filled for another server: the two would take turns in it.
fn is_ours(cache: &Cache, settings: &Settings) -> Result<(), NotUsable> {
    const REMEDY: &str = "give each server a directory of its own as --acme-cache, or empty this \
                          one";
    let directory = settings.directory.to_string();
    if let Ok(Some(account)) = cache.account()
        && account.directory != directory
    {
        let problem = format!(
            "--acme-cache {} holds an account of {}, not of {directory} (--acme-directory)",
            settings.cache.display(),
            account.directory
        );
        return Err(NotUsable { problem, remedy: REMEDY });
    }
    let leaf = cache.read_pair().ok().flatten().and_then(|pair| {
        let (_, leaf) = pem::chain(&pair).ok()?.into_iter().next()?;
        Some(leaf)
    });
    let Some(leaf) = leaf else { return Ok(()) };
    if certificate::covered(&leaf, &settings.domains).is_empty() {
        let problem = format!(
            "--acme-cache {} holds a certificate for {}, not for {} (--acme-domain)",
            settings.cache.display(),
            certificate::names(&leaf).join(", "),
            settings.domains.join(", ")
        );
        return Err(NotUsable { problem, remedy: REMEDY });
    }
    Ok(())
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

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    unix_time(time).as_secs()
}
