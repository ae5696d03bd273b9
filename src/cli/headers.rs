//! The flags about request headers, checked together while they are parsed.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use http::{HeaderName, HeaderValue};

use crate::service::headers::{BadHeaderRule, HeaderRules};

/// The rules that the header flags describe.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderArgs {
    /// The rules.
    pub(super) rules: HeaderRules,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Upstream")]
struct Flags {
    /// Pass a header that is stripped
    #[arg(
        long,
        value_name = "NAME",
        env = "PORTCULLIS_PASS_HEADER",
        value_delimiter = ',',
        value_parser = header_name,
        requires = "upstream",
        long_help = "Pass a request header that is stripped by default. API Gateway forwards what \
                     its callers send, so it is not verified. X-Forwarded-Host then keeps the \
                     caller's value. Repeatable"
    )]
    pass_header: Vec<HeaderName>,

    /// Strip a request header
    #[arg(
        long,
        value_name = "NAME",
        env = "PORTCULLIS_STRIP_HEADER",
        value_delimiter = ',',
        value_parser = header_name,
        requires = "upstream",
        long_help = "Strip a request header, in every spelling. Repeatable"
    )]
    strip_header: Vec<HeaderName>,

    /// Set a request header
    #[arg(
        long,
        value_name = "NAME=VALUE",
        env = "PORTCULLIS_SET_HEADER",
        value_parser = header_pairs,
        requires = "upstream",
        long_help = "Set a request header, in place of a received one. The value may contain \
                     commas; the variable takes one pair a line. Repeatable"
    )]
    set_header: Vec<Pairs>,
}

/// The pairs of one value: one a line.
#[derive(Clone, Debug)]
struct Pairs(Vec<(HeaderName, HeaderValue)>);

fn header_name(text: &str) -> Result<HeaderName, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no header name, such as X-Remote-User"))
}

fn header_pairs(text: &str) -> Result<Pairs, String> {
    let lines = text.trim_end_matches(['\r', '\n']).lines();
    let pairs: Vec<_> = lines.map(header_pair).collect::<Result<_, _>>()?;
    if pairs.is_empty() { Err("empty; write NAME=VALUE".to_owned()) } else { Ok(Pairs(pairs)) }
}

fn header_pair(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) =
        line.split_once('=').ok_or_else(|| format!("{line:?} has no '='; write NAME=VALUE"))?;
    let name = header_name(name)?;
    let value = value.trim();
    // A header value is visible ASCII or UTF-8, without control characters.
    let value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of {name} has a control character"))?;
    Ok((name, value))
}

impl Flags {
    /// `matches` shows which values are from the environment.
    fn rules(self, matches: &ArgMatches) -> Result<HeaderRules, Error> {
        let blame = |id: &str, problem: &BadHeaderRule| {
            let flag = match matches.value_source(id) {
                Some(ValueSource::EnvVariable) => format!("PORTCULLIS_{}", id.to_uppercase()),
                _ => format!("--{}", id.replace('_', "-")),
            };
            let flags = "--pass-header, --strip-header and --set-header";
            let text = match problem {
                BadHeaderRule::Reserved(_) => format!("{flag}: {problem}\n"),
                BadHeaderRule::Conflict(name) => format!(
                    "{flag}: the header {name} is named twice in {flags}; name it in one of them, \
                     once\n"
                ),
            };
            Error::raw(ErrorKind::ValueValidation, text)
        };
        let mut rules = HeaderRules::default();
        for name in self.pass_header {
            rules = rules.pass(name).map_err(|problem| blame("pass_header", &problem))?;
        }
        for name in self.strip_header {
            rules = rules.strip(name).map_err(|problem| blame("strip_header", &problem))?;
        }
        for (name, value) in self.set_header.into_iter().flat_map(|pairs| pairs.0) {
            rules = rules.set(name, value).map_err(|problem| blame("set_header", &problem))?;
        }
        Ok(rules)
    }
}

impl FromArgMatches for HeaderArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self { rules: Flags::from_arg_matches(matches)?.rules(matches)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for HeaderArgs {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}
