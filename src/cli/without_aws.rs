//! `fetch` and `rotate` in a binary that is built without the feature `aws`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

/// The arguments of a command that this binary does not have.
#[derive(Args, Debug)]
pub struct WithoutAws {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

impl WithoutAws {
    /// Reports how to get the command, as usage.
    pub fn run(&self, command: &str) -> ExitCode {
        let _ = writeln!(
            io::stderr(),
            "error: {command} is not in this binary: it is built without the feature aws\n\
             Build it with: cargo build --release --features aws\n\
             Every package and image of portcullis has it."
        );
        ExitCode::from(2)
    }
}
