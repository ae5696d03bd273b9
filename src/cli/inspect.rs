//! `portcullis inspect`: what certificate files contain.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;

use super::outcome::Outcome;
use super::values::path;
use crate::admin::status::Found;
use crate::reload::read_trust;
use crate::trust::{
    LoadedCertificate, Span, Validity, ValidityState, WrittenPeriod, days_left, rfc3339,
    system_time, unix_time,
};
use crate::{Problem, Role, Severity};

/// What to inspect.
#[derive(Args, Debug)]
pub(super) struct Inspect {
    /// PEM files, or directories of *.pem, *.crt and *.cer files
    #[arg(value_name = "PATH", required = true, value_parser = path())]
    paths: Vec<PathBuf>,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    certificates: Vec<Row>,
    problems: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Row {
    file: String,
    subject: String,
    serial: String,
    fingerprint: String,
    key: String,
    not_before: String,
    not_after: String,
    days_left: i64,
    #[serde(skip)]
    validity: String,
}

impl Row {
    fn new(loaded: &LoadedCertificate, now: SystemTime) -> Self {
        let summary = loaded.certificate.summary();
        let period = WrittenPeriod::new(loaded.certificate.der(), summary.validity);
        // The clock of the validity period begins in 1970.
        let end = system_time(summary.validity.not_after) - period.ended_before_1970;
        Self {
            file: loaded.file.display().to_string(),
            subject: summary.subject.clone(),
            serial: summary.serial.clone(),
            fingerprint: summary.fingerprint.to_string(),
            key: loaded.certificate.key().to_string(),
            days_left: days_left(end, now),
            validity: describe(summary.validity, period.ended_before_1970, now),
            not_before: period.not_before,
            not_after: period.not_after,
        }
    }

    fn columns(&self) -> [String; 8] {
        [
            &self.file,
            &self.subject,
            &self.serial,
            &self.key,
            &self.not_before,
            &self.not_after,
            &self.validity,
            &self.fingerprint,
        ]
        .map(String::clone)
    }
}

fn describe(validity: Validity, before_1970: Duration, now: SystemTime) -> String {
    match validity.at(unix_time(now)) {
        ValidityState::Expired(past) => format!("expired {} ago", Span(past + before_1970)),
        ValidityState::NotYetValid(_) => {
            format!("not valid until {}", rfc3339(validity.not_before))
        }
        ValidityState::Valid(left) => format!("valid for {}", Span(left)),
    }
}

impl Inspect {
    /// Writes the certificates of the files and their problems.
    ///
    /// # Errors
    /// Writing to `out` fails.
    pub(super) fn run(&self, out: &mut impl Write) -> io::Result<Outcome> {
        let now = SystemTime::now();
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        for path in &self.paths {
            let (loaded, found) = read_trust(Role::Pin, path);
            rows.extend(loaded.iter().map(|loaded| Row::new(loaded, now)));
            problems.extend(found);
        }
        let outcome = Outcome::of(&problems);
        if self.json {
            let problems = problems.iter().map(Found::new).collect();
            let report = Report { version: 1, certificates: rows, problems };
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
            return Ok(outcome);
        }
        write_table(out, &rows)?;
        write_problems(out, &problems)?;
        Ok(outcome)
    }
}

/// Writes each problem on a line.
pub(super) fn write_problems(out: &mut impl Write, problems: &[Problem]) -> io::Result<()> {
    problems.iter().try_for_each(|problem| match problem.severity {
        Severity::Error => writeln!(out, "error: {problem}"),
        Severity::Warning => writeln!(out, "warning: {problem}"),
    })
}

fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let heads = ["FILE", "SUBJECT", "SERIAL", "KEY", "FROM", "UNTIL", "VALIDITY", "SHA-256"];
    let mut table = vec![heads.map(str::to_owned)];
    table.extend(rows.iter().map(Row::columns));
    let mut widths = [0; 8];
    for row in &table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &table {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
