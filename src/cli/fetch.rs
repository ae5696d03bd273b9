//! `portcullis fetch`: the command line of [`crate::aws::fetch`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::environment::name_of;
use super::flags::LogFlags;
use super::outcome::{FAILED, UNUSABLE};
use super::systemd;
use super::values::{duration, positive};
use crate::aws::fetch::metrics::{Endpoint, Metrics};
use crate::aws::fetch::{Directory, Failure, Fetcher, Kind, Selector, daemon};
use crate::aws::{ControlPlane, ErrorKind};

/// What to fetch, into what, how often.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("selectors").required(true).multiple(true)
          .args(["stage", "tag", "id", "all"]))]
pub struct Fetch {
    /// The directory that is kept current, for `serve --trust DIR`. It is created; one for each
    /// account and region
    #[arg(long, value_name = "DIR", env = "PORTCULLIS_INTO")]
    pub into: PathBuf,

    /// The certificate that this stage presents, those tagged portcullis:replaces=ID of it, and the
    /// one that it replaces until that is tagged portcullis:retired. Repeatable
    #[arg(long, value_name = "API_ID/STAGE", env = "PORTCULLIS_STAGE", value_delimiter = ',',
          value_parser = stage)]
    stage: Vec<Selector>,

    /// Certificates with this tag. Repeatable
    #[arg(long, value_name = "KEY=VALUE", env = "PORTCULLIS_TAG", value_delimiter = ',',
          value_parser = tag)]
    tag: Vec<Selector>,

    /// The certificate with this id. Repeatable
    #[arg(long, value_name = "ID", env = "PORTCULLIS_ID", value_delimiter = ',',
          value_parser = id)]
    id: Vec<Selector>,

    /// Every certificate of the account in this region
    #[arg(long, env = "PORTCULLIS_ALL")]
    all: bool,

    /// Run as a daemon that polls at this interval. Without it, fetch polls once and exits
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_EVERY", value_parser = positive)]
    pub every: Option<Duration>,

    /// How long a certificate stays that is no longer selected, and neither retired nor deleted
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_KEEP_FOR", default_value = "24h",
          value_parser = duration)]
    pub keep_for: Duration,

    /// The AWS region. By default AWS_REGION, or the profile's
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,

    /// The profile of the AWS configuration. By default AWS_PROFILE
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,

    /// Where the daemon shows /metrics, /livez and /readyz. Plain HTTP, for this machine or the pod's
    /// network only; port 0 lets the system choose
    #[arg(long, value_name = "ADDR:PORT", env = "PORTCULLIS_ADMIN", requires = "every")]
    pub admin: Option<SocketAddr>,

    #[command(flatten)]
    pub(super) log: LogFlags,
}

impl Fetch {
    /// Polls once, or until a signal; the log has been started.
    pub async fn run(&self) -> ExitCode {
        match self.fetch().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(code) => ExitCode::from(code),
        }
    }

    async fn fetch(&self) -> Result<(), u8> {
        if self.into.exists() && !self.into.is_dir() {
            let error = format!("{} is not a directory (--into)", self.into.display());
            error!(error, remedy = "name a directory", "cannot_start");
            return Err(UNUSABLE);
        }
        let plane = ControlPlane::new(self.region.as_deref(), self.profile.as_deref()).await;
        let plane = plane.map_err(|error| {
            error!(%error, remedy = error.remedy(), "cannot_start");
            if error.kind == ErrorKind::NoRegion { UNUSABLE } else { FAILED }
        })?;
        let directory = Directory::open(&self.into).map_err(|failure| fail(&failure))?;
        let fetcher = Fetcher::new(plane, self.selectors(), directory, self.keep_for);
        match self.every {
            Some(every) => self.run_until_stopped(fetcher, every).await,
            None => poll_once(fetcher).await,
        }
    }

    fn selectors(&self) -> Vec<Selector> {
        let all = self.all.then_some(Selector::All);
        self.stage.iter().chain(&self.tag).chain(&self.id).cloned().chain(all).collect()
    }

    async fn run_until_stopped(&self, fetcher: Fetcher, every: Duration) -> Result<(), u8> {
        let cannot_start = |error: std::io::Error| {
            error!(%error, remedy = "see the error", "cannot_start");
            FAILED
        };
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot_start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_start)?;
        let metrics = Arc::new(Metrics::default());
        if let Some(address) = self.admin {
            let endpoint = Endpoint::bind(address).await.map_err(|error| {
                let flag = name_of("--admin", "PORTCULLIS_ADMIN");
                let error = format!("cannot listen at {address} ({flag}): {error}");
                error!(error, remedy = "choose another port, of this machine", "cannot_start");
                FAILED
            })?;
            tokio::spawn(endpoint.serve(Arc::clone(&metrics)));
        }
        tokio::select! {
            failure = daemon::run(fetcher, every, &metrics, systemd::ready) => {
                systemd::stopping();
                Err(code(&failure))
            }
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }?;
        systemd::stopping();
        info!("fetch_stopped");
        Ok(())
    }
}

async fn poll_once(mut fetcher: Fetcher) -> Result<(), u8> {
    let report = daemon::poll(&mut fetcher).await.map_err(|failure| code(&failure))?;
    match report.failures.is_empty() {
        true => {
            daemon::log_fetched(&report);
            Ok(())
        }
        false => Err(FAILED),
    }
}

fn fail(failure: &Failure) -> u8 {
    failure.log();
    code(failure)
}

fn code(failure: &Failure) -> u8 {
    match failure.kind {
        Kind::Call(ErrorKind::NoRegion) => UNUSABLE,
        _ => FAILED,
    }
}

fn stage(text: &str) -> Result<Selector, String> {
    text.parse().map(Selector::Stage)
}

fn tag(text: &str) -> Result<Selector, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(Selector::Tag { key: key.to_owned(), value: value.to_owned() })
        }
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

fn id(text: &str) -> Result<Selector, String> {
    match text.is_empty() || text.contains(['/', ':']) {
        true => Err("write the id of a client certificate, for example a1b2c3".to_owned()),
        false => Ok(Selector::Id(text.to_owned())),
    }
}
