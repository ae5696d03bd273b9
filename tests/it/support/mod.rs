//! What the tests of the binary as a process share: starting it, reading its log, running programs
//! against it. Every wait has a deadline, and its failure shows the whole log.

#![allow(dead_code, reason = "each test target uses its own part of this")]

pub mod files;
pub mod h2;
pub mod pki;
pub mod proxy;
pub mod shapes;
pub mod tls;

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far longer than anything here should take: a longer wait is a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until `condition` holds; true if it did before the deadline.
pub fn wait_for(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    true
}

/// The flags of a server whose files are in this directory, named as everywhere in these tests.
pub fn flags(directory: &Path) -> Vec<String> {
    let files = [("--cert", "server.pem"), ("--key", "server.key"), ("--trust", "trust")];
    let path = |name| directory.join(name).into_os_string().into_string().unwrap();
    files.into_iter().flat_map(|(flag, name)| [flag.to_owned(), path(name)]).collect()
}

/// A running `portcullis serve`, killed when it goes out of scope.
pub struct Portcullis {
    child: Child,
    log: Arc<Mutex<Log>>,
    addr: SocketAddr,
}

/// What the process has written to its standard error.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    /// Events that no test has waited for yet, in order.
    events: Vec<Value>,
    /// No more will come.
    ended: bool,
}

impl Portcullis {
    /// The binary under test: the one `PORTCULLIS_BIN` names, or else the one cargo has just built.
    pub fn command() -> Command {
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_portcullis"));
        let path = std::env::var_os("PORTCULLIS_BIN").map_or_else(built, PathBuf::from);
        let mut command = Command::new(path);
        // It would warn of a variable that it does not know.
        for variable in ["PORTCULLIS_BIN", "PORTCULLIS_GENUINE", "PORTCULLIS_SUITES_PYTHON"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts a server on a free port of the loopback interface and waits until it listens.
    /// `args` are those of `serve` beyond `--listen` and `--log-format`.
    pub fn serve(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::serve_by(Self::command(), args)
    }

    /// The same, where `command` runs the binary with the arguments that it is given.
    pub fn serve_by(
        mut command: Command,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]).args(args);
        Self::start(command.stdin(Stdio::null()))
    }

    /// Starts a server by this command, which has it log in JSON, and waits until it listens.
    pub fn start(command: &mut Command) -> Self {
        let mut server = Self::spawn(command);
        let listening = server.wait_for_event("listening", |_| true);
        server.addr = listening["addr"]
            .as_str()
            .and_then(|addr| addr.parse().ok())
            .expect("`listening` carries the bound address");
        server
    }

    /// Starts any command that logs in JSON.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Log::default()));
        let stderr = child.stderr.take().expect("stderr is a pipe");
        thread::spawn({
            let log = Arc::clone(&log);
            move || collect(BufReader::new(stderr), &log)
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { child, log, addr: nowhere }
    }

    /// A file of the process's directory in `/proc`.
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for an event called `name` that fits. Each event is handed out once, so that waiting
    /// twice means two events.
    #[track_caller]
    pub fn wait_for_event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        wait_for(DEADLINE, || {
            let mut log = lock(&self.log);
            let at = log.events.iter().position(|event| event["message"] == name && fits(event));
            found = at.map(|at| log.events.remove(at));
            found.is_some() || log.ended
        });
        found.unwrap_or_else(|| panic!("no fitting `{name}` in the log:\n{}", self.log()))
    }

    /// Forgets the events of this name, ahead of causing a new one.
    pub fn forget_events(&self, name: &str) {
        lock(&self.log).events.retain(|event| event["message"] != name);
    }

    /// All that the process has logged so far.
    pub fn log(&self) -> String {
        lock(&self.log).lines.join("\n")
    }

    /// Sends a signal, for example `TERM` or `HUP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// The most memory that the process has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the process runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a size") << 10
    }

    /// Sends SIGTERM and waits for the exit code; `None` if a signal ended the process.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        self.exit_code()
    }

    /// Waits for the process to end by itself; `None` if a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        match end(&mut self.child) {
            Some(status) => status.code(),
            None => panic!("still running:\n{}", self.log()),
        }
    }
}

impl Drop for Portcullis {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// The exit code and the output of a program.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a program to its end. Its standard input holds `input` and then stays open: some, like
/// `openssl s_client`, would otherwise leave before the response.
#[track_caller]
pub fn run(command: &mut Command, input: &str) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = read_to_end(child.stdout.take());
    let stderr = read_to_end(child.stderr.take());
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // A program that ended without reading it has the reason in its output.
    let _ = stdin.write_all(input.as_bytes());
    let ended = end(&mut child);
    kill(&mut child);
    let text = |reader: thread::JoinHandle<_>| reader.join().expect("output is read");
    let finished = Finished {
        code: ended.and_then(|status| status.code()),
        stdout: text(stdout),
        stderr: text(stderr),
    };
    assert!(ended.is_some(), "{command:?} did not end; {finished}");
    finished
}

fn collect(stderr: impl BufRead, log: &Mutex<Log>) {
    for line in stderr.lines().map_while(Result::ok) {
        let mut log = lock(log);
        log.events.extend(serde_json::from_str::<Value>(&line));
        log.lines.push(line);
    }
    lock(log).ended = true;
}

fn read_to_end(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("output is a pipe");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// How the process ended; `None` if it outlives the deadline.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    wait_for(DEADLINE, || {
        status = child.try_wait().expect("the process can be waited for");
        status.is_some()
    });
    status
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
