//! How a command ends: its exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::{Problem, Severity};

/// Exit code of a failure while running.
pub(super) const FAILED: u8 = 1;
/// Exit code of wrong usage, and of files that do not load.
pub(super) const UNUSABLE: u8 = 2;

/// How a command that reads files ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// The certificate is not accepted.
    NotAccepted,
    /// A file does not load.
    Unusable,
}

impl Outcome {
    pub(super) fn of(problems: &[Problem]) -> Self {
        match problems.iter().any(|problem| problem.severity == Severity::Error) {
            true => Self::Unusable,
            false => Self::Success,
        }
    }
}

/// Runs a command and prints its output. A reader that has gone does not change the outcome.
pub(super) fn print(run: impl FnOnce(&mut Vec<u8>) -> io::Result<Outcome>) -> ExitCode {
    let mut out = Vec::new();
    let outcome = run(&mut out);
    let _ = io::stdout().write_all(&out);
    match outcome {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::NotAccepted) => ExitCode::from(FAILED),
        Ok(Outcome::Unusable) => ExitCode::from(UNUSABLE),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(FAILED)
        }
    }
}
