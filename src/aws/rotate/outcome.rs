//! The plan and the outcome, for people and for machines.

use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::json;

use super::engine::{Engine, RotationCertificate};
use super::plan::{Plan, Rotation};
use crate::aws::StageName;
use crate::aws::control_plane::{ClientCertificate, Stage};

impl Engine<'_> {
    pub(super) fn nothing_to_do(&self, plan: &Plan) -> ExitCode {
        let (line, object) = match plan {
            Plan::NothingToDo { presented } => {
                let days = days_left(presented);
                let shown = days.unwrap_or_default();
                let line = format!("nothing to do: {} ends in {shown} days", presented.id);
                (
                    line,
                    json!({"event": "nothing_to_do", "certificate": presented.id, "days_left": days}),
                )
            }
            _ => (
                "nothing to do: no rotation is unfinished".to_owned(),
                json!({"event": "nothing_to_do", "certificate": null, "days_left": null}),
            ),
        };
        self.display.report(&[line], &object);
        ExitCode::SUCCESS
    }

    pub(super) fn show_plan(
        &self,
        rotation: &Rotation,
        stages: &[Stage],
        unnamed: &[StageName],
        replicas: usize,
    ) {
        let Rotation { from, to, is_roll_back, .. } = rotation;
        let days = days_left(from);
        let shown = days.unwrap_or_default();
        let verb = if *is_roll_back { "roll back" } else { "replace" };
        let by = to.as_ref().map_or("a new certificate".to_owned(), |to| to.id.clone());
        let mut lines =
            vec![format!("plan: {verb} {}, which ends in {shown} days, by {by}", from.id)];
        for stage in stages {
            let id = stage.client_certificate.as_deref().unwrap_or("no certificate");
            lines.push(format!("  {} presents {id}", stage.name));
        }
        let names: Vec<_> = unnamed.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            lines.push(format!(
                "  not named with --stage: {}: while they present {}, step 7 does not remove or delete it",
                names.join(", "),
                from.id
            ));
        }
        lines.push(format!("  replicas that respond: {replicas}"));
        let stages: Vec<_> = stages
            .iter()
            .map(|stage| json!({"stage": stage.name.to_string(), "certificate": stage.client_certificate}))
            .collect();
        let object = json!({
            "event": "plan", "action": if *is_roll_back { "roll_back" } else { "rotate" },
            "from": from.id, "to": to.as_ref().map(|to| &to.id), "days_left": days,
            "stages": stages, "not_named": names, "replicas": replicas,
        });
        self.display.report(&lines, &object);
    }

    pub(super) fn show_done(
        &self,
        rotation: &Rotation,
        from: &RotationCertificate,
        to: &RotationCertificate,
    ) {
        let names: Vec<_> = self.options.stages.iter().map(ToString::to_string).collect();
        let line = format!("done: {} presents {}; {} is deleted", names.join(", "), to.id, from.id);
        let action = if rotation.is_roll_back { "roll_back" } else { "rotate" };
        let object = json!({"event": "done", "action": action, "from": from.id, "to": to.id});
        self.display.report(&[line], &object);
    }
}

fn days_left(certificate: &ClientCertificate) -> Option<i64> {
    certificate.expires.map(|expires| crate::trust::days_left(expires, SystemTime::now()))
}
