//! The measurements.

use std::io::Read as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::version::TLS13;

use crate::Options;
use crate::client::{Connection, LazyCounter, Sessions, close, config, exchange, open};
use crate::meter::{Meter, memory_kib};

/// So that lazily made things are there, and caches warm.
const WARM_UP: usize = 4;

/// How many connections shake hands together.
pub const BATCH: usize = 32;

/// How long memory is left to settle: Go collects its garbage, allocators return theirs.
const SETTLE: Duration = Duration::from_millis(1500);

fn fresh(options: &Options) -> Vec<Arc<ClientConfig>> {
    vec![config(options, Resumption::disabled()); options.batch]
}

fn report(mode: &str, tally: &LazyCounter, rest: &str) {
    let LazyCounter { errors, resumed } = tally;
    println!("{{\"mode\":\"{mode}\",\"errors\":{errors},\"resumed\":{resumed},{rest}}}");
}

/// A full handshake, a request, and the end.
pub fn full(options: &Options) {
    let configs = fresh(options);
    let mut tally = LazyCounter::default();
    rounds(options, &configs, WARM_UP, &mut tally);
    measure("full", options, &configs, tally);
}

/// The same, but each session goes on from one before.
pub fn resumed(options: &Options) {
    // A client each.
    let sessions: Vec<_> = (0..options.batch).map(|_| Arc::new(Sessions::default())).collect();
    let resumption = |sessions: &Arc<_>| Resumption::store(Arc::clone(sessions) as _);
    let configs: Vec<_> = sessions.iter().map(|one| config(options, resumption(one))).collect();
    let mut tally = LazyCounter::default();
    rounds(options, &configs, WARM_UP, &mut tally);
    if options.tls == &TLS13 && tally.resumed < (WARM_UP - 1) * options.batch {
        // Some servers give tickets at full handshakes only: enough of them beforehand.
        let all = options.count.div_ceil(options.batch);
        sessions.iter().for_each(|one| one.hoard(true));
        let (mut least, mut before) = (1, 0);
        while least > before && least < all {
            before = least;
            rounds(options, &configs, 1, &mut tally);
            least = sessions.iter().map(|one| one.tickets()).min().unwrap_or(0);
        }
        sessions.iter().for_each(|one| one.hoard(false));
    }
    tally.resumed = 0;
    measure("resumed", options, &configs, tally);
}

fn rounds(options: &Options, configs: &[Arc<ClientConfig>], count: usize, tally: &mut LazyCounter) {
    for _ in 0..count {
        close(open(options, configs, tally));
    }
}

fn measure(mode: &str, options: &Options, configs: &[Arc<ClientConfig>], mut tally: LazyCounter) {
    let count = options.count.div_ceil(options.batch);
    let meter = Meter::start(options.pid);
    rounds(options, configs, count, &mut tally);
    // The server has yet to learn of the last ends.
    settle(Duration::from_millis(20));
    report(mode, &tally, &meter.stop(count * options.batch));
}

/// A request on a connection that was there before.
pub fn kept(options: &Options) {
    let mut tally = LazyCounter::default();
    let mut connections = open_many(options, options.batch, &mut tally);
    for _ in 0..WARM_UP * 10 {
        exchange(options, &mut connections, &mut tally);
    }
    let rounds = options.count.div_ceil(options.batch);
    let meter = Meter::start(options.pid);
    for _ in 0..rounds {
        exchange(options, &mut connections, &mut tally);
    }
    report("kept", &tally, &meter.stop(rounds * options.batch));
    close(connections);
}

/// The memory that connections hold that have had one response and wait for the next request. The
/// server has to be a new one, or they are given what it still holds of earlier ones.
pub fn idle(options: &Options) {
    let mut tally = LazyCounter::default();
    let configs = fresh(options);
    // Once: what they leave behind is used again, and then not seen.
    close(open(options, &configs, &mut tally));
    settle(SETTLE);
    let before = memory_kib(options.pid);
    let meter = Meter::start(options.pid);
    let connections = open_many(options, options.count, &mut tally);
    let opening = meter.stop(connections.len());
    settle(SETTLE);
    let each = (memory_kib(options.pid) as f64 - before as f64) / connections.len() as f64;
    report("idle", &tally, &format!("\"kib\":{each:.2},\"before_kib\":{before},{opening}"));
    close(connections);
}

/// Connections that have had one response, for as long as standard input is open. `batch` is
/// how many.
pub fn hold(options: &Options) {
    let mut tally = LazyCounter::default();
    let connections = open_many(options, options.batch, &mut tally);
    println!("{{\"mode\":\"ready\"}}");
    let _ = std::io::stdin().read(&mut [0]);
    report("hold", &tally, &format!("\"held\":{}", connections.len()));
}

/// Requests at a pace, one at a time, on many connections: how long each takes. `count` is how many
/// requests, `batch` how many connections.
pub fn paced(options: &Options) {
    let mut tally = LazyCounter::default();
    let mut connections = open_many(options, options.batch, &mut tally);
    println!("{{\"mode\":\"ready\"}}");
    let meter = Meter::start(options.pid);
    let mut times = Vec::with_capacity(options.count);
    let began = Instant::now();
    for index in 0..options.count {
        let due = began + Duration::from_secs(1) * index as u32 / options.rate;
        settle(due.saturating_duration_since(Instant::now()));
        let at = index % connections.len();
        let sent = Instant::now();
        exchange(options, &mut connections[at..=at], &mut tally);
        times.push(sent.elapsed());
    }
    let cost = meter.stop(options.count);
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let (middle, p99, p999, most) = (at(0.5), at(0.99), at(0.999), at(1.0));
    let times = format!(
        "\"p50_ms\":{middle:.3},\"p99_ms\":{p99:.3},\"p999_ms\":{p999:.3},\"max_ms\":{most:.3}"
    );
    report("paced", &tally, &format!("{times},{cost}"));
    close(connections);
}

/// So many, a batch at a time.
fn open_many(options: &Options, count: usize, tally: &mut LazyCounter) -> Vec<Connection> {
    let config = config(options, Resumption::disabled());
    let mut connections = Vec::with_capacity(count);
    while connections.len() < count && tally.errors == 0 {
        let batch = vec![Arc::clone(&config); BATCH.min(count - connections.len())];
        connections.extend(open(options, &batch, tally));
    }
    connections
}

fn settle(time: Duration) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(rest);
    }
}
