//! A stand-in for API Gateway's control plane, and for its nodes that call the backends.
//!
//! REST paths, shapes and status codes are those of botocore's model; signatures are verified; the
//! certificates have the real shape. [`Fault`]s make it as unreliable as the real one may be.

#![allow(dead_code, unused_imports, reason = "each test uses its own part of this")]

pub mod account;
pub mod faults;
pub mod nodes;
mod routes;
mod server;
mod signature;
mod stages;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use account::{Certificate, Stage, TakesEffect};
pub use faults::{Fault, Settings};
pub use nodes::{Traffic, TrafficReport};

use account::Account;
use faults::Faults;

pub const REGION: &str = "eu-west-1";
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A call that the control plane received.
#[derive(Clone, Debug)]
pub struct Call {
    pub action: &'static str,
    pub path: String,
    /// `None` where the response was withheld.
    pub status: Option<u16>,
    pub at: Instant,
    /// It took effect, or failed; only its response may be missing.
    pub is_performed: bool,
}

/// What the stand-in knows; shared by the HTTP server, the nodes and the test.
#[derive(Default)]
struct State {
    account: Account,
    /// The account of the last seconds, for reads that lag.
    past: Vec<(Instant, Account)>,
    reads: usize,
    calls: Vec<Call>,
    faults: Faults,
    settings: Settings,
    /// While this call is held, neither it nor a later one proceeds.
    hold: Option<Hold>,
}

/// Stops the control plane at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Counts from 1.
    pub call: usize,
    /// After it took effect and before its response; or else before it takes effect.
    pub after: bool,
}

/// A running stand-in on loopback. It stops when it goes out of scope.
pub struct ControlPlane {
    state: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes calls that are held.
    released: tokio::sync::Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlPlane {
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn start_at(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let state = Arc::new(Shared::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(server::serve(listener, Arc::clone(&state)));
        Self { state, address, runtime: Some(runtime) }
    }

    /// For `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The variables by which the SDK, boto3 and the aws cli find it, and nothing else.
    pub fn variables(&self) -> [(&'static str, String); 8] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]
    }

    /// Adds a certificate that was generated so many days ago; returns its id.
    pub fn add_certificate(&self, days_ago: u64, tags: &[(&str, &str)]) -> String {
        let age = Duration::from_secs(days_ago * 24 * 60 * 60);
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let made = Certificate::generate(age, None, tags.collect());
        let id = made.id.clone();
        self.state.lock().account.add_certificate(made);
        id
    }

    /// Fills the account up to its quota with certificates that no stage uses.
    pub fn fill(&self) {
        let mut state = self.state.lock();
        let one = Certificate::generate(Duration::from_secs(100), None, BTreeMap::new());
        while state.account.certificates.len() < account::QUOTA {
            state.account.add_certificate(Certificate { id: account::new_id(6), ..one.clone() });
        }
    }

    /// Adds an API without stages, with `GET /health`; returns its id.
    pub fn add_api(&self, name: &str) -> String {
        self.state.lock().account.add_api(name)
    }

    /// Adds a stage, or makes it present another certificate (an id or an ARN) at once.
    pub fn set_stage(&self, api: &str, stage: &str, certificate: Option<&str>) {
        self.state.lock().account.set_stage(api, stage, certificate);
    }

    pub fn remove_certificate(&self, id: &str) {
        self.state.lock().account.certificates.remove(id);
    }

    pub fn tag_certificate(&self, id: &str, key: &str, value: &str) {
        let mut state = self.state.lock();
        let found = state.account.certificates.get_mut(id).expect("a certificate");
        found.tags.insert(key.to_owned(), value.to_owned());
    }

    /// What there is now, by id.
    pub fn certificates(&self) -> BTreeMap<String, Certificate> {
        self.state.lock().account.certificates.clone()
    }

    pub fn certificate(&self, id: &str) -> Option<Certificate> {
        self.state.lock().account.certificates.get(id).cloned()
    }

    /// What a stage presents by GetStage.
    pub fn presented(&self, api: &str, stage: &str) -> Option<String> {
        let state = self.state.lock();
        state.account.stage(api, stage).and_then(|stage| stage.certificate.clone())
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// How often this operation was called.
    pub fn count(&self, action: &str) -> usize {
        self.state.lock().calls.iter().filter(|call| call.action == action).count()
    }

    /// The most calls that came within any second.
    pub fn busiest_second(&self) -> usize {
        let calls = self.calls();
        let within = |from: Instant| {
            let is_within = |call: &&Call| {
                call.at >= from && call.at.duration_since(from) < Duration::from_secs(1)
            };
            calls.iter().filter(is_within).count()
        };
        calls.iter().map(|call| within(call.at)).max().unwrap_or_default()
    }

    /// The next call of this operation (`*` for any) fails like this. Several wait in line.
    pub fn fail(&self, action: &'static str, fault: Fault) {
        self.state.lock().faults.push(action, fault);
    }

    /// How many faults have not happened yet.
    pub fn faults_left(&self) -> usize {
        self.state.lock().faults.len()
    }

    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state.lock().settings);
    }

    pub fn hold(&self, hold: Option<Hold>) {
        self.state.lock().hold = hold;
        self.state.released.notify_waiters();
    }

    /// Waits until this many calls took effect, or `give_up` says so; returns how many did.
    pub fn wait_for_calls(&self, count: usize, mut give_up: impl FnMut() -> bool) -> usize {
        let end = Instant::now() + Duration::from_secs(120);
        let performed = |state: &State| state.calls.iter().filter(|call| call.is_performed).count();
        let mut state = self.state.lock();
        while performed(&state) < count && Instant::now() < end && !give_up() {
            let waited = self.state.changed.wait_timeout(state, Duration::from_millis(20));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        performed(&state)
    }

    /// Has the nodes call these backends for every stage until the traffic is stopped.
    pub fn start_traffic(&self, traffic: Traffic) -> nodes::Running {
        let runtime = self.runtime.as_ref().expect("it runs");
        nodes::start(runtime.handle(), Arc::clone(&self.state), traffic)
    }

    /// The backend and its root certificate for TestInvokeMethod.
    pub fn set_backend(&self, traffic: Traffic) {
        self.state.lock().settings.backend = Some(traffic);
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.hold(None);
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped within a test's own runtime, which must not block.
            thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(1)));
        }
    }
}
