//! The files of a server and of its clients, in a directory of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::pki::{Credential, PKI};
use super::tls::put;
use super::{Finished, Portcullis, flags, run};

pub struct Files(pub TempDir);

impl Files {
    /// With `a` and `b` trusted.
    pub fn new() -> Self {
        Self::trusting(&[&PKI.a, &PKI.b])
    }

    pub fn trusting(trusted: &[&Credential]) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::create_dir(files.path("trust")).unwrap();
        files.write("server.pem", &PKI.server.cert);
        files.write("server.key", &PKI.server.key);
        for client in PKI.clients() {
            files.write(&format!("{}.pem", client.name), &client.cert);
        }
        for client in trusted {
            files.trust(&format!("{}.pem", client.name), &client.cert);
        }
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that no other user can read: it may be a key.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn trust(&self, name: &str, pem: &str) {
        put(&self.path("trust"), name, pem);
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path("trust").join(name)).unwrap();
    }

    /// The flags of these files.
    pub fn flags(&self) -> Vec<String> {
        flags(self.0.path())
    }

    /// Runs a command of the binary beside `serve`, in the directory of the files.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        run(Portcullis::command().current_dir(self.0.path()).args(arguments), "")
    }

    /// Runs a command with the flags of these files before its own.
    pub fn run_with_flags(&self, command: &str, more: &[&str]) -> Finished {
        run(Portcullis::command().arg(command).args(self.flags()).args(more), "")
    }

    /// A server without an admin port.
    pub fn start(&self, more: &[&str]) -> Portcullis {
        Portcullis::serve(
            self.flags().into_iter().chain(more.iter().map(|flag| (*flag).to_owned())),
        )
    }
}
