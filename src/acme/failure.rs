//! Why an order failed: the step, the directory's problem type, and what to do about it.

use std::io;
use std::time::{Instant, SystemTime};

use instant_acme::{Error, Problem};

use super::client::describe;
use crate::trust::unix_time;

/// So many characters of a directory's response are shown.
const LONGEST_DETAIL: usize = 1000;

/// Another attempt does not help until an operator changes something elsewhere.
const FINAL: [&str; 7] = [
    "caa",
    "externalAccountRequired",
    "invalidContact",
    "rejectedIdentifier",
    "unsupportedContact",
    "unsupportedIdentifier",
    "userActionRequired",
];

/// How far an order got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Directory,
    Account,
    Order,
    Authorization,
    Challenge,
    Validation,
    Finalize,
    Certificate,
    Check,
    Store,
    Activate,
}

impl Step {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Account => "account",
            Self::Order => "order",
            Self::Authorization => "authorization",
            Self::Challenge => "challenge",
            Self::Validation => "validation",
            Self::Finalize => "finalize",
            Self::Certificate => "certificate",
            Self::Check => "check",
            Self::Store => "store",
            Self::Activate => "activate",
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Directory | Self::Account => {
                "check --acme-directory, the way to it, --acme-ca if it is a private one, and this \
                 machine's clock"
            }
            Self::Authorization | Self::Challenge | Self::Validation => {
                "check that port 443 of the name leads to this replica, as TCP, and that its CAA \
                 records allow this directory"
            }
            Self::Order | Self::Finalize | Self::Certificate => {
                "check that the directory issues for these names"
            }
            Self::Check => "ask the directory's operator; what was active stays so",
            Self::Store => "make --acme-cache writable, with room on its disk",
            Self::Activate => "look for reload_failed in the log",
        }
    }
}

/// An order that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    /// The URN of RFC 8555, 6.7.
    pub(super) problem_type: Option<String>,
    pub(super) detail: String,
    /// When the directory wants the next attempt at the earliest, in seconds since 1970.
    pub(super) retry_after: Option<u64>,
    /// The names whose validation failed.
    pub(super) invalid: Vec<String>,
    /// Another attempt will not help.
    pub(super) is_hopeless: bool,
}

/// Whether and how an order is repeated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Later,
    WithNewNonce,
    WithNewAccount,
    WithoutReplaces,
}

impl Failure {
    pub(super) fn new(step: Step, detail: impl Into<String>) -> Self {
        Self {
            step,
            problem_type: None,
            detail: shortened(detail.into()),
            retry_after: None,
            invalid: Vec::new(),
            is_hopeless: false,
        }
    }

    pub(super) fn of(step: Step, error: &Error) -> Self {
        match error {
            Error::Api(problem) => {
                let problem_type = worst_type(problem).map(shortened);
                Self { problem_type, ..Self::new(step, detail(problem)) }
            }
            Error::Timeout(next) => {
                let left = |next: Instant| next.saturating_duration_since(Instant::now());
                let retry_after =
                    next.map(|next| unix_time(SystemTime::now() + left(next)).as_secs());
                let detail = "the directory did not come to an end within two minutes";
                Self { retry_after, ..Self::new(step, detail) }
            }
            Error::Json(error) => {
                Self::new(step, format!("the directory sent no JSON that makes sense: {error}"))
            }
            error => Self::new(step, describe(error)),
        }
    }

    pub(super) fn of_store(error: &io::Error) -> Self {
        Self::new(Step::Store, format!("--acme-cache cannot be written to: {error}"))
    }

    /// Marks a failure that another attempt cannot resolve.
    pub(super) fn hopeless(self) -> Self {
        Self { is_hopeless: true, ..self }
    }

    /// The last part of the problem type.
    pub(super) fn kind(&self) -> &str {
        self.problem_type.as_deref().and_then(|urn| urn.rsplit(':').next()).unwrap_or_default()
    }

    pub(super) fn again(&self) -> Again {
        match (self.step, self.kind()) {
            (_, "badNonce") => Again::WithNewNonce,
            (_, "accountDoesNotExist") => Again::WithNewAccount,
            (Step::Order, "alreadyReplaced" | "conflict" | "malformed" | "unauthorized") => {
                Again::WithoutReplaces
            }
            // instant-acme's own: the directory has no renewalInfo, or ignored the field.
            (Step::Order, "")
                if self.detail.contains("ARI") || self.detail.contains("replaces") =>
            {
                Again::WithoutReplaces
            }
            _ => Again::Later,
        }
    }
}

/// The directory's own words go to the log, the history and the status page.
fn shortened(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(LONGEST_DETAIL) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// The type of a problem. Of several subproblems, one that ends all attempts counts.
fn worst_type(problem: &Problem) -> Option<String> {
    let types = problem.subproblems.iter().filter_map(|it| it.r#type.as_ref());
    let is_final = |urn: &&String| is_final_type(urn);
    types.clone().find(is_final).or(problem.r#type.as_ref()).cloned()
}

fn detail(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_else(|| "no detail".to_owned());
    for subproblem in &problem.subproblems {
        text.push_str(&format!("; {}", subproblem.to_string().trim_start_matches(": ")));
    }
    text
}

impl Failure {
    /// True if another attempt today cannot succeed.
    pub(super) fn is_final(&self) -> bool {
        self.is_hopeless || self.problem_type.as_deref().is_some_and(is_final_type)
    }
}

/// True for a problem type after which another attempt does not help.
fn is_final_type(urn: &str) -> bool {
    urn.rsplit(':').next().is_some_and(|name| FINAL.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Failure {
        Failure::of(Step::Order, &Error::Api(serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn problem_of_several_is_named_by_the_final_one() {
        let failure = problem(
            r#"{"type": "urn:ietf:params:acme:error:compound", "detail": "two problems",
                "subproblems": [
                    {"type": "urn:ietf:params:acme:error:dns", "detail": "no A record",
                     "identifier": {"type": "dns", "value": "a.example"}},
                    {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "never",
                     "identifier": {"type": "dns", "value": "b.example"}}]}"#,
        );
        assert_eq!(failure.kind(), "rejectedIdentifier");
        assert!(failure.is_final());
        for part in ["two problems", "a.example", "no A record", "never"] {
            assert!(failure.detail.contains(part), "{}", failure.detail);
        }
    }

    #[test]
    fn long_words_of_a_directory_are_shortened_and_short_ones_are_whole() {
        for (length, shown) in [(LONGEST_DETAIL, LONGEST_DETAIL), (500_000, LONGEST_DETAIL + 1)] {
            let long = "ü".repeat(length);
            let failure = problem(&format!(r#"{{"type": "{long}", "detail": "{long}"}}"#));
            assert_eq!(failure.detail.chars().count(), shown);
            assert_eq!(failure.problem_type.unwrap_or_default().chars().count(), shown);
        }
    }

    #[test]
    fn only_some_failures_are_tried_again_at_once() {
        for (name, again) in [
            ("badNonce", Again::WithNewNonce),
            ("accountDoesNotExist", Again::WithNewAccount),
            ("alreadyReplaced", Again::WithoutReplaces),
            ("rateLimited", Again::Later),
            ("rejectedIdentifier", Again::Later),
        ] {
            let json = format!(r#"{{"type": "urn:ietf:params:acme:error:{name}"}}"#);
            assert_eq!(problem(&json).again(), again, "{name}");
        }
        let unsupported = Failure::of(Step::Order, &Error::Unsupported("renewal info (ARI)"));
        assert_eq!(unsupported.again(), Again::WithoutReplaces);
    }
}
