//! A flood of validations that stall: it delays no client and no other validation.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::handshake::{ACME, Connector, Validating, accepted};
use super::pebble::DOMAIN;
use crate::support::DEADLINE;

/// The connections of a flood are more than the soft limit.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })
        .expect("the soft limit can be raised to the hard one");
}

fn connections() -> u32 {
    raise_open_files();
    match std::env::var("PORTCULLIS_STALLED") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => 500,
    }
}

/// Connections that send this and nothing more.
async fn stall(addr: SocketAddr, hello: &[u8], number: u32) -> Vec<TcpStream> {
    let mut stalled = Vec::new();
    for _ in 0..number {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        // One that is dropped meanwhile may not take it.
        let _ = socket.write_all(hello).await;
        stalled.push(socket);
    }
    stalled
}

/// How long an accepted client waits for its response.
async fn wait(addr: SocketAddr) -> Duration {
    let client = Connector::new(&["http/1.1"], &TLS13, Some(&accepted()));
    let began = Instant::now();
    assert!(client.request(addr, DOMAIN).await.unwrap().contains("hello world"));
    began.elapsed()
}

#[tokio::test]
async fn stalled_validations_keep_out_neither_clients_nor_other_validations() {
    let number = connections();
    let validating = tokio::task::spawn_blocking(Validating::start).await.unwrap();
    let addr = validating.addr();
    let validator = Connector::new(&[ACME], &TLS13, None);
    let stalled = stall(addr, &validator.hello(DOMAIN), number).await;
    // The first one comes behind the flood.
    wait(addr).await;
    for _ in 0..10 {
        let waited = wait(addr).await;
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    }
    let last = Instant::now();
    validator.proof(addr, DOMAIN).await.unwrap();
    let (dropped, timed_out) = (
        "portcullis_acme_handshakes_total{result=\"dropped\"}",
        "portcullis_acme_handshakes_total{result=\"timed_out\"}",
    );
    let end = Instant::now() + DEADLINE;
    // All but the last eight are dropped for those that came later, and these have five seconds.
    while validating.metric(timed_out) < 7.0 {
        assert!(Instant::now() < end, "{}", validating.metric(timed_out));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // So many at once that some gave way before their ClientHello was read.
    let too_many = "portcullis_handshakes_total{result=\"too_many_handshakes\"}";
    let counted = [dropped, timed_out, too_many].map(|series| validating.metric(series));
    assert!(counted.iter().sum::<f64>() >= f64::from(number), "{counted:?}");
    assert!(validating.metric(timed_out) <= 8.0);
    // The last one came before `last`; a machine that is busy takes its time to count it.
    assert!(last.elapsed() < Duration::from_secs(5 + 3), "{:?}", last.elapsed());
    drop(stalled);
}

/// What a flood costs the server, in ticks of CPU time, and an accepted client that comes after it.
async fn flood(validating: &Validating, hello: &[u8], number: u32) -> (u64, Duration) {
    let before = cpu_time(validating);
    let stalled = stall(validating.addr(), hello, number).await;
    let waited = wait(validating.addr()).await;
    let used = cpu_time(validating) - before;
    drop(stalled);
    // The next client comes after those that leave now.
    wait(validating.addr()).await;
    (used, waited)
}

fn cpu_time(validating: &Validating) -> u64 {
    let stat = fs::read_to_string(validating.server.proc("stat")).unwrap();
    // The name in parentheses may hold anything; `utime` and `stime` are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn stalled_validations_delay_a_client_no_more_than_other_stalled_handshakes() {
    let number = connections();
    let validating = tokio::task::spawn_blocking(Validating::start).await.unwrap();
    let hellos = [ACME, "http/1.1"].map(|alpn| Connector::new(&[alpn], &TLS13, None).hello(DOMAIN));
    let mut rounds = [(); 2].map(|()| Vec::new());
    // By turns, so that other load on this machine meets both.
    for _ in 0..5 {
        for (hello, rounds) in hellos.iter().zip(&mut rounds) {
            rounds.push(flood(&validating, hello, number).await);
        }
    }
    let [relaxed, strict] = rounds.map(|rounds| {
        let (mut used, mut waited): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
        used.sort_unstable();
        waited.sort_unstable();
        (used[2], waited[2])
    });
    eprintln!("{number} stalled: relaxed {relaxed:?}, strict {strict:?}");
    // All but a few are dropped before they are computed: a third of the CPU time.
    assert!(relaxed.0 <= strict.0, "CPU time: relaxed {relaxed:?}, strict {strict:?}");
    assert!(relaxed.1 <= strict.1, "delay: relaxed {relaxed:?}, strict {strict:?}");
}
