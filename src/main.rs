//! The binary: flags → parts → run → exit code.

// In tests they are how a test fails.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::dbg_macro,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unwrap_used
    )
)]

use std::io::{self, IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use portcullis::admin::{Admin, Metrics};
use portcullis::cli::{Cli, Command, LogFormat, Outcome, Serve, Switch, sandbox, systemd};
use portcullis::log::{Lines, LogGuard, LogLayer, LogWriter};
use portcullis::service::ApiId;
use portcullis::{Config, Handle, StartError};
use tokio::runtime::Handle as Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How often it is looked whether log lines were lost.
const LOST_LINES: Duration = Duration::from_secs(10);

/// How often it is looked whether memory can be given back.
const TIDY: Duration = Duration::from_millis(250);

/// A failure while running.
const FAILED: u8 = 1;
/// Usage, or files that do not load.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    if sandbox::run_as_probe() {
        return ExitCode::SUCCESS;
    }
    // A thread that cannot be had panics, deep in a library: that is a failure like any other.
    std::panic::catch_unwind(|| match Cli::read().command {
        Command::Serve(serve) => run(&serve),
        Command::Check(check) => look(|out| check.run(out)),
        Command::Inspect(inspect) => look(|out| inspect.run(out)),
        Command::Explain(explain) => look(|out| explain.run(out)),
        #[cfg(feature = "aws")]
        Command::Fetch(fetch) => run_aws(&fetch.log, fetch.log_format, || fetch.run()),
        #[cfg(not(feature = "aws"))]
        Command::Fetch(fetch) => fetch.run("fetch"),
    })
    .unwrap_or(ExitCode::from(FAILED))
}

/// Runs a command that looks at files. A reader that has gone does not change the verdict.
fn look(run: impl FnOnce(&mut Vec<u8>) -> io::Result<Outcome>) -> ExitCode {
    let mut out = Vec::new();
    let verdict = run(&mut out);
    let _ = io::stdout().write_all(&out);
    match verdict {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Faulty) => ExitCode::from(UNUSABLE),
        Err(_) => ExitCode::from(FAILED),
    }
}

fn run(serve: &Serve) -> ExitCode {
    // All of this before there is a second thread, and before a key is read.
    keep_little();
    let hidden = sandbox::hide_memory();
    // It asks how many cores there are, which the sandbox does not let it read.
    let config = serve.config();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let entered = (!serve.no_sandbox).then(|| sandbox::enter(serve.access()));
    let sockets = if serve.listen.is_empty() { systemd::sockets() } else { Ok(Vec::new()) };
    let targets = match serve.access_log {
        Switch::On => serve.log.clone(),
        Switch::Off => serve.log.clone().with_target("portcullis::access", LevelFilter::OFF),
    };
    let (log, _guard) = match start_log(targets, serve.log_format) {
        Ok(log) => log,
        Err(error) => {
            // Standard error may be what is wrong.
            let _ = writeln!(io::stderr(), "error: the log cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match entered {
        Some(entered) => entered.say(),
        None => info!(why = "--no-sandbox", "not_sandboxed"),
    }
    if let Err(error) = hidden {
        warn!(%error, remedy = "set the limit on core dumps to 0", "core_dumps_possible");
    }
    raise_open_files();
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            error!(%error, remedy = "pass TCP sockets in LISTEN_FDS, or set --listen", "cannot_start");
            return ExitCode::from(FAILED);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, remedy = "raise the limits on threads and open files", "cannot_start");
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(serve_until_stopped(serve, config, sockets, log));
    // What a service left running does not keep the process from ending.
    runtime.shutdown_background();
    code
}

/// Says how many log lines have been lost since `said` of them were; returns how many have been
/// said now. The line that says so may be lost as well, and is then said again.
fn log_lost_lines(log: &LogWriter, said: u64) -> u64 {
    let before = log.lost();
    if before > said {
        warn!(lines = before - said, "log_lines_lost");
    }
    if log.lost() == before { before } else { said }
}

/// Each connection takes a descriptor, and the soft limit on them is low for the sake of programs
/// that use `select`.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, remedy = "raise it with ulimit -n", "open_files_not_raised");
        }
    }
}

async fn serve_until_stopped(
    serve: &Serve,
    config: Config,
    sockets: Vec<TcpListener>,
    log: LogWriter,
) -> ExitCode {
    // Before anything is announced: from then on a signal may come.
    let signals = Signals::new();
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "cannot_start");
            return ExitCode::from(FAILED);
        }
    };
    // Before anything is counted.
    let metrics = match serve.admin.map(|_| Metrics::install()).transpose() {
        Ok(metrics) => metrics,
        Err(error) => {
            error!(%error, "cannot_start");
            return ExitCode::from(FAILED);
        }
    };
    let bound = if sockets.is_empty() { config.bind() } else { config.bind_to(sockets) };
    let bound = match bound {
        Ok(bound) => bound,
        Err(error) => return log_start_error(&error),
    };
    let admin = match bind_admin(serve).await {
        Ok(admin) => admin,
        Err(code) => return code,
    };
    let answer = &serve.answer;
    let running = match answer.proxy(serve.body_timeout) {
        Some(proxy) => bound.serve_hyper(ApiId::new(&answer.api_id, proxy)),
        None => bound.serve_hyper(ApiId::new(&answer.api_id, answer.hello(serve.body_timeout))),
    };
    let handle = running.handle();
    if let (Some(admin), Some(metrics)) = (admin, metrics) {
        tokio::spawn(admin.serve(handle.clone(), metrics));
    }
    systemd::ready();
    let stopped = running.stopped();
    tokio::pin!(stopped);
    let mut said = 0;
    let mut memory = Memory::default();
    let [mut lost_lines, mut tidy] = [LOST_LINES, TIDY].map(tokio::time::interval);
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = signals.obey(&handle) => {}
            _ = lost_lines.tick() => said = log_lost_lines(&log, said),
            _ = tidy.tick() => {
                let tasks = Runtime::current().metrics().num_alive_tasks();
                let most = handle.take_peak_connections();
                if memory.is_to_be_tidied(tasks, most, handle.generation()) {
                    give_back();
                }
            }
        }
    }
    log_lost_lines(&log, said);
    ExitCode::SUCCESS
}

/// What many connections or the files of before took and left is given back to the system: the C
/// library's allocator keeps it otherwise, and a flood of a minute would be paid for a year.
#[derive(Debug, Default)]
struct Memory {
    /// The most tasks there were since that was last done, and how many there were last.
    most: usize,
    last: usize,
    /// What the last of them left may be freed only after them: it is done twice.
    again: bool,
    generation: u64,
    /// For how many looks the generation has been the same.
    settled: u32,
}

impl Memory {
    /// So many tasks must have gone, and half of all.
    const MANY: usize = 16;
    /// For so many looks no generation must have come after another; who held the one before may
    /// let it go after that.
    const SETTLED: [u32; 2] = [4, 8];

    /// Whether many tasks have gone, and no more are going; or the files have changed, and change
    /// no more.
    ///
    /// `between` is how many there were at most since the last look: a flood may come and go
    /// between two.
    fn is_to_be_tidied(&mut self, tasks: usize, between: usize, generation: u64) -> bool {
        let are_going = tasks < self.last;
        (self.last, self.most) = (tasks, self.most.max(tasks).max(between));
        let have_gone = !are_going && self.most - tasks >= Self::MANY.max(self.most / 2);
        if have_gone {
            self.most = tasks;
        }
        let again = std::mem::replace(&mut self.again, have_gone);
        let is_new = std::mem::replace(&mut self.generation, generation) != generation;
        self.settled = if is_new { 0 } else { self.settled.saturating_add(1) };
        have_gone || again || Self::SETTLED.contains(&self.settled)
    }
}

/// Has the C library's allocator keep no more than 128 KiB at the end of each of its heaps. It would
/// keep twice the largest piece that it ever had mapped by itself and unmapped, megabytes in each,
/// and `malloc_trim` passes that over. (mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD)
fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "it is C's: it takes two numbers, while there is one thread")]
    let _ = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10) };
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "it is C's: it takes a number, and asks nothing of its caller")]
    let _ = unsafe { libc::malloc_trim(0) };
}

async fn bind_admin(serve: &Serve) -> Result<Option<Admin>, ExitCode> {
    let Some(address) = serve.admin else { return Ok(None) };
    match Admin::bind(address).await {
        Ok(admin) => Ok(Some(admin)),
        Err(error) => {
            let error = format!("cannot listen at {address} (--admin): {error}");
            error!(error, remedy = "choose another port, of this machine", "cannot_start");
            Err(ExitCode::from(FAILED))
        }
    }
}

fn log_start_error(error: &StartError) -> ExitCode {
    match error {
        StartError::Material { problems, .. } => {
            problems.iter().for_each(portcullis::cli::say);
            error!(%error, "cannot_start");
            ExitCode::from(UNUSABLE)
        }
        _ => {
            error!(%error, "cannot_start");
            ExitCode::from(FAILED)
        }
    }
}

/// What the operating system asks.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    stopping: bool,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            stopping: false,
        })
    }

    /// Waits for the next signal and does what it says.
    async fn obey(&mut self, handle: &Handle) {
        let is_stop = tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hang_up.recv() => false,
        };
        match (is_stop, self.stopping) {
            (true, false) => {
                systemd::stopping();
                handle.stop();
            }
            (true, true) => handle.abort(),
            (false, false) => {
                systemd::reloading();
                let (reloaded, handle) = (handle.reload(), handle.clone());
                tokio::spawn(async move {
                    reloaded.await;
                    systemd::ready();
                    info!(generation = handle.generation(), "reloaded");
                });
            }
            (false, true) => {}
        }
        self.stopping |= is_stop;
    }
}

/// Runs a command of the AWS side: it has time, so one thread is enough.
#[cfg(feature = "aws")]
fn run_aws<F: Future<Output = ExitCode>>(
    targets: &Targets,
    format: LogFormat,
    command: impl FnOnce() -> F,
) -> ExitCode {
    let started = start_log(targets.clone(), format).and_then(|log| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok((log, runtime))
    });
    match started {
        Ok((_log, runtime)) => {
            let code = runtime.block_on(command());
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot start: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn start_log(targets: Targets, format: LogFormat) -> io::Result<(LogWriter, LogGuard)> {
    let (writer, guard) = LogWriter::start(io::stderr())?;
    let lines = match format {
        LogFormat::Text => Lines::Text { colours: io::stderr().is_terminal() },
        LogFormat::Json => Lines::Json,
    };
    let layer = LogLayer::new(lines, writer.clone());
    tracing_subscriber::registry().with(targets).with(layer).init();
    Ok((writer, guard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_twice_when_many_have_gone_and_nobody_is_going() {
        let mut memory = Memory { settled: 9, ..Memory::default() };
        let seen = [3, 500, 400, 20, 20, 20, 20, 21, 36, 35, 35, 40, 20, 20, 20, 20, 99, 60, 60];
        let is_time = seen.map(|tasks| memory.is_to_be_tidied(tasks, 0, 0));
        let at: Vec<_> = (0..seen.len()).filter(|at| is_time[*at]).collect();
        assert_eq!(at, [4, 5, 13, 14]);
    }

    #[test]
    fn memory_is_given_back_when_many_have_come_and_gone_between_two_looks() {
        for (between, is_time) in [(5, false), (500, true)] {
            let mut memory = Memory { settled: 9, ..Memory::default() };
            assert!(!memory.is_to_be_tidied(3, 3, 0));
            assert_eq!(memory.is_to_be_tidied(3, between, 0), is_time);
            assert_eq!(memory.is_to_be_tidied(3, 3, 0), is_time);
            assert!(!memory.is_to_be_tidied(3, 3, 0));
        }
    }

    #[test]
    fn memory_is_given_back_when_the_files_have_changed_and_change_no_more() {
        let mut memory = Memory::default();
        let seen = [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4];
        let is_time = seen.map(|generation| memory.is_to_be_tidied(9, 9, generation));
        let at: Vec<_> = (0..seen.len()).filter(|at| is_time[*at]).collect();
        assert_eq!(at, [6, 10, 19]);
    }
}
