//! The binary: flags → parts → run → exit code.

use std::io::{IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use portcullis::cli::{Cli, Command, LogFormat, Serve, sandbox, systemd};
use portcullis::service::Hello;
use portcullis::{Config, Handle, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// So many log lines wait for whoever reads them; those that come after are lost, and counted.
const LOG_LINES: usize = 8192;

/// How often it is looked whether log lines were lost.
const LOST_LINES: Duration = Duration::from_secs(10);

/// A failure while running.
const FAILED: u8 = 1;
/// Usage, or files that do not load.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    // The command line library exits by itself, with 2, where a flag is wrong.
    match Cli::parse().command {
        Command::Serve(serve) => run(&serve),
        Command::Check(serve) => check(&serve),
    }
}

fn check(serve: &Serve) -> ExitCode {
    let check = serve.config().check();
    let mut out = std::io::stdout().lock();
    // A reader that has gone does not change the verdict.
    for finding in &check.findings {
        let severity = match finding.severity {
            portcullis::Severity::Fault => "fault",
            portcullis::Severity::Warning => "warning",
        };
        let _ = writeln!(out, "{severity}: {finding}");
    }
    if let Some(reason) = &check.not_startable {
        let _ = writeln!(out, "fault: {reason}");
    }
    if check.is_good() {
        let _ = writeln!(out, "ok");
        ExitCode::SUCCESS
    } else {
        ExitCode::from(UNUSABLE)
    }
}

fn run(serve: &Serve) -> ExitCode {
    // All of this before there is a second thread, and before a key is read.
    let hidden = sandbox::hide_memory();
    // It asks how many cores there are, which the sandbox does not let it read.
    let config = serve.config();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let entered = (!serve.no_sandbox).then(|| sandbox::enter(serve.access()));
    let sockets = if serve.listen.is_empty() { systemd::sockets() } else { Ok(Vec::new()) };
    let (_guard, lost) = match start_log(serve) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: --log {:?}: {error}; write a level, or target=level", serve.log);
            return ExitCode::from(UNUSABLE);
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
    let code = runtime.block_on(serve_until_stopped(config, sockets, lost));
    // What a service left running does not keep the process from ending.
    runtime.shutdown_background();
    code
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
    config: Config,
    sockets: Vec<TcpListener>,
    lost: ErrorCounter,
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
    let bound = if sockets.is_empty() { config.bind() } else { config.bind_to(sockets) };
    let bound = match bound {
        Ok(bound) => bound,
        Err(error) => return say_not_started(&error),
    };
    let running = bound.serve_hyper(Hello);
    let handle = running.handle();
    systemd::ready();
    let stopped = running.stopped();
    tokio::pin!(stopped);
    let mut said = 0;
    loop {
        tokio::select! {
            _ = &mut stopped => return ExitCode::SUCCESS,
            () = signals.obey(&handle) => {}
            () = tokio::time::sleep(LOST_LINES) => {
                let lost = lost.dropped_lines();
                if lost > said {
                    warn!(lines = lost - said, "log_lines_lost");
                    said = lost;
                }
            }
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
    fn new() -> std::io::Result<Self> {
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

fn start_log(
    serve: &Serve,
) -> Result<(WorkerGuard, ErrorCounter), tracing_subscriber::filter::ParseError> {
    let targets: Targets = serve.log.parse()?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES)
        .finish(std::io::stderr());
    let lost = writer.error_counter();
    let subscriber = tracing_subscriber::registry().with(targets);
    match serve.log_format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            let text = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer);
            subscriber.with(text).init();
        }
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(writer);
            subscriber.with(json).init();
        }
    }
    Ok((guard, lost))
}
