//! Keeping that current: files → trust store + server identity → generation → everyone who
//! watches.
//!
//! A change is looked for at each file system event, at each poll, and when asked; a look reads
//! what has changed and compares the whole with the generation in force. Only a difference is
//! published, and what cannot be read or parsed makes none.

mod expiry;
mod files;
mod generation;
mod identity;
mod judge;
mod live;
mod loader;
mod probe;
mod problem;
mod state;
mod watch;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use crate::clock;
use crate::fields::List;
use crate::trust::{Fingerprint, Loaded, Role, TrustStore, rfc3339};

#[cfg(feature = "cli")]
pub(crate) use files::{read_chain, read_trust};
pub(crate) use generation::Generation;
pub(crate) use live::{Admission, Current};
pub use loader::NotStartable;
pub(crate) use loader::{Loader, Material};
pub use problem::{Problem, Severity};
pub use state::ReloadState;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) use watch::directories;

/// A change is looked at when nothing has moved for this long,
const QUIET: Duration = Duration::from_millis(100);
/// or when this long has gone by since the first event.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// So many times is it looked again at once because directories were newly watched.
const MOST_LOOKS: usize = 5;
/// So many certificates are named in one log line.
const MOST_NAMED: usize = 20;

/// That somebody wants every file read again, and to be told when that is done.
pub(crate) type ReloadRequest = oneshot::Sender<()>;

/// Keeps the newest generation current. Ends when it is dropped.
pub(crate) struct Reload {
    loader: Loader,
    current: Arc<Current>,
    watch: watch::Watch,
    changed: Arc<Notify>,
    asked: mpsc::UnboundedReceiver<ReloadRequest>,
    poll_interval: Duration,
    said: HashSet<Problem>,
    watch_error: Option<String>,
    /// Why what was read could not be put in force.
    probe_error: Option<Problem>,
    /// Whether somebody asked for the look that is being taken.
    is_asked: bool,
    expiry: expiry::ExpiryLog,
    since: SystemTime,
}

impl Reload {
    /// Takes over what was read at start, and says what is wrong with it.
    pub(crate) fn new(
        loader: Loader,
        first: Generation,
        poll_interval: Duration,
        asked: mpsc::UnboundedReceiver<ReloadRequest>,
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
            watch: watch::Watch::new(Arc::clone(&changed)),
            changed,
            asked,
            poll_interval,
            said: HashSet::new(),
            watch_error: None,
            probe_error: None,
            is_asked: false,
            expiry: expiry::ExpiryLog::default(),
            loader,
        };
        reload.log_problems(true);
        reload.current.looked(reload.loader.identity_files(), false);
        reload
    }

    pub(crate) fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// Looks for changes, for ever.
    pub(crate) async fn run(mut self) {
        let mut asked: Vec<ReloadRequest> = Vec::new();
        loop {
            let latest = Instant::now() + LONGEST_WAIT;
            self = loop {
                // What is being written now is read when it has been written.
                self.until_quiet(latest).await;
                let Some(reload) = in_the_background(self, Self::read).await else { return };
                self = reload;
                if !self.has_changed() {
                    break self;
                }
                // What moved while it was read may have been read by half. The event is kept: it
                // is a reason to look again, now or after this.
                self.changed.notify_one();
                if Instant::now() >= latest {
                    break self;
                }
            };
            let Some(reload) = in_the_background(self, Self::publish).await else { return };
            self = reload;
            for asked in asked.drain(..) {
                // Whoever asked may not want to know.
                let _ = asked.send(());
            }
            let next = Instant::now() + self.next_look();
            tokio::select! {
                () = self.changed.notified() => self.changed.notify_one(),
                Some(who) = self.asked.recv() => {
                    asked.push(who);
                    // One look does for all who have asked before it.
                    while let Ok(who) = self.asked.try_recv() {
                        asked.push(who);
                    }
                    self.loader.invalidate_stamps();
                    self.watch.invalidate();
                    self.is_asked = true;
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Whether there was an event; it counts once.
    fn has_changed(&self) -> bool {
        let mut changed = pin!(self.changed.notified());
        changed.as_mut().enable()
    }

    /// Waits, if there was an event, until there has been none for a while.
    async fn until_quiet(&self, latest: Instant) {
        let mut is_quiet = !self.has_changed();
        while !is_quiet {
            let quiet = (Instant::now() + QUIET).min(latest);
            is_quiet = timeout_at(quiet, self.changed.notified()).await.is_err() || quiet == latest;
        }
    }

    /// The next poll, or before it the moment in which a certificate begins or ends.
    fn next_look(&self) -> Duration {
        let now = clock::since_epoch(self.loader.builder.clock.as_ref());
        let generation = self.current.newest();
        let bounds = generation.store.certificates().iter().flat_map(|loaded| {
            let validity = loaded.certificate.validity();
            [validity.not_before.as_secs(), validity.not_after.as_secs()]
        });
        let bounds = bounds.chain(self.current.first_chain_end()).map(Duration::from_secs);
        let next = bounds.filter_map(|bound| bound.checked_sub(now)).filter(|left| !left.is_zero());
        // Not at the very moment: a clock is read to the nanosecond, and a timer is not.
        next.min().map_or(self.poll_interval, |left| {
            (left + Duration::from_millis(1)).min(self.poll_interval)
        })
    }

    fn read(&mut self) {
        for _ in 0..MOST_LOOKS {
            self.loader.read_again(&self.watch.being_written());
            if !self.watch.set(self.loader.paths()) {
                return;
            }
        }
    }

    fn publish(&mut self) {
        self.log_watch_error();
        let has_news = self.log_problems(false);
        let changed = self.publish_changes();
        // What was read may not do as a whole.
        let has_news = self.log_problems(false) || has_news;
        let counts = std::mem::take(&mut self.is_asked) || changed || has_news;
        self.current.looked(self.loader.identity_files(), counts);
        let generation = self.current.newest();
        let now = self.loader.builder.clock.now();
        self.expiry.report(&generation, self.loader.server_certificate(), self.since, now);
    }

    /// Says whether anything was published.
    fn publish_changes(&mut self) -> bool {
        let now = clock::unix_now(self.loader.builder.clock.as_ref());
        let before = self.current.newest();
        let identity = self.loader.identity().unwrap_or(&before.identity);
        let new_identity = !Arc::ptr_eq(identity, &before.identity);
        // A chain that ends is in no store; its sessions must not be resumed all the same.
        let chain_ended = self.current.first_chain_end().is_some_and(|end| end <= now.as_secs());
        // Most looks find nothing new, and a store of ten thousand takes its time to make.
        let is_as_before = before.store.consists_of(self.loader.loaded())
            && generation::active(&before.store, now) == before.active;
        if is_as_before && !new_identity && !chain_ended {
            self.probe_error = None;
            return false;
        }
        let store = self.loader.store(Some(&before.store));
        let change = Change::between(&before, &store, now);
        if change.is_nothing() && !new_identity && !chain_ended {
            self.probe_error = None;
            return false;
        }
        let removes_any = change.removes_any() || chain_ended;
        let number = before.number + 1;
        let resumable = (!removes_any).then_some(before.as_ref());
        let made =
            self.loader.builder.make(number, Arc::new(store), Arc::clone(identity), resumable);
        let generation = match made {
            Ok(generation) => generation,
            Err(error) => {
                let problem = format!("TLS cannot be set up: {error}");
                let remedy = "renew certificate and key; the generation before stays in force";
                let file = self.loader.server_certificate();
                self.probe_error = Some(Problem::fault(file, problem, remedy));
                return false;
            }
        };
        self.probe_error = None;
        state::report_generation(&generation);
        if new_identity {
            let summary = &generation.identity.summary;
            info!(
                generation = number,
                fingerprint = %summary.fingerprint,
                not_after = rfc3339(summary.validity.not_after),
                "server_certificate_changed"
            );
        }
        let is_usable = generation.store.is_usable(now);
        self.current.remember_removed(&change.removed);
        let connections_ended = self.current.publish(generation, removes_any);
        change.say(number, connections_ended);
        if chain_ended {
            info!(generation = number, connections_ended, "chain_ended");
        }
        if !is_usable && !change.is_nothing() {
            error!(
                generation = number,
                remedy = "put a client certificate that is in its dates into a --trust path",
                "trusts_nobody"
            );
        }
        true
    }

    /// Says each finding once, and once that a fault is mended. Returns whether there was a fault
    /// or the end of one to say.
    fn log_problems(&mut self, first: bool) -> bool {
        let mut problems = self.loader.problems();
        problems.splice(0..0, self.probe_error.clone());
        for problem in problems.iter().filter(|problem| !self.said.contains(problem)) {
            log_problem(problem, first);
        }
        let now: HashSet<_> = problems.iter().cloned().collect();
        let is_fault = |problem: &&Problem| problem.severity == Severity::Error;
        let has_news = self.said.symmetric_difference(&now).any(|problem| is_fault(&problem));
        self.current.set_problems(problems);
        for mended in self.said.difference(&now).filter(is_fault) {
            info!(file = %mended.file.display(), line = mended.line, problem = mended.problem, "fault_mended");
        }
        self.said = now;
        has_news
    }

    fn log_watch_error(&mut self) {
        let fault = self.watch.fault().map(str::to_owned);
        if fault != self.watch_error {
            if let Some(error) = &fault {
                warn!(
                    error,
                    poll_interval = self.poll_interval.as_secs_f64(),
                    remedy = "changes are found by polling; raise fs.inotify.max_user_instances or \
                              fs.inotify.max_user_watches to have them at once",
                    "watch_unavailable"
                );
            }
            self.watch_error = fault;
        }
    }
}

/// Does what reads files, or takes its time, where nothing else waits for it.
async fn in_the_background(mut reload: Reload, work: fn(&mut Reload)) -> Option<Reload> {
    let task = tokio::task::spawn_blocking(move || {
        // In a thread that ends with it. What an allocator keeps for a thread, a little on each of
        // many pages, can be given back to the system only then; and the threads of the pool are
        // several, each with a heap of its own.
        let thread = std::thread::Builder::new().name("reload".to_owned());
        let done = std::thread::scope(|scope| {
            thread.spawn_scoped(scope, || work(&mut reload)).map(ScopedJoinHandle::join)
        });
        match done {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // There may be no more threads to be had.
            Err(_) => work(&mut reload),
        }
        reload
    });
    match task.await {
        Ok(reload) => Some(reload),
        Err(error) => {
            error!(%error, remedy = "restart portcullis, and report this", "reload_ended");
            None
        }
    }
}

/// Says one finding in the log.
pub(crate) fn log_problem(problem: &Problem, first: bool) {
    let Problem { severity, file, line, problem, remedy } = problem;
    let (file, line) = (file.display(), *line);
    match severity {
        Severity::Error if first => error!(%file, line, problem, remedy, "load_failed"),
        Severity::Error => error!(%file, line, problem, remedy, "reload_failed"),
        Severity::Warning => warn!(%file, line, problem, remedy, "trust_file_warning"),
    }
}

/// How a trust store differs from the one before.
#[derive(Default)]
struct Change {
    added: Vec<Loaded>,
    removed: Vec<Loaded>,
    /// Still there, and in their dates now.
    begun: Vec<Loaded>,
    /// Still there, and no longer in their dates.
    ended: Vec<Loaded>,
    /// The same certificates, in other files.
    is_moved: bool,
}

impl Change {
    fn between(before: &Generation, store: &TrustStore, now: UnixTime) -> Self {
        type Key = (Role, Fingerprint);
        let key = |loaded: &Loaded| (loaded.role, loaded.certificate.summary().fingerprint);
        let of = |store: &TrustStore| -> HashMap<Key, Loaded> {
            store.certificates().iter().map(|loaded| (key(loaded), loaded.clone())).collect()
        };
        let (old, new) = (of(&before.store), of(store));
        let mut change = Self::default();
        for loaded in before.store.certificates() {
            if !new.contains_key(&key(loaded)) {
                change.removed.push(loaded.clone());
            }
        }
        for loaded in store.certificates() {
            let is_in = loaded.certificate.validity().contains(now);
            match old.get(&key(loaded)) {
                None => change.added.push(loaded.clone()),
                Some(same) => {
                    match (before.active.contains(&key(loaded)), is_in) {
                        (false, true) => change.begun.push(loaded.clone()),
                        (true, false) => change.ended.push(loaded.clone()),
                        _ => {}
                    }
                    change.is_moved |= same.file != loaded.file;
                }
            }
        }
        change
    }

    fn removes_any(&self) -> bool {
        !self.removed.is_empty() || !self.ended.is_empty()
    }

    fn is_nothing(&self) -> bool {
        !self.removes_any() && self.added.is_empty() && self.begun.is_empty() && !self.is_moved
    }

    fn say(&self, generation: u64, connections_ended: usize) {
        if !self.added.is_empty() || !self.removed.is_empty() {
            info!(
                generation,
                added = names(&self.added).field(),
                removed = names(&self.removed).field(),
                connections_ended,
                "trust_reloaded"
            );
        }
        if !self.ended.is_empty() {
            warn!(
                generation,
                certificates = names(&self.ended).field(),
                connections_ended,
                remedy = "remove it, or put its successor beside it",
                "certificate_ended"
            );
        }
        if !self.begun.is_empty() {
            info!(generation, certificates = names(&self.begun).field(), "certificate_begun");
        }
    }
}

/// Certificates for a log line: file, fingerprint and end of each, up to a bound.
fn names(certificates: &[Loaded]) -> List {
    let named = certificates.iter().take(MOST_NAMED).map(|loaded| {
        let summary = loaded.certificate.summary();
        let not_after = rfc3339(summary.validity.not_after);
        format!("{} {} until {not_after}", loaded.file.display(), summary.fingerprint)
    });
    let more = certificates.len().saturating_sub(MOST_NAMED);
    List::new(named.chain((more > 0).then(|| format!("and {more} more"))))
}
