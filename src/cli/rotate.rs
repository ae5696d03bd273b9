//! `portcullis rotate`: the command line of [`crate::aws::rotate`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::values::{duration, positive};
use crate::aws::StageName;
use crate::aws::rotate::{self, Options, Probe, ReplicaUrl};

/// Which stages, which servers, how carefully.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("how_trust_gets_there").args(["trust", "fleet_fetches"]))]
pub struct Rotate {
    /// The stages that present the certificate. Repeatable; several values may follow one flag
    #[arg(long, value_name = "API_ID/STAGE", env = "PORTCULLIS_STAGE", value_delimiter = ',',
          num_args = 1.., required = true)]
    stage: Vec<StageName>,

    /// The directory that the servers read with --trust; this command writes it. Several servers may
    /// share it
    #[arg(long, value_name = "DIR", env = "PORTCULLIS_TRUST")]
    trust: Option<PathBuf>,

    /// The servers run `portcullis fetch`: this command only waits for them
    #[arg(long, env = "PORTCULLIS_FLEET_FETCHES")]
    fleet_fetches: bool,

    /// The admin URLs of all servers (--admin of serve). A name stands for all its addresses.
    /// Repeatable; several values may follow one flag
    #[arg(long, value_name = "URL", env = "PORTCULLIS_REPLICAS", value_delimiter = ',',
          num_args = 1.., required_unless_present = "check")]
    replicas: Vec<ReplicaUrl>,

    /// Do nothing while the certificate has more than this left
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_RENEW_BEFORE", default_value = "60d",
          value_parser = duration)]
    renew_before: Duration,

    /// How long every replica may take to trust the new certificate, and to drop the old one
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_TIMEOUT", default_value = "10m",
          value_parser = positive)]
    timeout: Duration,

    /// Before the switch, call this method of each API with the new certificate, for example
    /// 'GET /health' (TestInvokeMethod). It really calls the application
    #[arg(long, value_name = "METHOD /PATH", env = "PORTCULLIS_PROBE")]
    probe: Option<Probe>,

    /// How long a switched stage may take until a replica sees the new certificate
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_SWITCH_TIMEOUT", default_value = "2m",
          value_parser = positive)]
    switch_timeout: Duration,

    /// Create a deployment where a stage goes on presenting the old certificate. It publishes the API
    /// as it is being edited, unfinished changes included
    #[arg(long, env = "PORTCULLIS_DEPLOY")]
    deploy: bool,

    /// For how long no replica may count a request with the old certificate before it is removed
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_QUIET_FOR", default_value = "1h",
          value_parser = duration)]
    quiet_for: Duration,

    /// Stop with both certificates trusted if that does not happen for this long
    #[arg(long, value_name = "DURATION", env = "PORTCULLIS_QUIET_TIMEOUT", default_value = "24h",
          value_parser = positive)]
    quiet_timeout: Duration,

    /// Undo an unfinished rotation: the stages present the old certificate again, and the new one is
    /// retired and deleted. It works until the old one is deleted
    #[arg(long)]
    roll_back: bool,

    /// Show what each stage presents, whether every replica trusts it and in how many days it ends;
    /// change nothing
    #[arg(long, conflicts_with_all = ["roll_back", "dry_run", "probe", "deploy"])]
    check: bool,

    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Write JSON objects, one a line
    #[arg(long, env = "PORTCULLIS_JSON")]
    json: bool,

    /// The AWS region. By default AWS_REGION, or the profile's
    #[arg(long, value_name = "REGION")]
    region: Option<String>,

    /// The profile of the AWS configuration. By default AWS_PROFILE
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
}

impl Rotate {
    /// Runs until it is done, it stops, or a signal comes.
    pub async fn run(&self) -> ExitCode {
        if self.trust.is_none() && !self.fleet_fetches && !self.check {
            let text = "--trust DIR or --fleet-fetches is missing\n\nWith --trust this command writes \
                        the directory that the servers read; with --fleet-fetches they run \
                        `portcullis fetch`.";
            clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, format!("{text}\n"))
                .exit();
        }
        rotate::run(&self.options(), self.region.as_deref(), self.profile.as_deref()).await
    }

    fn options(&self) -> Options {
        let mut stages: Vec<StageName> = Vec::new();
        for stage in &self.stage {
            if !stages.contains(stage) {
                stages.push(stage.clone());
            }
        }
        Options {
            stages,
            trust: self.trust.clone(),
            replicas: self.replicas.clone(),
            probe: self.probe.clone(),
            renew_before: self.renew_before,
            timeout: self.timeout,
            switch_timeout: self.switch_timeout,
            quiet_for: self.quiet_for,
            quiet_timeout: self.quiet_timeout,
            deploy: self.deploy,
            roll_back: self.roll_back,
            dry_run: self.dry_run,
            check: self.check,
            json: self.json,
            again: command_line(std::env::args().skip(1).filter(|arg| arg != "--dry-run")),
        }
    }
}

/// As a shell takes it.
fn command_line(args: impl Iterator<Item = String>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+[]".contains(c);
    let quote = |arg: String| match !arg.is_empty() && arg.chars().all(is_plain) {
        true => arg,
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    };
    let args: Vec<_> = args.map(quote).collect();
    format!("portcullis {}", args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_that_continues_can_be_pasted_into_a_shell() {
        let args = ["rotate", "--stage", "a1/prod,b2/prod", "--probe", "GET /it's"];
        let line = command_line(args.into_iter().map(str::to_owned));
        assert_eq!(line, r"portcullis rotate --stage a1/prod,b2/prod --probe 'GET /it'\''s'");
    }
}
