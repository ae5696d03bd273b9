//! A server, an accepted client that measures how long it waits, and what is left of
//! a process when all is over.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::support::pki::{Credential, PKI};
use crate::support::tls::{Client, Connector, request};
use crate::support::{self, DEADLINE, Portcullis, wait_for};

/// The longest that an accepted client may wait, whatever others do.
pub const SERVED_WITHIN: Duration = Duration::from_secs(1);

/// How often it must have been served at the least.
const ENOUGH: usize = 20;

/// How often it asks.
const PACE: Duration = Duration::from_millis(10);

/// The memory of a process is settled if it has not shrunk for this long.
const SETTLED: Duration = Duration::from_millis(2500);

/// How many rounds each test has, unless PORTCULLIS_ROUNDS is set. At least four.
const ROUNDS: usize = 10;

/// By how much the memory after one round may differ from that after another, in KiB: 12.7 to 16.0 MiB
/// were seen after ten thousand certificates had come and gone, half a MiB of difference in all others.
const FEW_ROUNDS_NOISE: usize = 4 << 10;

/// The most memory that a process without connections may have, in KiB.
const MOST_MEMORY: usize = 20 << 10;

/// A client of TLS 1.3 with no sessions to resume.
pub fn connector(credential: &Credential) -> Connector {
    let client = Client::from_pem(&credential.cert, &credential.key);
    Connector::new(Some(&client), &rustls::version::TLS13)
}

/// A server that trusts A. Only one is there at a time, and has the machine to itself.
pub struct Fire {
    pub server: Portcullis,
    pub dir: TempDir,
    /// Descriptors that are open while no client is connected.
    descriptors: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Fire {
    pub fn new(flags: &[&str]) -> Self {
        Self::started_by(Portcullis::command(), flags, |_| {})
    }

    /// A server that `command` starts, when `prepare` has had the directory of its files.
    pub fn started_by(command: Command, flags: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
        fs::create_dir(path("trust")).unwrap();
        fs::write(path("server.pem"), &PKI.server.cert).unwrap();
        fs::write(path("server.key"), &PKI.server.key).unwrap();
        fs::write(path("trust/a.pem"), &PKI.a.cert).unwrap();
        prepare(dir.path());
        let args = support::flags(dir.path()).into_iter();
        let args = args.chain(flags.iter().map(|flag| flag.to_string()));
        let server = Portcullis::serve_by(command, args);
        let mut fire = Self { server, dir, descriptors: 0, _alone: alone };
        fire.descriptors = fire.descriptors();
        fire
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How many descriptors the process has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(self.server.proc("fd")).unwrap().count()
    }

    /// Waits until the process has so many open.
    #[track_caller]
    pub fn wait_for_descriptors(&self, least: usize) {
        let are_there = wait_for(DEADLINE, || self.descriptors() >= least);
        assert!(are_there, "{} of {least} descriptors", self.descriptors());
    }

    /// The memory that the process has, in KiB.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(self.server.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The time that the process has computed for.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(self.server.proc("stat")).unwrap();
        // The name, in parentheses, is the second field; utime and stime are 14 and 15.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>());
        // A hundred a second, whatever the kernel's own clock.
        Duration::from_millis(ticks.map(Result::unwrap).sum::<u64>() * 10)
    }

    /// Waits until no client is connected and the process has released its memory.
    #[track_caller]
    fn rest(&self) -> usize {
        let are_closed = wait_for(DEADLINE, || self.descriptors() <= self.descriptors);
        assert!(are_closed, "{} descriptors of {}", self.descriptors(), self.descriptors);
        let (mut least, mut since) = (self.memory(), Instant::now());
        wait_for(DEADLINE, || {
            let now = self.memory();
            if now < least {
                (least, since) = (now, Instant::now());
            }
            since.elapsed() >= SETTLED
        });
        least
    }

    /// Does the same many times, while an accepted client sends requests: it is served within a
    /// second throughout, and the memory that is left afterwards does not grow.
    pub async fn rounds(&self, mut round: impl AsyncFnMut(&Watch)) {
        // What is made at the first request and kept is no part of it.
        let watch = Watch::start(self.addr());
        (0..5).for_each(|_| watch.some_more());
        watch.end(&self.server.log());
        println!("at start: {} KiB", self.rest());
        let mut left = Vec::new();
        let rounds = std::env::var("PORTCULLIS_ROUNDS").ok().and_then(|text| text.parse().ok());
        let rounds = rounds.unwrap_or(ROUNDS).max(4);
        for _ in 0..rounds {
            left.push(self.round(&mut round).await);
        }
        let most = |rounds: &[usize]| rounds.iter().copied().max().unwrap();
        // Fewer rounds than ten are too few to leave one out, and to tell growth from the pages that
        // an allocator holds now and not then.
        let (early, late, noise) = match rounds < 10 {
            true => (&left[..rounds - 1], &left[rounds - 1..], FEW_ROUNDS_NOISE),
            false => (&left[1..4], &left[rounds - 3..], 0),
        };
        let (early, late) = (most(early) + noise, most(late));
        assert!(late * 100 <= early * 105, "memory grows: {left:?} KiB");
        assert!(most(&left) <= MOST_MEMORY, "too much memory is left: {left:?} KiB");
    }

    async fn round(&self, round: &mut impl AsyncFnMut(&Watch)) -> usize {
        let watch = Watch::start(self.addr());
        round(&watch).await;
        watch.end(&self.server.log());
        let left = self.rest();
        println!("left behind: {left} KiB");
        left
    }
}

/// An accepted client in a thread of its own, and how long it waits.
pub struct Watch {
    is_over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Duration, String>>,
}

impl Watch {
    pub fn start(address: SocketAddr) -> Self {
        let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let asks = ask_until(address, Arc::clone(&is_over), Arc::clone(&served));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || runtime.block_on(asks));
        Self { is_over, served, thread }
    }

    /// Waits until it has been served a few more times, or has failed.
    pub fn some_more(&self) {
        self.until_served(self.served.load(Ordering::Relaxed) + ENOUGH);
    }

    fn until_served(&self, enough: usize) {
        wait_for(DEADLINE, || {
            self.thread.is_finished() || self.served.load(Ordering::Relaxed) >= enough
        });
    }

    /// Asserts that it was served throughout, each time within a second.
    #[track_caller]
    pub fn end(self, log: &str) {
        // What it is to be served through may be over before that.
        self.until_served(ENOUGH);
        self.is_over.store(true, Ordering::Relaxed);
        let slowest = self.thread.join().unwrap();
        let served = self.served.load(Ordering::Relaxed);
        println!("served {served} times, the slowest in {slowest:?}");
        let last = &log[log.len().saturating_sub(4000)..];
        assert!(slowest.is_ok_and(|slowest| slowest <= SERVED_WITHIN), "{last}");
        assert!(served >= ENOUGH);
    }
}

async fn ask_until(
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
) -> Result<Duration, String> {
    let connector = || connector(&PKI.a);
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    let kept = connector().connect(address).await;
    let mut kept = kept.map_err(|error| failed("connecting", error))?;
    let mut slowest = Duration::ZERO;
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !is_over.load(Ordering::Relaxed) {
        pace.tick().await;
        let begun = Instant::now();
        let response = request(&mut kept, "").await;
        response.map_err(|error| failed("on the connection that was kept", error))?;
        slowest = slowest.max(begun.elapsed());
        let begun = Instant::now();
        connector().ask(address).await.map_err(|error| failed("on a new connection", error))?;
        slowest = slowest.max(begun.elapsed());
        served.fetch_add(2, Ordering::Relaxed);
    }
    Ok(slowest)
}

/// Connections that have all sent the same bytes, and wait.
pub fn open(address: SocketAddr, number: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        // A connection that is dropped meanwhile is replaced.
        let _ = io::Write::write_all(&mut stream, bytes);
        stream
    };
    (0..number).map(open).collect()
}

/// Does the same so many times, some of them at once.
pub async fn crowd<F>(number: usize, mut one: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    const AT_ONCE: usize = 64;
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..number {
        if running.len() >= AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(one());
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}
