//! `portcullis rotate`: AWS's five steps as one command that can be killed anywhere and run again.
//!
//! The progress of a rotation is stored in the account, the trust directory and the replicas only.
//! [`plan`] decides from the account which certificate replaces which. [`engine`] takes the steps,
//! each of which is idempotent.

mod check;
mod display;
mod engine;
mod generate;
mod outcome;
mod plan;
#[cfg(test)]
mod plan_tests;
mod probe;
mod read;
mod replicas;
mod retire;
mod stop;
mod switch;
mod track;
mod trust_dir;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::{CallError, ControlPlane, ErrorKind, StageName};
use display::Display;
use engine::Engine;

pub(crate) use probe::Probe;
pub(crate) use replicas::ReplicaUrl;
pub(crate) use stop::Stop;

/// How long a run that stops may take to read what is active.
const LAST_READ: Duration = Duration::from_secs(3);

/// The options of a rotation.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) stages: Vec<StageName>,
    /// `None` where the servers fetch by themselves.
    pub(crate) trust: Option<PathBuf>,
    pub(crate) replicas: Vec<ReplicaUrl>,
    pub(crate) probe: Option<Probe>,
    pub(crate) renew_before: Duration,
    pub(crate) timeout: Duration,
    pub(crate) switch_timeout: Duration,
    pub(crate) quiet_for: Duration,
    pub(crate) quiet_timeout: Duration,
    pub(crate) deploy: bool,
    pub(crate) roll_back: bool,
    pub(crate) dry_run: bool,
    pub(crate) check: bool,
    pub(crate) json: bool,
    /// The command that continues.
    pub(crate) again: String,
}

/// What each named stage presents, as far as it is known.
type Active = Mutex<Vec<(StageName, Option<String>)>>;

/// Runs until it is done, it stops, or a signal comes.
pub(crate) async fn run(
    options: &Options,
    region: Option<&str>,
    profile: Option<&str>,
) -> ExitCode {
    let display = Display::new(options.json);
    let active = Active::default();
    let result = match ControlPlane::new(region, profile).await {
        Ok(plane) => {
            let run = async {
                match options.check {
                    true => check::run(options, &plane, &display).await,
                    false => Engine::new(options, &plane, &display, &active).run().await,
                }
            };
            let result = tokio::select! {
                result = run => result,
                name = interrupted() => Err(Stop::new(format!("{name} came"), "run it again")),
            };
            if result.is_err() && !options.check {
                let _ = timeout(LAST_READ, read_active(&plane, &active)).await;
            }
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => code,
        Err(stop) => report(&stop, options, &display, &active),
    }
}

async fn interrupted() -> &'static str {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

async fn read_active(plane: &ControlPlane, active: &Active) {
    let names: Vec<_> = engine::lock(active).iter().map(|(name, _)| name.clone()).collect();
    for name in names {
        if let Ok(stage) = plane.stage(&name).await {
            engine::note_active(active, &stage);
        }
    }
}

fn report(stop: &Stop, options: &Options, display: &Display, active: &Active) -> ExitCode {
    let step = display.step();
    let active = engine::lock(active).clone();
    let shown = |(name, id): &(StageName, Option<String>)| {
        format!("{name} presents {}", id.as_deref().unwrap_or("no certificate"))
    };
    let shown: Vec<_> = active.iter().map(shown).collect();
    let mut lines = vec![
        format!("error: stopped in step {step}: {}", stop.reason),
        format!("  remedy: {}", stop.remedy),
    ];
    if !shown.is_empty() {
        lines.push(format!("  active now: {}", shown.join(", ")));
    }
    if !stop.is_usage && !options.check {
        lines.push(format!("  to continue: {}", options.again));
    }
    let active: serde_json::Map<_, _> =
        active.into_iter().map(|(name, id)| (name.to_string(), json!(id))).collect();
    let object = json!({
        "event": "stopped", "step": step.as_str(), "reason": stop.reason, "remedy": stop.remedy,
        "active": active, "continue": (!stop.is_usage).then_some(&options.again),
    });
    display.fail(&lines, &object);
    ExitCode::from(if stop.is_usage { 2 } else { 1 })
}
