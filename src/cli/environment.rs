//! The environment: each flag has its `PORTCULLIS_*` variable, and a mistake in one is reported by
//! its own name.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, Error};
use tracing::warn;

const PREFIX: &str = "PORTCULLIS_";

/// Variables whose empty value would silently drop a restriction.
const NEVER_EMPTY: [&str; 4] = [
    "PORTCULLIS_API_ID",
    "PORTCULLIS_PROXY_PROTOCOL_FROM",
    "PORTCULLIS_TRUST",
    "PORTCULLIS_TRUST_CA",
];

/// Parses the command line, with the environment for the flags that are not on it.
pub(super) fn parse(command: Command, args: &[OsString]) -> Result<ArgMatches, Error> {
    let name = args.get(1).cloned().unwrap_or_default();
    if let Some(variable) = command.find_subcommand(&name).and_then(empty_variable) {
        let text = format!("{variable} is set but empty: give it a value, or unset it\n");
        let result = command.clone().try_get_matches_from(args);
        // `--help` is a result too.
        return match result {
            Err(error) if !error.use_stderr() => Err(error),
            _ => Err(Error::raw(ErrorKind::ValueValidation, text)),
        };
    }
    let command = command.mut_subcommands(without_empty_variables);
    let result = command.clone().try_get_matches_from(args);
    result.map_err(|error| {
        let flags_only = command.clone().mut_subcommands(without_variables);
        let alone = flags_only.try_get_matches_from(args).err();
        let Some(subcommand) = command.find_subcommand(&name) else { return error };
        match error.kind() {
            ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument => {
                match variable_of_combination(&error, &command, subcommand, args) {
                    Some(arg) => blame_combination(error, &arg),
                    None => error,
                }
            }
            _ => blame_variable(error, alone.as_ref(), subcommand),
        }
    })
}

/// The flag whose variable makes a combination of flags an error: without it, the error is gone.
fn variable_of_combination(
    error: &Error,
    command: &Command,
    subcommand: &Command,
    args: &[OsString],
) -> Option<Arg> {
    let is_culprit = |arg: &&Arg| {
        let without = command.clone().mut_subcommands(|command| {
            let has = command.get_arguments().any(|other| other.get_id() == arg.get_id());
            match has {
                true => command.mut_arg(arg.get_id(), |arg| arg.env(Resettable::Reset)),
                false => command,
            }
        });
        without.try_get_matches_from(args).err().is_none_or(|other| other.kind() != error.kind())
    };
    let mut subcommand = subcommand.clone();
    // An argument has its text only once the command is built.
    subcommand.build();
    let is_set = |arg: &&Arg| arg.get_env().is_some_and(|name| env::var_os(name).is_some());
    subcommand.get_arguments().filter(is_set).find(is_culprit).cloned()
}

/// Names the variable where clap names its flag.
fn blame_combination(mut error: Error, arg: &Arg) -> Error {
    let (flag, variable) = (arg.to_string(), arg.get_env().unwrap_or_default().to_string_lossy());
    let context = |kind| error.get(kind).map(ToString::to_string);
    if error.kind() == ErrorKind::MissingRequiredArgument {
        let missing = context(ContextKind::InvalidArg).unwrap_or_default();
        return Error::raw(error.kind(), format!("{variable} is set, and needs {missing}\n"));
    }
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        if error.get(kind).is_some_and(|name| name.to_string() == flag) {
            error.insert(kind, ContextValue::String(variable.clone().into_owned()));
        }
    }
    error
}

/// The name by which a value was set: its flag, or its variable.
pub(super) fn name_of(flag: &'static str, variable: &'static str) -> &'static str {
    let is_flag = |arg: OsString| {
        let rest = arg.to_str().and_then(|arg| arg.strip_prefix(flag).map(str::to_owned));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let is_variable = env::var_os(variable).is_some_and(|value| !value.is_empty());
    if is_variable && !env::args_os().any(is_flag) { variable } else { flag }
}

fn variables(command: &Command) -> impl Iterator<Item = &OsStr> {
    command.get_arguments().filter_map(Arg::get_env)
}

fn is_empty(variable: &OsStr) -> bool {
    env::var_os(variable).is_some_and(|value| value.is_empty())
}

fn empty_variable(command: &Command) -> Option<&'static str> {
    let has = |name: &str| variables(command).any(|variable| variable == name);
    NEVER_EMPTY.into_iter().find(|name| is_empty(name.as_ref()) && has(name))
}

/// An empty variable counts as unset.
fn without_empty_variables(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(Resettable::Reset),
        false => arg,
    })
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset))
}

/// clap names the flag even for a value from the environment. An error that persists without the
/// environment is the command line's.
fn blame_variable(mut error: Error, without: Option<&Error>, command: &Command) -> Error {
    let culprit = |error: &Error| error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let is_same = |other: &Error| other.kind() == error.kind() && culprit(other) == culprit(&error);
    if without.is_some_and(is_same) {
        return error;
    }
    if error.kind() == ErrorKind::InvalidUtf8 {
        let is_text = |variable: &&OsStr| {
            env::var(variable) != Err(env::VarError::NotPresent)
                && env::var_os(variable).is_some_and(|value| value.into_string().is_err())
        };
        let Some(variable) = variables(command).find(is_text) else { return error };
        let text = format!("{} is not valid UTF-8\n", variable.to_string_lossy());
        return Error::raw(ErrorKind::InvalidUtf8, text);
    }
    let (Some(name), true) = (culprit(&error), is_about_a_value(&error)) else { return error };
    // An argument has its text only once the command is built.
    let mut command = command.clone();
    command.build();
    let arg = command.get_arguments().find(|arg| arg.to_string() == name);
    if let Some(variable) = arg.and_then(Arg::get_env) {
        let variable = variable.to_string_lossy().into_owned();
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
    error
}

fn is_about_a_value(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
}

/// A variable with the prefix of this program that no command reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownVariable {
    pub(super) name: String,
    /// The known variable whose name is most like it.
    pub(super) nearest: String,
}

impl UnknownVariable {
    /// Logs it as a warning.
    pub(super) fn log(&self) {
        let Self { name, nearest } = self;
        let remedy = format!("rename it to {nearest} if that is meant, or unset it");
        warn!(variable = name, nearest, remedy, "unknown_variable");
    }
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, nearest } = self;
        write!(f, "no command reads the variable {name}; the nearest one is {nearest}")
    }
}

/// The variables that are probably misspelt. They are reported, and ignored.
pub(super) fn unknown_variables(command: &Command) -> Vec<UnknownVariable> {
    let names = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    unknown_among(command, names)
}

fn unknown_among(command: &Command, names: impl Iterator<Item = String>) -> Vec<UnknownVariable> {
    let known: BTreeSet<_> = command.get_subcommands().flat_map(variables).collect();
    let unknown = names.filter(|name| {
        name.starts_with(PREFIX) && !known.contains(OsStr::new(name)) && !is_of_a_service(name)
    });
    let nearest = |name: &str| {
        // A name that lacks its end is nearer than one of the same length.
        let distance = |known: &&str| match known.starts_with(name) {
            true => 0,
            false => strsim::damerau_levenshtein(name, known),
        };
        let names = known.iter().filter_map(|known| known.to_str());
        names.min_by_key(distance).unwrap_or_default().to_owned()
    };
    let mut unknown: Vec<_> =
        unknown.map(|name| UnknownVariable { nearest: nearest(&name), name }).collect();
    unknown.sort_by(|one, other| one.name.cmp(&other.name));
    unknown
}

/// Kubernetes sets variables like these for each Service, here for one whose name begins with
/// `portcullis`.
fn is_of_a_service(name: &str) -> bool {
    let has_numbered_port = || {
        let mut parts = name.split("_PORT_").skip(1);
        parts.any(|part| part.split('_').next().is_some_and(is_number) && part.contains('_'))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || has_numbered_port()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let flag = |name, variable| Arg::new(name).long(name).env(variable);
        let serve = Command::new("serve")
            .arg(flag("trust", "PORTCULLIS_TRUST"))
            .arg(flag("admin", "PORTCULLIS_ADMIN"));
        Command::new("portcullis").subcommand(serve)
    }

    #[test]
    fn unknown_variable_is_named_with_the_nearest_known_one() {
        let names = ["PORTCULLIS_TRSUT", "PORTCULLIS_ADMIN", "PATH", "PORTCULLIS_ADMN_X"];
        let unknown = unknown_among(&command(), names.into_iter().map(str::to_owned));
        let pairs: Vec<_> = unknown.iter().map(|v| (&*v.name, &*v.nearest)).collect();
        let cut = unknown_among(&command(), ["PORTCULLIS_TR".to_owned()].into_iter());
        assert_eq!(cut[0].nearest, "PORTCULLIS_TRUST");
        assert_eq!(
            pairs,
            [("PORTCULLIS_ADMN_X", "PORTCULLIS_ADMIN"), ("PORTCULLIS_TRSUT", "PORTCULLIS_TRUST")]
        );
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_known() {
        for name in [
            "PORTCULLIS_SERVICE_HOST",
            "PORTCULLIS_SERVICE_PORT",
            "PORTCULLIS_SERVICE_PORT_HTTPS",
            "PORTCULLIS_PORT",
            "PORTCULLIS_PORT_443_TCP",
            "PORTCULLIS_PORT_443_TCP_PROTO",
            "PORTCULLIS_PORT_443_TCP_ADDR",
            "PORTCULLIS_ADMIN_SERVICE_HOST",
            "PORTCULLIS_ADMIN_PORT_9090_TCP_PORT",
        ] {
            assert!(is_of_a_service(name), "{name}");
        }
        for name in ["PORTCULLIS_SERVICE", "PORTCULLIS_PORTS", "PORTCULLIS_PORT_X", "PORTCULLIS_P"]
        {
            assert!(!is_of_a_service(name), "{name}");
        }
    }
}
