//! The exporter: what the library counts, in Prometheus' text format.

use std::fmt;
use std::time::Duration;

use ::metrics::{describe_gauge, gauge, set_global_recorder, with_local_recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_process::Collector;

use crate::Handle;

/// The features that change what the binary can do.
const FEATURES: [(&str, bool); 2] =
    [("acme", cfg!(feature = "acme")), ("aws", cfg!(feature = "aws"))];

/// Upper bounds of handshake durations: a full one takes a third of a millisecond of one core, and
/// a client two round trips around the world.
const HANDSHAKE: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of request durations. API Gateway gives up after 29 s by default.
const REQUEST: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 29.0];

/// How often recorded durations are sorted into buckets; until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(1);

/// The recorder of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Installs the recorder of this process. Call it before the server is bound: earlier counts
    /// are lost.
    ///
    /// # Errors
    /// Another recorder is installed.
    pub fn install() -> Result<Self, BuildError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        set_global_recorder(recorder).map_err(BuildError::FailedToSetGlobalRecorder)?;
        report_build();
        Ok(Self(handle))
    }

    /// Keeps the memory of recorded durations within bounds, forever.
    pub(super) async fn keep_up(&self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.0.run_upkeep();
        }
    }

    pub(super) fn render(&self, server: &Handle) -> String {
        let mut text = self.0.render();
        // A recorder keeps a series forever. This one lives for one response, so that a removed
        // certificate leaves no series and no alert.
        let of_this_moment = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&of_this_moment, || {
            server.report_certificates();
            report_tasks();
            let process = Collector::default();
            process.describe();
            process.collect();
        });
        text.push_str(&of_this_moment.handle().render());
        text
    }
}

fn report_build() {
    describe_gauge!("portcullis_build_info", "1, with the version and the cargo features.");
    let features = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name);
    let labels = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("features", features.collect::<Vec<_>>().join(",")),
    ];
    gauge!("portcullis_build_info", &labels).set(1);
}

/// No other metric shows a leaked task.
fn report_tasks() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    describe_gauge!("portcullis_tasks", "Tasks of the runtime that have not ended.");
    let tasks = u32::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(u32::MAX);
    gauge!("portcullis_tasks").set(tasks);
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let buckets = |name: &str| Matcher::Full(format!("portcullis_{name}_duration_seconds"));
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(buckets("handshake"), HANDSHAKE)?
        .set_buckets_for_metric(buckets("request"), REQUEST)?;
    Ok(builder.build_recorder())
}
