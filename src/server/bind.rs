//! From settings to loaded files and listening sockets, or to the error that names what is wrong.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::reload::{Loader, NotStartable, Problem, Reload, Severity};
use crate::server::accept::listen::{adopt, listen, listen_by_default};
use crate::server::bound::Bound;
use crate::server::config::Config;
use crate::server::provider::provider;

impl Config {
    /// Reads the files and reports every problem in them, and what API Gateway will object to in
    /// the server's own certificate. Opens no socket.
    pub fn check(&self) -> CheckReport {
        self.check_for(&[])
    }

    /// The same, where API Gateway will call the server by these names.
    pub fn check_for(&self, names: &[ServerName<'_>]) -> CheckReport {
        let loader = self.load();
        let mut problems = loader.problems();
        problems.extend(loader.judge(names));
        CheckReport { problems, not_startable: loader.first_generation().err() }
    }

    /// Reads the files and listens. Must be called within a tokio runtime.
    ///
    /// The server starts despite problems in files as long as its own certificate is good and one
    /// trusted certificate is usable. The problems are logged once it serves.
    ///
    /// # Errors
    /// The files do not make a server, or the server cannot listen on an address.
    pub fn bind(self) -> Result<Bound, StartError> {
        self.bind_with(Self::listeners)
    }

    /// As [`Config::bind`], with sockets that listen already in place of the addresses: those that
    /// a service manager has opened, or that the server before this one passes on.
    ///
    /// # Errors
    /// The files do not make a server, or a socket does not listen.
    pub fn bind_to(self, sockets: Vec<std::net::TcpListener>) -> Result<Bound, StartError> {
        self.bind_with(|_| {
            let adopt = |socket: std::net::TcpListener| {
                let address = socket.local_addr().ok();
                adopt(socket).map_err(|error| StartError::Listen { address, error })
            };
            sockets.into_iter().map(adopt).collect()
        })
    }

    fn bind_with(
        self,
        listeners: impl FnOnce(&Self) -> Result<Vec<TcpListener>, StartError>,
    ) -> Result<Bound, StartError> {
        let loader = self.load();
        let first = match loader.first_generation() {
            Ok(first) => first,
            Err(reason) => {
                return Err(StartError::Material { problems: loader.problems(), reason });
            }
        };
        let listeners = listeners(&self)?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
        let (reload_requests, requested) = mpsc::unbounded_channel();
        Ok(Bound {
            addresses: addresses.map_err(|error| StartError::Listen { address: None, error })?,
            listeners,
            server_file: self.material.certificate.path().to_owned(),
            reload: Reload::new(loader, first, self.poll_interval, requested),
            reload_requests,
            limits: self.limits,
            shutdown_delay: self.shutdown_delay,
            #[cfg(feature = "acme")]
            acme: self.acme,
        })
    }

    fn load(&self) -> Loader {
        Loader::new(self.material.clone(), Arc::new(provider()), Arc::clone(&self.clock))
    }

    fn listeners(&self) -> Result<Vec<TcpListener>, StartError> {
        if self.listen.is_empty() {
            let listener = listen_by_default();
            let listener = listener.map_err(|error| StartError::Listen { address: None, error })?;
            return Ok(vec![listener]);
        }
        let listen_on = |address: &SocketAddr| {
            listen(*address).map_err(|error| StartError::Listen { address: Some(*address), error })
        };
        self.listen.iter().map(listen_on).collect()
    }
}

/// What [`Config::check`] found.
#[derive(Debug)]
pub struct CheckReport {
    /// The problems of the files, errors first.
    pub problems: Vec<Problem>,
    /// Why a server could not start on them, if it could not.
    pub not_startable: Option<NotStartable>,
}

impl CheckReport {
    /// True if there is no error. Warnings are none.
    pub fn is_good(&self) -> bool {
        self.not_startable.is_none()
            && self.problems.iter().all(|problem| problem.severity == Severity::Warning)
    }
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The files do not make a server.
    Material {
        /// The problems of the files, errors first.
        problems: Vec<Problem>,
        /// The one that prevents a start.
        reason: NotStartable,
    },
    /// The server cannot listen on an address; `None` is the default address.
    Listen {
        /// The address.
        address: Option<SocketAddr>,
        /// The system's error.
        error: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Material { reason, .. } => write!(f, "{reason}"),
            Self::Listen { address, error } => {
                match address {
                    Some(address) => write!(f, "cannot listen on {address}: {error}"),
                    None => write!(f, "cannot listen on the default [::]:8443: {error}"),
                }?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        write!(f, "; stop the program that listens there, or choose another port")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "; choose an address of this machine")
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "; choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Material { reason, .. } => Some(reason),
            Self::Listen { error, .. } => Some(error),
        }
    }
}
