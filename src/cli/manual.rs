//! `portcullis completions` and `portcullis man`: what packages install beside the binary.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Which completions to print.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Shell to complete for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Writes the script.
    pub(super) fn run(&self, mut command: Command, out: &mut impl Write) {
        clap_complete::generate(self.shell, &mut command, "portcullis", out);
    }
}

/// Where the manual goes.
#[derive(Args, Debug)]
pub(super) struct Manual {
    /// Write a page for each command into this directory
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Manual {
    /// Writes the page of the program, or all pages into the directory.
    ///
    /// # Errors
    /// Writing to a file or to `out` fails.
    pub(super) fn run(&self, command: Command, out: &mut impl Write) -> io::Result<()> {
        match &self.directory {
            None => Man::new(command).render(out),
            Some(directory) => {
                fs::create_dir_all(directory)?;
                clap_mangen::generate_to(command, directory)
            }
        }
    }
}
