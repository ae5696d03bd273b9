//! The loop: wait for a reason, read the files, publish the difference.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use crate::clock;
use crate::reload::change::{Change, names};
use crate::reload::expiry::ExpiryLog;
use crate::reload::generation::{self, Generation};
use crate::reload::live::Current;
use crate::reload::loader::Loader;
use crate::reload::problem::{Problem, Severity, log_problem};
use crate::reload::results::ScanResults;
use crate::reload::state;
use crate::reload::watch::Watch;
use crate::trust::rfc3339;

/// Files are read when there was no event for this long.
const QUIET: Duration = Duration::from_millis(100);
/// The longest wait after the first event.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// How often files are read again at once because a directory was newly watched.
const MAX_SCANS: usize = 5;

/// A request to read every file again, and the sender that signals its end.
pub(crate) type ReloadRequest = oneshot::Sender<()>;

/// Keeps the newest generation current. It ends when it is dropped.
pub(crate) struct Reload {
    loader: Loader,
    current: Arc<Current>,
    results: Arc<ScanResults>,
    watch: Watch,
    changed: Arc<Notify>,
    requests: mpsc::UnboundedReceiver<ReloadRequest>,
    poll_interval: Duration,
    /// The problems that the log has reported.
    reported: HashSet<Problem>,
    watch_error: Option<String>,
    /// Why the files could not be made active as a whole.
    probe_error: Option<Problem>,
    /// True if the reload that runs was requested.
    is_requested: bool,
    expiry: ExpiryLog,
    since: SystemTime,
}

impl Reload {
    /// Takes over the first generation, and logs the problems of its files.
    pub(crate) fn new(
        loader: Loader,
        first: Generation,
        poll_interval: Duration,
        requests: mpsc::UnboundedReceiver<ReloadRequest>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let clock = Arc::clone(&loader.builder.clock);
        info!(
            generation = first.number,
            certificates = first.store.certificates().len(),
            trusted = names(first.store.certificates()).field(),
            "trust_loaded"
        );
        state::describe();
        state::report_generation(&first);
        let mut reload = Self {
            since: clock.now(),
            current: Arc::new(Current::new(first, clock)),
            results: Arc::default(),
            watch: Watch::new(Arc::clone(&changed)),
            changed,
            requests,
            poll_interval,
            reported: HashSet::new(),
            watch_error: None,
            probe_error: None,
            is_requested: false,
            expiry: ExpiryLog::default(),
            loader,
        };
        reload.log_problems(true);
        reload.record_scan(false);
        reload
    }

    pub(crate) fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// What the scans of the files found.
    pub(crate) fn results(&self) -> &Arc<ScanResults> {
        &self.results
    }

    /// Reloads for ever.
    pub(crate) async fn run(mut self) {
        let mut requests: Vec<ReloadRequest> = Vec::new();
        loop {
            let latest = Instant::now() + MAX_WAIT;
            self = loop {
                // A file that is being written now is read once it has been written.
                self.wait_until_quiet(latest).await;
                let Some(reload) = self.run_blocking(Self::read).await else { return };
                self = reload;
                if !self.take_event() {
                    break self;
                }
                // A file that changed meanwhile may have been read by half. The event is kept: it
                // starts another reload, now or after this one.
                self.changed.notify_one();
                if Instant::now() >= latest {
                    break self;
                }
            };
            let Some(reload) = self.run_blocking(Self::publish).await else { return };
            self = reload;
            for request in requests.drain(..) {
                // The requester may have stopped waiting.
                let _ = request.send(());
            }
            self.wait_for_reason(&mut requests).await;
        }
    }

    /// Waits for an event, a request, the poll, or the moment in which a certificate becomes valid
    /// or expires.
    async fn wait_for_reason(&mut self, requests: &mut Vec<ReloadRequest>) {
        let next = Instant::now() + self.next_scan();
        tokio::select! {
            () = self.changed.notified() => self.changed.notify_one(),
            Some(request) = self.requests.recv() => {
                requests.push(request);
                // One reload serves all requests that came before it.
                while let Ok(request) = self.requests.try_recv() {
                    requests.push(request);
                }
                self.loader.invalidate_stamps();
                self.watch.invalidate();
                self.is_requested = true;
            }
            () = sleep_until(next) => {}
        }
    }

    /// True if there was an event since the last call.
    fn take_event(&self) -> bool {
        let mut changed = pin!(self.changed.notified());
        changed.as_mut().enable()
    }

    /// After an event, waits until there has been none for [`QUIET`].
    async fn wait_until_quiet(&self, latest: Instant) {
        let mut is_quiet = !self.take_event();
        while !is_quiet {
            let quiet = (Instant::now() + QUIET).min(latest);
            is_quiet = timeout_at(quiet, self.changed.notified()).await.is_err() || quiet == latest;
        }
    }

    /// The time until the next poll, or until a certificate becomes valid or expires before it.
    fn next_scan(&self) -> Duration {
        let now = clock::since_epoch(self.loader.builder.clock.as_ref());
        let generation = self.current.newest();
        let bounds = generation.store.certificates().iter().flat_map(|loaded| {
            let validity = loaded.certificate.validity();
            [validity.not_before.as_secs(), validity.not_after.as_secs()]
        });
        let bounds = bounds.chain(self.current.first_chain_end()).map(Duration::from_secs);
        let next = bounds.filter_map(|bound| bound.checked_sub(now)).filter(|left| !left.is_zero());
        // A timer is coarser than the clock: one millisecond later the bound is certainly passed.
        next.min().map_or(self.poll_interval, |left| {
            (left + Duration::from_millis(1)).min(self.poll_interval)
        })
    }

    /// Runs what reads files or takes long on a thread where it delays no request.
    async fn run_blocking(mut self, work: fn(&mut Self)) -> Option<Self> {
        let task = tokio::task::spawn_blocking(move || {
            work(&mut self);
            self
        });
        match task.await {
            Ok(reload) => Some(reload),
            Err(error) => {
                error!(%error, remedy = "restart portcullis, and report this", "reload_ended");
                None
            }
        }
    }

    fn read(&mut self) {
        for _ in 0..MAX_SCANS {
            self.loader.read_again(&self.watch.being_written());
            if !self.watch.set(self.loader.paths()) {
                return;
            }
        }
    }

    fn publish(&mut self) {
        self.log_watch_error();
        let has_news = self.log_problems(false);
        let has_changed = self.publish_changes();
        // The files may be good one by one, and not as a whole.
        let has_news = self.log_problems(false) || has_news;
        let counts = std::mem::take(&mut self.is_requested) || has_changed || has_news;
        self.record_scan(counts);
        let generation = self.current.newest();
        let now = self.loader.builder.clock.now();
        self.expiry.report(&generation, self.loader.server_certificate(), self.since, now);
    }

    fn record_scan(&self, counts: bool) {
        let now = self.loader.builder.clock.now();
        self.results.record_scan(self.loader.identity_files(), counts, now);
    }

    /// Publishes a new generation if something differs. Returns whether it did.
    fn publish_changes(&mut self) -> bool {
        self.probe_error = None;
        let now = clock::unix_now(self.loader.builder.clock.as_ref());
        let before = self.current.newest();
        let identity = self.loader.identity().or(before.identity.as_ref());
        let has_new_identity =
            identity.map(Arc::as_ptr) != before.identity.as_ref().map(Arc::as_ptr);
        // The end of a chain changes no store, but its sessions must not be resumed.
        let has_chain_expired =
            self.current.first_chain_end().is_some_and(|end| end <= now.as_secs());
        // Most scans find nothing new, and a store of ten thousand certificates takes long to
        // build.
        let is_unchanged = before.store.consists_of(self.loader.loaded())
            && generation::active(&before.store, now) == before.active;
        if is_unchanged && !has_new_identity && !has_chain_expired {
            return false;
        }
        let store = self.loader.store(Some(&before.store));
        let change = Change::between(&before, &store, now);
        if change.is_nothing() && !has_new_identity && !has_chain_expired {
            return false;
        }
        let removes_any = change.removes_any() || has_chain_expired;
        let number = before.number + 1;
        let resumable = (!removes_any).then_some(before.as_ref());
        let made = self.loader.builder.make(number, Arc::new(store), identity.cloned(), resumable);
        let generation = match made {
            Ok(generation) => generation,
            Err(error) => {
                let message = format!("TLS cannot be set up: {error}");
                let remedy = "renew certificate and key; the former generation stays active";
                let file = self.loader.server_certificate();
                self.probe_error = Some(Problem::error(file, message, remedy));
                return false;
            }
        };
        state::report_generation(&generation);
        if has_new_identity {
            log_new_identity(&generation);
        }
        let trusts_no_client = !generation.store.is_usable(now) && !change.is_nothing();
        self.results.remember_removed(&change.removed, self.loader.builder.clock.now());
        let connections_ended = self.current.publish(generation, removes_any);
        change.log(number, connections_ended);
        if has_chain_expired {
            info!(generation = number, connections_ended, "chain_ended");
        }
        if trusts_no_client {
            error!(
                generation = number,
                remedy = "put a client certificate that is valid now into a --trust path",
                "trusts_nobody"
            );
        }
        true
    }

    /// Logs each problem once, and each resolved error once. True if an error began or was
    /// resolved.
    fn log_problems(&mut self, is_first: bool) -> bool {
        let mut problems = self.loader.problems_while_serving();
        problems.splice(0..0, self.probe_error.clone());
        for problem in problems.iter().filter(|problem| !self.reported.contains(problem)) {
            log_problem(problem, is_first);
        }
        let now: HashSet<_> = problems.iter().cloned().collect();
        let is_error = |problem: &&Problem| problem.severity == Severity::Error;
        let has_news = self.reported.symmetric_difference(&now).any(|problem| is_error(&problem));
        self.results.set_problems(problems);
        for resolved in self.reported.difference(&now).filter(is_error) {
            let (file, line) = (resolved.file.display(), resolved.line);
            info!(%file, line, problem = resolved.message, "fault_mended");
        }
        self.reported = now;
        has_news
    }

    fn log_watch_error(&mut self) {
        let watch_error = self.watch.error().map(str::to_owned);
        if watch_error != self.watch_error {
            if let Some(error) = &watch_error {
                warn!(
                    error,
                    poll_interval = self.poll_interval.as_secs_f64(),
                    remedy = "changes are found by polling; to find them at once, raise \
                              fs.inotify.max_user_instances or fs.inotify.max_user_watches",
                    "watch_unavailable"
                );
            }
            self.watch_error = watch_error;
        }
    }
}

fn log_new_identity(generation: &Generation) {
    let Some(identity) = &generation.identity else { return };
    let summary = &identity.summary;
    info!(
        generation = generation.number,
        fingerprint = %summary.fingerprint,
        not_after = rfc3339(summary.validity.not_after),
        "server_certificate_changed"
    );
}
