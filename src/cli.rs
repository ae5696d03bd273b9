//! The command line: flags and environment → the command to run → its exit code.

mod allocator;
mod check;
mod environment;
mod explain;
#[cfg(feature = "aws")]
mod fetch;
mod flags;
mod headers;
mod inspect;
mod log_filter;
mod manual;
mod outcome;
#[cfg(feature = "aws")]
mod rotate;
mod sandbox;
mod serve;
mod signals;
mod systemd;
mod upstream;
mod values;
#[cfg(not(feature = "aws"))]
mod without_aws;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use outcome::{FAILED, Outcome, print};

use crate::log::{Lines, LogGuard, LogLayer, LogWriter};
use check::Check;
use explain::Explain;
#[cfg(feature = "aws")]
use fetch::Fetch;
use flags::{LogFlags, LogFormat, Serve, Switch};
use inspect::Inspect;
use manual::{Completions, Manual};
#[cfg(feature = "aws")]
use rotate::Rotate;
#[cfg(not(feature = "aws"))]
use without_aws::{WithoutAws as Fetch, WithoutAws as Rotate};

/// An HTTPS server that accepts Amazon API Gateway's client certificates only.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    max_term_width = 80,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 success, 1 failure while running, 2 wrong usage or files that do \
                  not load.\nSignals: SIGTERM and SIGINT stop it, a second one at once; SIGHUP \
                  reloads every file."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTPS to trusted clients only
    ///
    /// Each flag has an environment variable, shown by --help; the flag counts where both are given.
    /// A repeatable flag also takes several values separated by commas.
    Serve(Box<Serve>),
    /// Check certificates, keys and flags without listening
    ///
    /// Takes the flags of serve. Exits 0 if a server would start without errors, and 2 otherwise, or
    /// with --strict on warnings too.
    Check(Box<Check>),
    /// Show what certificate files contain
    ///
    /// Shows subjects, serial numbers, fingerprints, validity periods and problems. Exits 0 if
    /// every file loads, and 2 otherwise.
    Inspect(Inspect),
    /// Show whether a client certificate is accepted, and why not
    ///
    /// Exits 0 if it is accepted, 1 if it is not, and 2 if a file does not load.
    Explain(Explain),
    /// Keep a directory of trusted client certificates current from an AWS account
    ///
    /// Writes each selected client certificate of API Gateway as DIR/ID.pem, for `serve --trust
    /// DIR`, and removes what is retired, deleted, or unselected for --keep-for. The last valid
    /// certificate stays. A failure changes nothing.
    ///
    /// For a rotation by hand select by --tag or --all: a stage that is switched before the servers
    /// know the new certificate loses requests until the next poll. `rotate` waits for the servers,
    /// and --stage is enough.
    ///
    /// Credentials, --region and --profile are those of the AWS SDK: its variables (AWS_ENDPOINT_URL
    /// included), profiles, and the role of the machine.
    ///
    /// Exits 0 when the directory is current, 1 with what failed, 2 on usage. With --every it runs
    /// until SIGTERM or SIGINT, and exits 0.
    Fetch(Fetch),
    /// Replace the client certificate of stages, guarded, over a whole fleet
    ///
    /// The steps: 1 plan, 2 generate, 3 trust (every replica), 4 try (--probe), 5 switch, 6 quiet (no
    /// replica counts a request with the old certificate for --quiet-for), 7 retire and delete. Each is
    /// read back from the account, the directory and the replicas: run the same command again after a
    /// failure, on any machine, and it continues. It has nothing to do while the certificate has more
    /// than --renew-before left, so that it can run from cron.
    ///
    /// Traffic is counted for each API by the header x-amzn-apigateway-api-id. Two stages of one API
    /// cannot be told apart by traffic: use --probe for them, which tries the new certificate through
    /// the gateway before any stage is switched.
    ///
    /// Exits 0 if it is done or has nothing to do, 1 if it stopped (signals too), with the step, what is
    /// active and the command that continues, and 2 on usage.
    Rotate(Rotate),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write one for each command
    Man(Manual),
}

/// Runs the command that the arguments of the process name.
pub fn main() -> ExitCode {
    if sandbox::run_as_probe() {
        return ExitCode::SUCCESS;
    }
    // A thread that cannot be started panics deep in a library: a failure like any other.
    std::panic::catch_unwind(|| run(std::env::args_os().collect()))
        .unwrap_or(ExitCode::from(FAILED))
}

fn run(args: Vec<std::ffi::OsString>) -> ExitCode {
    let is_long_help = args.iter().any(|arg| arg == "--help" || arg == "man");
    let command = command(is_long_help);
    let parsed = environment::parse(command.clone(), &args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .and_then(|cli| cli.command.validate().map(|()| cli.command));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let unknown = environment::unknown_variables(&command);
    match parsed {
        Command::Serve(serve) => serve.run(&unknown),
        Command::Check(check) => print(|out| check.run(&unknown, out)),
        Command::Inspect(inspect) => print(|out| inspect.run(out)),
        Command::Explain(explain) => print(|out| explain.run(&unknown, out)),
        #[cfg(feature = "aws")]
        Command::Fetch(fetch) => run_aws(&fetch.log, &unknown, || fetch.run()),
        #[cfg(not(feature = "aws"))]
        Command::Fetch(fetch) => fetch.run("fetch"),
        #[cfg(feature = "aws")]
        Command::Rotate(rotate) => run_rotate(&rotate, &unknown),
        #[cfg(not(feature = "aws"))]
        Command::Rotate(rotate) => rotate.run("rotate"),
        Command::Completions(shell) => print(|out| {
            shell.run(command, out);
            Ok(Outcome::Success)
        }),
        Command::Man(manual) => print(|out| manual.run(command, out).map(|()| Outcome::Success)),
    }
}

/// Builds the command. The short help omits the variables, which take a line each.
fn command(is_long_help: bool) -> clap::Command {
    let hide = |command: clap::Command| {
        command.mut_args(|arg| arg.hide_env(!is_long_help).hide_env_values(true))
    };
    Cli::command().mut_subcommands(hide)
}

impl Command {
    /// Checks flags that depend on each other.
    fn validate(&self) -> Result<(), clap::Error> {
        match self {
            Self::Serve(serve) => serve.validate(),
            Self::Check(check) => check.serve.validate(),
            _ => Ok(()),
        }
    }
}

/// Runs a rotation, which shows its progress and keeps no log.
#[cfg(feature = "aws")]
fn run_rotate(rotate: &Rotate, unknown: &[environment::UnknownVariable]) -> ExitCode {
    for variable in unknown {
        let _ = writeln!(io::stderr(), "warning: {variable}");
    }
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(rotate.run());
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot start: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Runs a command of `aws/`, for which one thread is enough.
#[cfg(feature = "aws")]
fn run_aws<F: Future<Output = ExitCode>>(
    log: &LogFlags,
    unknown: &[environment::UnknownVariable],
    command: impl FnOnce() -> F,
) -> ExitCode {
    let Ok((_log, _guard)) = start_log(log, Switch::Off) else { return ExitCode::from(FAILED) };
    unknown.iter().for_each(environment::UnknownVariable::log);
    allocator::start_background_thread();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command());
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            tracing::error!(%error, remedy = "raise the limit on open files", "cannot_start");
            ExitCode::from(FAILED)
        }
    }
}

fn start_log(flags: &LogFlags, access_log: Switch) -> io::Result<(LogWriter, LogGuard)> {
    let filter = match access_log {
        Switch::On => flags.log.clone(),
        Switch::Off => flags.log.clone().without_access_log(),
    };
    let (writer, guard) = LogWriter::start(io::stderr()).inspect_err(|error| {
        // Standard error may be what fails.
        let _ = writeln!(io::stderr(), "error: the log cannot be started: {error}");
    })?;
    let lines = match flags.log_format {
        LogFormat::Text => Lines::Text { colours: io::stderr().is_terminal() },
        LogFormat::Json => Lines::Json,
    };
    let layer = LogLayer::new(lines, writer.clone());
    tracing_subscriber::registry().with(filter.0).with(layer).init();
    Ok((writer, guard))
}

#[cfg(test)]
mod tests;
