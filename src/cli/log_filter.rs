//! `--log`: which events are logged. A misspelt level or target would silence errors, so both are
//! checked.

use std::collections::BTreeSet;
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The target of the access log.
pub(super) const ACCESS: &str = "portcullis::access";

/// The parts of the program that log, each with the modules below it.
const TARGETS: [&str; 10] = [
    "portcullis",
    ACCESS,
    "portcullis::acme",
    "portcullis::admin",
    "portcullis::aws",
    "portcullis::cli",
    "portcullis::reload",
    "portcullis::server",
    "portcullis::service",
    "portcullis::trust",
];

/// Which events are logged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogFilter(pub(super) Targets);

impl LogFilter {
    /// The same without the access log.
    pub(super) fn without_access_log(self) -> Self {
        Self(self.0.with_target(ACCESS, LevelFilter::OFF))
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut filter, mut seen) = (Targets::new(), BTreeSet::new());
        for item in text.split(',').map(str::trim) {
            let (target, level) = match item.split_once('=') {
                Some((target, level)) => (Some(target.trim()), level.trim()),
                None if item.starts_with("portcullis") => (Some(item), "trace"),
                None => (None, item),
            };
            let level = parse_level(level)?;
            if !seen.insert(target) {
                return Err(format!("{} has two levels", target.unwrap_or("everything else")));
            }
            filter = match target {
                Some(target) => filter.with_target(check_target(target)?, level),
                None => filter.with_default(level),
            };
        }
        // A filter for one target leaves the others at the default: it must not silence errors.
        if !seen.contains(&None) {
            filter = filter.with_default(LevelFilter::INFO);
        }
        Ok(Self(filter))
    }
}

fn parse_level(level: &str) -> Result<LevelFilter, String> {
    let is_known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    level.parse().ok().filter(|_| is_known).ok_or_else(|| {
        format!(
            "{level:?} is not a level; the levels are {}, as in info or \
             warn,portcullis::server=debug",
            LEVELS.join(", ")
        )
    })
}

fn check_target(target: &str) -> Result<&str, String> {
    if TARGETS.contains(&target) {
        return Ok(target);
    }
    Err(format!("{target:?} is not a target; the targets are {}", TARGETS.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tracing::Level;

    use super::*;

    #[test]
    fn level_and_targets_are_read() {
        let filter = |text: &str| text.parse::<LogFilter>().unwrap().0;
        assert!(filter("info").would_enable("portcullis::server::http", &Level::INFO));
        assert!(!filter("WARN").would_enable("portcullis::server", &Level::INFO));
        assert!(!filter("off").would_enable("portcullis", &Level::ERROR));
        let both = filter("warn, portcullis::server=debug");
        assert!(both.would_enable("portcullis::server::accept", &Level::DEBUG));
        assert!(!both.would_enable("portcullis::reload", &Level::INFO));
        let access = filter("portcullis::access=off");
        assert!(access.would_enable("portcullis::cli", &Level::INFO));
        assert!(!access.would_enable("portcullis::cli", &Level::DEBUG));
        assert!(!access.would_enable(ACCESS, &Level::ERROR));
        assert!(
            !filter("off,portcullis::access=info").would_enable("portcullis::cli", &Level::ERROR)
        );
        assert!(filter("portcullis::reload").would_enable("portcullis::reload", &Level::TRACE));
    }

    #[test]
    fn unknown_level_or_target_is_rejected_with_the_valid_ones() {
        for (text, problem) in [
            ("verbose", "the levels are off, error, warn, info"),
            ("", "the levels are"),
            ("3", "the levels are"),
            ("info,", "the levels are"),
            ("portcullis::acces=off", "the targets are portcullis, portcullis::access"),
            ("hyper=debug", "the targets are"),
            ("=info", "the targets are"),
            ("portcullis=", "the levels are"),
            ("a=b=c", "is not a level"),
            ("info,debug", "everything else has two levels"),
            ("portcullis=info,portcullis=warn", "portcullis has two levels"),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }

    /// True if a file at this path, or below it, logs an event.
    fn modules_that_log(path: &Path) -> bool {
        if path.is_dir() {
            return fs::read_dir(path)
                .unwrap()
                .any(|entry| modules_that_log(&entry.unwrap().path()));
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        ["error!(", "warn!(", "info!(", "debug!(", "trace!("].iter().any(|name| code.contains(name))
    }

    #[test]
    fn every_part_of_the_program_that_logs_is_a_target() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for entry in fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            let module = path.file_stem().unwrap().to_str().unwrap();
            if modules_that_log(&path) {
                let target = format!("portcullis::{module}");
                assert!(TARGETS.contains(&target.as_str()), "{target} is missing here");
            }
        }
    }
}
