//! `portcullis serve`: flags → parts → run → exit code.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use tracing::{error, info, warn};

use super::environment::{UnknownVariable, name_of};
use super::flags::Serve;
use super::outcome::{FAILED, UNUSABLE};
use super::signals::Signals;
use super::{allocator, sandbox, start_log, systemd};
use crate::admin::{Admin, Metrics};
use crate::log::LogWriter;
use crate::service::{ApiId, Proxy};
use crate::{Config, Handle, Problem, StartError};

/// Interval between two reports of lost log lines.
const LOST_LINES: Duration = Duration::from_secs(10);

const ACME_TIMED_OUT: &str = "see acme_order_failed or acme_order_postponed";

/// Keeps the server's certificate current, and returns why there is none.
type Renew = Box<dyn FnOnce(Handle) -> Pin<Box<dyn Future<Output = String>>>>;

impl Serve {
    /// Serves until a signal stops it.
    pub(super) fn run(&self, unknown: &[UnknownVariable]) -> ExitCode {
        // Must run before there is a second thread, and before a key is read.
        let hidden = sandbox::hide_memory();
        // The sandbox hides the number of cores and the addresses of this machine.
        let config = self.config();
        #[cfg(feature = "acme")]
        let acme = self.acme().map(crate::acme::Acme::prepare).transpose();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let entered = (!self.limits.no_sandbox).then(|| sandbox::enter(&self.access()));
        let listens = !self.listening.listen.is_empty();
        let sockets = if listens { Ok(Vec::new()) } else { systemd::sockets() };
        let log = &self.observability.log;
        let Ok((log, _guard)) = start_log(log, self.observability.access_log) else {
            return ExitCode::from(FAILED);
        };
        match entered {
            Some(entered) => entered.log(),
            None => info!(why = "--no-sandbox", "not_sandboxed"),
        }
        if let Err(error) = hidden {
            warn!(%error, remedy = "set the limit on core dumps to 0", "core_dumps_possible");
        }
        unknown.iter().for_each(UnknownVariable::log);
        if let Some(Problem { file, message, remedy, .. }) = self.service.socket_problem() {
            warn!(path = %file.display(), problem = message, remedy, "upstream_not_a_socket");
        }
        allocator::start_background_thread();
        raise_open_files();
        let sockets = match sockets {
            Ok(sockets) => sockets,
            Err(error) => {
                let remedy = "pass TCP sockets in LISTEN_FDS, or set --listen";
                error!(%error, remedy, "cannot_start");
                return ExitCode::from(FAILED);
            }
        };
        let runtime = match runtime(cores) {
            Ok(runtime) => runtime,
            Err(error) => {
                let remedy = "raise the limits on threads and open files";
                error!(%error, remedy, "cannot_start");
                return ExitCode::from(FAILED);
            }
        };
        #[cfg(feature = "acme")]
        let (config, renew) = match acme {
            Ok(None) => (config, None),
            Ok(Some(acme)) => {
                let config = acme.attach(config);
                let renew: Renew = Box::new(|handle| Box::pin(acme.run(handle)));
                (config, Some(renew))
            }
            Err(error) => {
                error!(%error, remedy = error.remedy(), "cannot_start");
                return ExitCode::from(UNUSABLE);
            }
        };
        #[cfg(not(feature = "acme"))]
        let renew = None;
        let code = runtime.block_on(self.serve_until_stopped(config, sockets, log, renew));
        // A service that is still running does not keep the process alive.
        runtime.shutdown_background();
        code
    }

    async fn serve_until_stopped(
        &self,
        config: Config,
        sockets: Vec<TcpListener>,
        log: LogWriter,
        renew: Option<Renew>,
    ) -> ExitCode {
        // A signal may come as soon as the server reports that it is ready.
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return cannot_start(&error),
        };
        // The recorder must be there before the first count.
        let admin = self.observability.admin;
        let metrics = match admin.map(|_| Metrics::install()).transpose() {
            Ok(metrics) => metrics,
            Err(error) => return cannot_start(&error),
        };
        let bound = if sockets.is_empty() { config.bind() } else { config.bind_to(sockets) };
        let bound = match bound {
            Ok(bound) => bound,
            Err(error) => return log_start_error(&error),
        };
        let admin = match self.bind_admin().await {
            Ok(admin) => admin,
            Err(code) => return code,
        };
        let (service, body_timeout) = (&self.service, self.timeouts.body_timeout);
        let proxy = service.proxy(body_timeout);
        let upstream = proxy.as_ref().map(Proxy::upstream_state);
        let running = match proxy {
            Some(proxy) => bound.serve_hyper(ApiId::new(&service.api_id, proxy)),
            None => bound.serve_hyper(ApiId::new(&service.api_id, service.hello(body_timeout))),
        };
        let handle = running.handle();
        if let (Some(admin), Some(metrics)) = (admin, metrics) {
            let admin = match upstream {
                Some(upstream) => admin.upstream(upstream),
                None => admin,
            };
            tokio::spawn(admin.serve(handle.clone(), metrics));
        }
        systemd::ready();
        let mut renewal = match renew {
            Some(renew) => renew(handle.clone()),
            None => Box::pin(std::future::pending()),
        };
        let stopped = running.stopped();
        tokio::pin!(stopped);
        let mut reported = 0;
        let mut lost_lines = tokio::time::interval(LOST_LINES);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                () = signals.handle_next(&handle) => {}
                reason = &mut renewal => {
                    error!(reason, remedy = ACME_TIMED_OUT, "acme_timed_out");
                    log_lost_lines(&log, reported);
                    return ExitCode::from(FAILED);
                }
                _ = lost_lines.tick() => reported = log_lost_lines(&log, reported),
            }
        }
        log_lost_lines(&log, reported);
        ExitCode::SUCCESS
    }

    async fn bind_admin(&self) -> Result<Option<Admin>, ExitCode> {
        let Some(address) = self.observability.admin else { return Ok(None) };
        match Admin::bind(address).await {
            Ok(admin) => Ok(Some(admin.hosts(&self.observability.admin_host))),
            Err(error) => {
                let flag = name_of("--admin", "PORTCULLIS_ADMIN");
                let error = format!("cannot listen at {address} ({flag}): {error}");
                error!(error, remedy = "choose another port, of this machine", "cannot_start");
                Err(ExitCode::from(FAILED))
            }
        }
    }
}

fn runtime(cores: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        // Reloads run on blocking threads. Memory that such a thread caches is returned at its end.
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build()
}

/// Logs how many log lines were lost beyond `reported` ones, and returns how many are reported now.
/// This line may be lost as well, and is then logged again.
fn log_lost_lines(log: &LogWriter, reported: u64) -> u64 {
    let before = log.lost();
    if before > reported {
        warn!(lines = before - reported, "log_lines_lost");
    }
    if log.lost() == before { before } else { reported }
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

fn cannot_start(error: &dyn std::fmt::Display) -> ExitCode {
    error!(%error, "cannot_start");
    ExitCode::from(FAILED)
}

fn log_start_error(error: &StartError) -> ExitCode {
    match error {
        StartError::Material { problems, .. } => {
            problems.iter().for_each(|problem| crate::reload::log_problem(problem, true));
            error!(%error, "cannot_start");
            ExitCode::from(UNUSABLE)
        }
        StartError::Listen { .. } => {
            let flag = name_of("--listen", "PORTCULLIS_LISTEN");
            error!(%error, flag, "cannot_start");
            ExitCode::from(FAILED)
        }
    }
}
