//! For as long as one likes: certificates come and go every second under load.
//!
//!     cargo test --release --test soak -- --seconds 600
//!
//! Not one request of a certificate that stays may be lost, and nothing be left behind. Exits 1
//! where that is not so.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is a test, with a main function of its own"
)]

#[allow(dead_code, reason = "the tests of the operator's port use the rest")]
#[path = "it/admin/site.rs"]
mod site;
#[path = "it/support/mod.rs"]
mod support;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use site::AdminServer;
use support::files::Files;
use support::h2::{END_HEADERS, H2, HEADERS, POST, frame};
use support::pki::{Credential, PKI};
use support::tls::{Client, Connector, request};
use support::wait_for;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How many of each kind of client there are.
const EACH: usize = 4;

/// How long the process may take to settle.
const REST: Duration = Duration::from_secs(30);

/// The pause between two status requests, each of which takes an admin connection.
const LOOK: Duration = Duration::from_millis(100);

/// What happened so far.
#[derive(Default)]
struct UsageCounters {
    requests: AtomicU64,
    full: AtomicU64,
    resumed: AtomicU64,
    rotations: AtomicU64,
    refusals: AtomicU64,
    let_in: AtomicU64,
    left: AtomicU64,
    lost: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl UsageCounters {
    fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// A request of a certificate that stays.
    fn note<T>(&self, what: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(response) => {
                Self::add(&self.requests);
                Some(response)
            }
            Err(error) => {
                self.lost.lock().unwrap().push(format!("{what}: {error}"));
                None
            }
        }
    }

    fn handshake(&self, kind: Option<HandshakeKind>) {
        Self::add(if kind == Some(HandshakeKind::Resumed) { &self.resumed } else { &self.full });
    }
}

fn connector(credential: &Credential) -> Connector {
    let client = Client::from_pem(&credential.cert, &credential.key);
    Connector::new(Some(&client), &rustls::version::TLS13)
}

/// What the process holds: resident memory in KiB, descriptors, threads, tasks of its runtime.
#[derive(Clone, Copy, Debug, Default)]
struct Resources {
    memory: usize,
    descriptors: usize,
    threads: usize,
    tasks: usize,
}

impl Resources {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "there are few")]
    fn now(site: &AdminServer) -> Self {
        // Before it is asked, for the asking takes one for a moment.
        let descriptors = fs::read_dir(site.server.proc("fd")).unwrap().count();
        let tasks = site.metric("portcullis_tasks").unwrap() as usize;
        let status = fs::read_to_string(site.server.proc("status")).unwrap();
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Self { memory: figure("VmRSS:"), descriptors, threads: figure("Threads:"), tasks }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let seconds = match (args.next().as_deref(), args.next()) {
        (Some("--seconds"), Some(seconds)) => seconds.parse().ok(),
        (None, _) => Some(600),
        _ => None,
    };
    let Some(seconds) = seconds else {
        eprintln!("usage: cargo test --release --test soak -- [--seconds N]");
        return ExitCode::from(2);
    };
    let site = Files::new().serve(&[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let is_good = soak(&runtime, &site, Duration::from_secs(seconds));
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Loads the server for a third of the time, has it rest, and does so again, and again: in the first
/// third it makes what it makes once, and what the second has not left behind, the last must not.
fn soak(runtime: &tokio::runtime::Runtime, site: &AdminServer, time: Duration) -> bool {
    let counts = Arc::new(UsageCounters::default());
    let start = Resources::now(site);
    println!("at start: {start:?}");
    let third = |most: Resources| {
        runtime.block_on(load(&counts, site, time / 3));
        rest(site, most)
    };
    let first = third(start);
    println!("after a third of the time: {first:?}");
    let before = third(first);
    println!("after two thirds: {before:?}");
    let after = third(before);
    println!("at the end: {after:?}");
    let figure = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "requests {}, handshakes {} full and {} resumed, rotations {}, refusals {}, strangers \
         accepted {}, left in the middle {}",
        figure(&counts.requests),
        figure(&counts.full),
        figure(&counts.resumed),
        figure(&counts.rotations),
        figure(&counts.refusals),
        figure(&counts.let_in),
        figure(&counts.left),
    );
    let lost = counts.lost.lock().unwrap();
    println!("lost: {}", lost.len());
    lost.iter().take(20).for_each(|lost| println!("  {lost}"));
    lost.is_empty()
        && figure(&counts.let_in) == 0
        && figure(&counts.resumed) > 0
        && figure(&counts.refusals) > 0
        && after.descriptors <= before.descriptors
        && after.threads <= before.threads
        && after.tasks <= before.tasks
        && after.memory * 100 <= before.memory * 105
}

/// Waits until there are no more descriptors, threads and tasks than these, and memory has come to rest.
/// (A thread that has read files waits for ten seconds for more to read.)
fn rest(site: &AdminServer, most: Resources) -> Resources {
    let mut now = Resources::now(site);
    let (mut least, mut since) = (now, Instant::now());
    wait_for(REST, || {
        #[expect(clippy::disallowed_methods, reason = "the memory of a process has no event")]
        thread::sleep(LOOK);
        now = Resources::now(site);
        if now.memory < least.memory || now.descriptors < least.descriptors {
            (least, since) = (now, Instant::now());
        }
        now.descriptors <= most.descriptors
            && now.threads <= most.threads
            && now.tasks <= most.tasks
            && since.elapsed() >= Duration::from_secs(4)
    });
    now
}

async fn load(counts: &Arc<UsageCounters>, site: &AdminServer, time: Duration) {
    let address = site.server.addr();
    counts.is_over.store(false, Ordering::Relaxed);
    let mut clients = JoinSet::new();
    for _ in 0..EACH {
        clients.spawn(keep_alive(Arc::clone(counts), address));
        clients.spawn(keep_alive_h2(Arc::clone(counts), address));
        clients.spawn(come_anew(Arc::clone(counts), address));
        clients.spawn(leave_in_the_middle(Arc::clone(counts), address));
    }
    clients.spawn(stranger(Arc::clone(counts), address));
    clients.spawn(come_and_go(Arc::clone(counts), address));
    let end = Instant::now() + time;
    let mut second = interval(Duration::from_secs(1));
    while Instant::now() < end {
        second.tick().await;
        match site.files.path("trust/b.pem").exists() {
            true => site.files.remove("b.pem"),
            false => site.files.trust("b.pem", &PKI.b.cert),
        }
        UsageCounters::add(&counts.rotations);
    }
    counts.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// How fast each client asks.
fn pace() -> tokio::time::Interval {
    let mut pace = interval(Duration::from_millis(5));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// HTTP/1.1 on one connection for as long as it goes.
async fn keep_alive(counts: Arc<UsageCounters>, address: SocketAddr) {
    let connector = connector(&PKI.a);
    let mut pace = pace();
    while !counts.is_over() {
        let Ok(mut stream) = connector.connect(address).await else {
            counts.lost.lock().unwrap().push("connecting".to_owned());
            continue;
        };
        counts.handshake(stream.get_ref().1.handshake_kind());
        while !counts.is_over() {
            pace.tick().await;
            if counts.note("kept, HTTP/1.1", request(&mut stream, "").await).is_none() {
                break;
            }
        }
    }
}

/// HTTP/2 on one connection for as long as it goes.
async fn keep_alive_h2(counts: Arc<UsageCounters>, address: SocketAddr) {
    let connector = connector(&PKI.a).speaking("h2");
    let mut pace = pace();
    while !counts.is_over() {
        let Some(stream) = counts.note("connecting", connector.connect(address).await) else {
            continue;
        };
        counts.handshake(stream.get_ref().1.handshake_kind());
        let Some(mut h2) = counts.note("HTTP/2 begun", H2::start(stream, 65_535).await) else {
            continue;
        };
        while !counts.is_over() {
            pace.tick().await;
            if counts.note("kept, HTTP/2", h2.get().await).is_none() {
                break;
            }
        }
    }
}

/// A new connection each time, resumed where that is offered.
async fn come_anew(counts: Arc<UsageCounters>, address: SocketAddr) {
    let connector = connector(&PKI.a);
    let mut pace = pace();
    while !counts.is_over() {
        pace.tick().await;
        let response = counts.note("on a new connection", connector.ask(address).await);
        if let Some((_, kind)) = response {
            counts.handshake(Some(kind));
        }
    }
}

/// Half a request, over HTTP/1.1 and HTTP/2 in turn.
async fn leave_in_the_middle(counts: Arc<UsageCounters>, address: SocketAddr) {
    let connectors = [connector(&PKI.a), connector(&PKI.a).speaking("h2")];
    let mut pace = pace();
    while !counts.is_over() {
        for (connector, is_h2) in connectors.iter().zip([false, true]) {
            pace.tick().await;
            let Ok(mut stream) = connector.connect(address).await else { continue };
            let post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx";
            let _ = if is_h2 {
                match H2::start(stream, 65_535).await {
                    Ok(mut h2) => h2.send(&frame(HEADERS, END_HEADERS, 1, POST)).await,
                    Err(error) => Err(error),
                }
            } else {
                stream.write_all(post).await
            };
            UsageCounters::add(&counts.left);
        }
    }
}

/// A client that is never accepted.
async fn stranger(counts: Arc<UsageCounters>, address: SocketAddr) {
    let stranger = connector(&PKI.stranger);
    let mut pace = pace();
    while !counts.is_over() {
        pace.tick().await;
        let response = stranger.ask(address).await;
        UsageCounters::add(if response.is_ok() { &counts.let_in } else { &counts.refusals });
    }
}

/// The client whose certificate comes and goes: it is accepted or not, and its connections close.
async fn come_and_go(counts: Arc<UsageCounters>, address: SocketAddr) {
    let connector = connector(&PKI.b);
    let mut pace = pace();
    while !counts.is_over() {
        pace.tick().await;
        let Ok(mut stream) = connector.connect(address).await else { continue };
        while request(&mut stream, "").await.is_ok() && !counts.is_over() {
            pace.tick().await;
        }
    }
}
