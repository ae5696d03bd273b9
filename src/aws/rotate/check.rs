//! `rotate --check`: what each stage presents, whether every replica trusts it, and for how long.

use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::json;

use super::display::Display;
use super::trust_dir::parse_one;
use super::{Options, Stop, replicas};
use crate::aws::ControlPlane;
use crate::trust::days_left;

/// Changes nothing. Exits 0 if every replica responds and trusts what the stages present.
pub(super) async fn run(
    options: &Options,
    plane: &ControlPlane,
    display: &Display,
) -> Result<ExitCode, Stop> {
    let scan = replicas::scan(&options.replicas).await;
    let (mut lines, mut objects) = (Vec::new(), Vec::new());
    let mut is_good = scan.failures.is_empty();
    let mut is_usage = false;
    for name in &options.stages {
        let stage = plane.stage(name).await?;
        let shown = name.to_string();
        if let Some(arn) = stage.acm_arn() {
            is_usage = true;
            lines.push(format!(
                "{name} presents {arn}: ACM renews it; trust its CA with --trust-ca"
            ));
            objects.push(json!({"stage": shown, "certificate": arn, "acm": true}));
            continue;
        }
        let Some(id) = &stage.client_certificate else {
            is_good = false;
            lines.push(format!("{name} presents no certificate"));
            objects.push(json!({"stage": shown, "certificate": null}));
            continue;
        };
        let certificate = plane.certificate(id).await?;
        let fingerprint =
            parse_one(&certificate.pem).map(|one| one.summary().fingerprint.to_string());
        let fingerprint = fingerprint.unwrap_or_default();
        let left = certificate.expires.map(|end| days_left(end, SystemTime::now()));
        let is_ended = certificate.expires.is_none_or(|end| end <= SystemTime::now());
        let distrusting: Vec<_> = scan
            .replicas
            .iter()
            .filter(|replica| !replica.trusts(&fingerprint))
            .map(|replica| format!("http://{}", replica.address))
            .collect();
        let days = left.map_or("an unknown number of".to_owned(), |left| left.to_string());
        let trust = match (options.replicas.is_empty(), distrusting.is_empty()) {
            (true, _) => "no replica was asked (--replicas)".to_owned(),
            (false, true) if scan.replicas.len() == 1 => "1 replica trusts it".to_owned(),
            (false, true) => format!("{} replicas trust it", scan.replicas.len()),
            (false, false) => format!("{} does not trust it", distrusting.join(", ")),
        };
        is_good &= distrusting.is_empty() && !is_ended;
        lines.push(format!("{name} presents {id}, which ends in {days} days; {trust}"));
        let is_trusted = (!options.replicas.is_empty())
            .then_some(distrusting.is_empty() && scan.failures.is_empty());
        objects.push(json!({
            "stage": shown, "certificate": id, "fingerprint": fingerprint, "days_left": left,
            "trusted_by_all": is_trusted, "not_trusted_by": distrusting,
        }));
    }
    lines.extend(scan.failures.iter().map(|failure| format!("{failure} (it does not respond)")));
    let object = json!({"event": "check", "stages": objects, "not_responding": scan.failures});
    display.report(&lines, &object);
    Ok(match (is_usage, is_good) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(1),
    })
}
