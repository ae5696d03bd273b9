//! The exporter: what the library counts, as Prometheus reads it.

use std::fmt;
use std::time::Duration;

use ::metrics::{describe_gauge, gauge, set_global_recorder, with_local_recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::Handle;

/// The upper bounds of a handshake's duration: a full one takes a third of a millisecond of one
/// processor, and a client two round trips around the world.
const HANDSHAKE: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Those of a request's. API Gateway gives up after 29 s by default.
const REQUEST: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 29.0];

/// How often what was recorded of durations is sorted into buckets: until then each takes memory.
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
    /// Makes a recorder the one of this process. What is counted before is lost, so this comes
    /// before the server is bound.
    ///
    /// # Errors
    /// Another recorder is there.
    pub fn install() -> Result<Self, BuildError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        set_global_recorder(recorder).map_err(BuildError::FailedToSetGlobalRecorder)?;
        Ok(Self(handle))
    }

    /// Keeps the memory that recording takes within bounds, for ever.
    pub(super) async fn keep_up(&self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.0.run_upkeep();
        }
    }

    pub(super) fn render(&self, server: &Handle) -> String {
        let mut text = self.0.render();
        // A recorder keeps a series for ever. This one lives for one answer, so that the series of
        // a certificate go when the certificate does, and no alert can be about one that is out.
        let of_this_moment = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&of_this_moment, || {
            server.report_certificates();
            report_tasks();
        });
        text.push_str(&of_this_moment.handle().render());
        text
    }
}

/// A task that is left behind shows in nothing else.
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
