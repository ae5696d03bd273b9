//! `portcullis fetch` against a stand-in for the control plane, from outside.

mod daemon;
mod disk;
mod selection;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::control_plane::ControlPlane;
use crate::support::{Finished, Portcullis, run};

const REPLACES: &str = "portcullis:replaces";
const RETIRED: &str = "portcullis:retired";

/// An account, and a directory that is fetched into.
struct Fleet {
    plane: ControlPlane,
    directory: TempDir,
}

impl Fleet {
    fn new() -> Self {
        Self { plane: ControlPlane::start(), directory: TempDir::new().unwrap() }
    }

    /// An account with one stage, `prod`; returns its name as `--stage` takes it, and what it presents.
    fn with_stage() -> (Self, String, String) {
        let fleet = Self::new();
        let presented = fleet.plane.add_certificate(330, &[]);
        let api = fleet.plane.add_api("example");
        fleet.plane.set_stage(&api, "prod", Some(&presented));
        (fleet, format!("{api}/prod"), presented)
    }

    fn switch(&self, stage: &str, certificate: &str) {
        let (api, stage) = stage.split_once('/').unwrap();
        self.plane.set_stage(api, stage, Some(certificate));
    }

    fn trust(&self) -> PathBuf {
        self.directory.path().join("trust")
    }

    fn file(&self, id: &str) -> PathBuf {
        self.trust().join(format!("{id}.pem"))
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&self.plane, &self.trust(), args)
    }

    /// Polls once.
    #[track_caller]
    fn fetch(&self, args: &[&str]) -> Finished {
        run(&mut self.command(args), "")
    }

    #[track_caller]
    fn fetch_well(&self, args: &[&str]) -> Finished {
        let finished = self.fetch(args);
        assert_eq!(finished.code, Some(0), "{finished}");
        finished
    }

    #[track_caller]
    fn fetch_badly(&self, args: &[&str], named: &[&str]) {
        let finished = self.fetch(args);
        assert_eq!(finished.code, Some(1), "{finished}");
        for named in named {
            assert!(finished.stderr.contains(named), "{named} in {finished}");
        }
    }

    fn daemon(&self, args: &[&str]) -> Portcullis {
        Portcullis::spawn(self.command(args).args(["--every", "300ms"]))
    }

    /// Everything in the directory, by name.
    fn disk(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.trust()) else { return BTreeMap::new() };
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap_or_default())
        };
        entries.map(entry).collect()
    }

    /// The ids whose files are there.
    fn ids(&self) -> Vec<String> {
        let names = self.disk().into_keys();
        names.filter_map(|name| name.strip_suffix(".pem").map(str::to_owned)).collect()
    }

    #[track_caller]
    fn assert_ids<const N: usize>(&self, expected: [&String; N]) {
        let mut expected = expected.map(String::clone).to_vec();
        expected.sort();
        assert_eq!(self.ids(), expected);
    }
}

fn command(plane: &ControlPlane, into: &Path, args: &[&str]) -> Command {
    let mut command = Portcullis::command();
    command.envs(plane.variables()).args(["fetch", "--log-format", "json", "--into"]);
    command.arg(into).args(args);
    command
}
