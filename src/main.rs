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
use std::process::ExitCode;
use std::time::Duration;

use portcullis::admin::{Admin, Metrics};
use portcullis::cli::{Cli, Command, LogFormat, Serve, Switch, Verdict};
use portcullis::log::{Lines, LogGuard, LogWriter};
use portcullis::service::ApiId;
use portcullis::{Handle, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often it is looked whether log lines were lost.
const LOST_LINES: Duration = Duration::from_secs(10);

/// A failure while running.
const FAILED: u8 = 1;
/// Usage, or files that do not load.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    // A thread that cannot be had panics, deep in a library: that is a failure like any other.
    std::panic::catch_unwind(|| match Cli::read().command {
        Command::Serve(serve) => run(&serve),
        Command::Check(check) => look(|out| check.run(out)),
        Command::Inspect(inspect) => look(|out| inspect.run(out)),
        Command::Explain(explain) => look(|out| explain.run(out)),
    })
    .unwrap_or(ExitCode::from(FAILED))
}

/// Runs a command that looks at files. A reader that has gone does not change the verdict.
fn look(run: impl FnOnce(&mut Vec<u8>) -> io::Result<Verdict>) -> ExitCode {
    let mut out = Vec::new();
    let verdict = run(&mut out);
    let _ = io::stdout().write_all(&out);
    match verdict {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Faulty) => ExitCode::from(UNUSABLE),
        Err(_) => ExitCode::from(FAILED),
    }
}

fn run(serve: &Serve) -> ExitCode {
    let (log, _guard) = match start_log(serve) {
        Ok(log) => log,
        Err(error) => {
            // Standard error may be what is wrong.
            let _ = writeln!(io::stderr(), "error: the log cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, remedy = "raise the limits on threads and open files", "cannot_start");
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(serve_until_stopped(serve, log));
    // What a service left running does not keep the process from ending.
    runtime.shutdown_background();
    code
}

/// Says how many log lines have been lost since `said` of them were; returns how many have been
/// said now. The line that says so may be lost as well, and is then said again.
fn say_lost(log: &LogWriter, said: u64) -> u64 {
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

async fn serve_until_stopped(serve: &Serve, log: LogWriter) -> ExitCode {
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
    let bound = match serve.config().bind() {
        Ok(bound) => bound,
        Err(error) => return say_not_started(&error),
    };
    let admin = match bind_admin(serve).await {
        Ok(admin) => admin,
        Err(code) => return code,
    };
    let answer = &serve.answer;
    let running = match answer.proxy() {
        Some(proxy) => bound.serve_hyper(ApiId::new(&answer.api_id, proxy)),
        None => bound.serve_hyper(ApiId::new(&answer.api_id, answer.hello(serve.body_timeout))),
    };
    let handle = running.handle();
    if let (Some(admin), Some(metrics)) = (admin, metrics) {
        tokio::spawn(admin.serve(handle.clone(), metrics));
    }
    let stopped = running.stopped();
    tokio::pin!(stopped);
    let mut said = 0;
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = signals.obey(&handle) => {}
            () = tokio::time::sleep(LOST_LINES) => said = say_lost(&log, said),
        }
    }
    say_lost(&log, said);
    ExitCode::SUCCESS
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

fn say_not_started(error: &StartError) -> ExitCode {
    match error {
        StartError::Material { findings, .. } => {
            findings.iter().for_each(portcullis::cli::say);
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
            (true, false) => handle.stop(),
            (true, true) => handle.abort(),
            (false, false) => {
                let (reloaded, handle) = (handle.reload(), handle.clone());
                tokio::spawn(async move {
                    reloaded.await;
                    info!(generation = handle.generation(), "reloaded");
                });
            }
            (false, true) => {}
        }
        self.stopping |= is_stop;
    }
}

fn start_log(serve: &Serve) -> io::Result<(LogWriter, LogGuard)> {
    let targets = match serve.access_log {
        Switch::On => serve.log.clone(),
        Switch::Off => serve.log.clone().with_target("portcullis::access", LevelFilter::OFF),
    };
    let (writer, guard) = LogWriter::start(io::stderr())?;
    let lines = match serve.log_format {
        LogFormat::Text => Lines::Text { colours: io::stderr().is_terminal() },
        LogFormat::Json => Lines::Json,
    };
    let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(writer.clone());
    tracing_subscriber::registry().with(targets).with(layer).init();
    Ok((writer, guard))
}
