//! The command line: flags and environment → what is to be run.

mod check;
mod explain;
#[cfg(feature = "aws")]
mod fetch;
mod inspect;
pub mod sandbox;
pub mod systemd;
mod upstream;
#[cfg(not(feature = "aws"))]
mod without_aws;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::Targets;

use crate::cli::sandbox::Access;
use crate::{Cidr, Config, Problem, Severity};

pub use check::Check;
pub use explain::Explain;
#[cfg(feature = "aws")]
pub use fetch::Fetch;
pub use inspect::Inspect;
pub use upstream::ServiceArgs;
#[cfg(not(feature = "aws"))]
pub use without_aws::WithoutAws as Fetch;

/// An HTTPS server that lets in Amazon API Gateway, and nobody else.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 after a clean stop, 1 a failure while running, 2 usage or files \
                  that do not load.\nSignals: SIGTERM and SIGINT stop it, a second one at once; \
                  SIGHUP has every file read again."
)]
pub struct Cli {
    #[command(subcommand)]
    /// What to do.
    pub command: Command,
}

impl Cli {
    /// Reads the command line and the environment; says what is wrong with them, and exits.
    /// A variable that is empty is as good as none.
    pub fn read() -> Self {
        let is_empty = |arg: &Arg| {
            let variable = arg.get_env().and_then(std::env::var_os);
            variable.is_some_and(|value| value.is_empty())
        };
        let without_empty = |command: clap::Command| {
            command.mut_args(|arg| match is_empty(&arg) {
                true => arg.env(Resettable::Reset),
                false => arg,
            })
        };
        let matches = Self::command().mut_subcommands(without_empty).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve HTTPS to those who are let in
    ///
    /// Every flag has an environment variable, and counts where both are given. Where a flag may
    /// be repeated, several values may also be separated by commas.
    Serve(Serve),
    /// Say all that is wrong with what `serve` would be given, and open no socket
    ///
    /// Exits 0 if nothing is, warnings aside, and 2 otherwise. What API Gateway will make of the
    /// server's own certificate is told in warnings.
    Check(Check),
    /// Say what is in certificate files: subjects, serial numbers, fingerprints, dates, faults
    ///
    /// Exits 0 if all of it can be used, and 2 otherwise.
    Inspect(Inspect),
    /// Say whether a client with this certificate would be let in, and if not, why
    ///
    /// Exits 0 whichever it is, and 2 if a file does not load.
    Explain(Explain),
    /// Keep a directory of trusted client certificates current from an AWS account
    ///
    /// Writes each selected client certificate of API Gateway as DIR/ID.pem, for `serve --trust DIR`, and
    /// removes what is retired, deleted, or unselected for --keep-for. The certificate that is valid
    /// and last stays. A failure changes nothing.
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
}

/// What a command that looks at files comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it can be used.
    Good,
    /// Something does not load.
    Faulty,
}

impl Outcome {
    fn of(problems: &[Problem]) -> Self {
        match problems.iter().any(|problem| problem.severity == Severity::Error) {
            true => Self::Faulty,
            false => Self::Good,
        }
    }
}

/// What a server is made from. Every flag has an environment variable; the flag counts where both
/// are given, and several values are separated by commas where a flag may be repeated.
#[derive(Args, Debug)]
pub struct Serve {
    /// Where to listen; port 0 lets the system choose. Repeatable. By default at `[::]:8443`, for
    /// both families, or at `0.0.0.0:8443` where there is no IPv6; or else at the sockets that systemd
    /// passes
    #[arg(long, value_name = "ADDR:PORT", env = "PORTCULLIS_LISTEN", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,

    /// The server's certificate: PEM, the full chain, its own first
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CERT")]
    pub cert: PathBuf,

    /// Its private key: PEM; PKCS#8, PKCS#1 or SEC1, not encrypted
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_KEY")]
    pub key: PathBuf,

    /// Client certificates to let in: a PEM file, or a directory of *.pem, *.crt and *.cer files.
    /// Repeatable
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTCULLIS_TRUST",
        value_delimiter = ',',
        required_unless_present = "trust_ca"
    )]
    pub trust: Vec<PathBuf>,

    /// CA certificates: whoever presents a chain to one of them is let in. A PEM file or a
    /// directory, as --trust. Repeatable
    #[arg(long, value_name = "PATH", env = "PORTCULLIS_TRUST_CA", value_delimiter = ',')]
    pub trust_ca: Vec<PathBuf>,

    /// Each connection comes from a load balancer and begins with a PROXY protocol v2 header; the
    /// address in it is the client's
    #[arg(long, env = "PORTCULLIS_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,

    /// The load balancer's addresses; connections from elsewhere are refused. Repeatable. By
    /// default the private, link-local and loopback ones
    #[arg(
        long,
        value_name = "CIDR",
        env = "PORTCULLIS_PROXY_PROTOCOL_FROM",
        value_delimiter = ',',
        requires = "proxy_protocol"
    )]
    pub proxy_protocol_from: Vec<Cidr>,

    /// How often the files are looked at where the file system tells of no change
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_POLL_INTERVAL",
          default_value = "5s", value_parser = positive)]
    pub poll_interval: Duration,

    /// How long a handshake may take
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_HANDSHAKE_TIMEOUT",
          default_value = "10s", value_parser = positive)]
    pub handshake_timeout: Duration,

    /// How long a connection may go without a request; API Gateway and a network load balancer
    /// keep them for long
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_IDLE_TIMEOUT",
          default_value = "400s", value_parser = positive)]
    pub idle_timeout: Duration,

    /// How long a request's head may take, from its first octet on, or from the handshake on for
    /// the first one of a connection
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_HEAD_TIMEOUT",
          default_value = "30s", value_parser = positive)]
    pub head_timeout: Duration,

    /// How long nothing may come of a request's body; 408 past it
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_BODY_TIMEOUT",
          default_value = "30s", value_parser = positive)]
    pub body_timeout: Duration,

    /// How long a client may take nothing of an answer
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_WRITE_TIMEOUT",
          default_value = "60s", value_parser = positive)]
    pub write_timeout: Duration,

    /// How long a connection may live before it finishes what is in flight and ends. By default as
    /// long as its certificate
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_MAX_CONNECTION_AGE",
          value_parser = positive)]
    pub max_connection_age: Option<Duration>,

    /// How many connections may be let in at once
    #[arg(long, value_name = "N", env = "PORTCULLIS_MAX_CONNECTIONS", default_value = "10000",
          value_parser = at_least_one)]
    pub max_connections: usize,

    /// How many connections may be in their handshake at once: for one more, the oldest is put out
    #[arg(long, value_name = "N", env = "PORTCULLIS_MAX_HANDSHAKES", default_value = "4096",
          value_parser = at_least_one)]
    pub max_handshakes: usize,

    /// How many handshakes are computed before requests have their turn again; the others wait. By
    /// default 4 for each core
    #[arg(long, value_name = "N", env = "PORTCULLIS_HANDSHAKES_AT_ONCE",
          value_parser = at_least_one)]
    pub handshakes_at_once: Option<usize>,

    /// How large the head of a request may be; 431 past it
    #[arg(long, value_name = "SIZE", env = "PORTCULLIS_MAX_HEAD_SIZE",
          default_value = "32KiB", value_parser = size)]
    pub max_head_size: u64,

    /// How many header lines a request may have; 431 past it
    #[arg(long, value_name = "N", env = "PORTCULLIS_MAX_HEADERS", default_value = "100",
          value_parser = at_least_one)]
    pub max_headers: usize,

    /// How many requests of one HTTP/2 connection may be in flight at once
    #[arg(long, value_name = "N", env = "PORTCULLIS_MAX_STREAMS", default_value = "100",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,

    /// How many requests of one HTTP/2 connection its client may take back before they have been
    /// looked at; for one more the connection is ended
    #[arg(long, value_name = "N", env = "PORTCULLIS_MAX_RESETS", default_value = "100",
          value_parser = at_least_one)]
    pub max_resets: usize,

    /// How many requests of one HTTP/2 connection may break the protocol, over its whole life; for
    /// one more the connection is ended
    #[arg(long, value_name = "N", env = "PORTCULLIS_MAX_STREAM_ERRORS", default_value = "1024",
          value_parser = at_least_one)]
    pub max_stream_errors: usize,

    /// How long connections are still accepted after SIGTERM, each answer with `Connection:
    /// close`, so that a load balancer can turn away
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_SHUTDOWN_DELAY",
          default_value = "0s", value_parser = duration)]
    pub shutdown_delay: Duration,

    /// How long requests in flight may take to finish, after that delay or when their certificate
    /// is taken away
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_DRAIN_TIMEOUT",
          default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// Where to answer the operator: /livez, /readyz, /metrics, /status and a page of it. Plain
    /// HTTP, for this machine or the pod's network only; port 0 lets the system choose
    #[arg(long, value_name = "ADDR:PORT", env = "PORTCULLIS_ADMIN")]
    pub admin: Option<SocketAddr>,

    /// Keep the right to read other files and to connect elsewhere than these flags say
    #[arg(long, env = "PORTCULLIS_NO_SANDBOX")]
    pub no_sandbox: bool,

    /// What answers.
    #[command(flatten)]
    pub answer: ServiceArgs,

    /// How the log is written, to standard error
    #[arg(long, value_name = "FORMAT", env = "PORTCULLIS_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: a level (error, warn, info, debug, trace), or target=level pairs, separated
    /// by commas
    #[arg(long, value_name = "FILTER", env = "PORTCULLIS_LOG", default_value = "info")]
    pub log: Targets,

    /// Whether each request is logged, at level info and target portcullis::access
    #[arg(long, value_name = "SWITCH", env = "PORTCULLIS_ACCESS_LOG", default_value = "on")]
    pub access_log: Switch,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Serve {
    /// The server that these flags describe.
    pub fn config(&self) -> Config {
        let mut config = Config::new(&self.cert, &self.key)
            .poll_interval(self.poll_interval)
            .handshake_timeout(self.handshake_timeout)
            .idle_timeout(self.idle_timeout)
            .head_timeout(self.head_timeout)
            .write_timeout(self.write_timeout)
            .max_connections(self.max_connections)
            .max_handshakes(self.max_handshakes)
            .max_head_size(usize::try_from(self.max_head_size).unwrap_or(usize::MAX))
            .max_headers(self.max_headers)
            .max_streams(self.max_streams)
            .max_resets(self.max_resets)
            .max_stream_errors(self.max_stream_errors)
            .shutdown_delay(self.shutdown_delay)
            .drain_timeout(self.drain_timeout);
        if let Some(limit) = self.max_connection_age {
            config = config.max_connection_age(limit);
        }
        if let Some(most) = self.handshakes_at_once {
            config = config.handshakes_at_once(most);
        }
        if self.proxy_protocol {
            config = match self.proxy_protocol_from.as_slice() {
                [] => config.proxy_protocol(Cidr::PRIVATE),
                from => config.proxy_protocol(from.iter().copied()),
            };
        }
        for address in &self.listen {
            config = config.listen(*address);
        }
        for path in &self.trust {
            config = config.trust(path);
        }
        for path in &self.trust_ca {
            config = config.trust_ca(path);
        }
        config
    }
}

impl Serve {
    /// What the process needs once it runs.
    pub fn access(&self) -> Access {
        let own = [&self.cert, &self.key];
        let read = own.into_iter().chain(&self.trust).chain(&self.trust_ca).cloned().collect();
        match &self.answer.upstream {
            Some(upstream) => {
                let connect = upstream.port().into_iter().collect();
                Access { read, connect, resolves: upstream.is_name() }
            }
            None => Access { read, ..Access::default() },
        }
    }
}

/// Says in the log what is wrong with a file that a server would not start on.
pub fn say(problem: &Problem) {
    crate::reload::log_problem(problem, true);
}

/// The longest time that is taken: what is added to the clock must not overflow it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("longer than a year".to_owned()),
        Err(error) => Err(format!("{error}; write it as 400s, 5m or 500ms")),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a number, 1 or more".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing".to_owned()),
        duration => Ok(duration),
    }
}

/// What a size may be counted in.
const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text.strip_prefix(digits).unwrap_or_default().trim();
    let bytes = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let number = digits.parse::<u64>().ok();
    let size = number.zip(bytes).and_then(|(number, (_, bytes))| number.checked_mul(*bytes));
    size.ok_or_else(|| "write it as 500kB, 10MiB or 2GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_well_formed_and_each_has_its_variable() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let runs = |command: &&clap::Command| matches!(command.get_name(), "serve" | "check");
        for subcommand in command.get_subcommands().filter(runs) {
            for flag in subcommand.get_arguments().filter(|flag| flag.get_id() != "help") {
                let name = flag.get_long().unwrap_or_default();
                let variable = format!("PORTCULLIS_{}", name.replace('-', "_").to_uppercase());
                assert_eq!(flag.get_env(), Some(variable.as_ref()), "--{name}");
            }
        }
    }

    #[test]
    fn each_flag_has_a_line_in_the_readme() {
        let readme = include_str!("../README.md");
        let named = |line: &&str| line.starts_with("| `--");
        let lines: Vec<_> = readme.lines().filter(named).collect();
        let mut command = Cli::command();
        command.build();
        let serve = command.find_subcommand("serve").unwrap();
        for flag in serve.get_arguments().filter_map(Arg::get_long).filter(|flag| *flag != "help") {
            let is_its = |line: &&&str| {
                let names = line.split('|').nth(1).unwrap_or_default().split('`');
                names
                    .skip(1)
                    .step_by(2)
                    .any(|name| name.split(' ').next() == Some(&format!("--{flag}")))
            };
            assert_eq!(lines.iter().filter(is_its).count(), 1, "--{flag}");
        }
    }

    #[test]
    fn a_size_is_a_number_and_perhaps_a_unit() {
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        assert_eq!(size("500kB"), Ok(500_000));
        assert_eq!(size("0"), Ok(0));
        for wrong in ["", "MiB", "1TiBs", "-1", "1.5MiB", "99999999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_duration_has_a_unit_and_is_not_endless() {
        assert_eq!(duration("400s"), Ok(Duration::from_secs(400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(duration("5").is_err());
        assert!(duration("2years").is_err());
        assert!(positive("0s").is_err());
        assert!(positive("1ms").is_ok());
    }
}
