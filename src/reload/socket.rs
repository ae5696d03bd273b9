//! What stands at the path of the application's Unix socket.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::reload::problem::Problem;
use crate::reload::read::{ReadError, metadata, not_regular};

/// Why no application can listen at this path. A socket that is not there yet is no problem: its
/// application may start later.
pub(crate) fn judge_socket(path: &Path) -> Option<Problem> {
    let warn = |message: String, remedy| Some(Problem::warning(path, message, remedy));
    let kind = match metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.is_not_found() => return None,
        Err(error @ ReadError::DanglingLink(_)) => {
            return warn(
                error.to_string(),
                "start the application that makes it, or give its socket",
            );
        }
        Err(error) => return warn(error.to_string(), error.remedy()),
    };
    if kind.is_socket() {
        return None;
    }
    let message = match not_regular(kind) {
        _ if kind.is_file() => "it is a regular file, not a socket".to_owned(),
        ReadError::Directory => "it is a directory, not a socket".to_owned(),
        ReadError::Special(kind) => format!("it is {kind}, not a socket"),
        error => error.to_string(),
    };
    let remedy = match kind.is_dir() {
        true => {
            "give the socket in it; a container runtime makes such a directory when the socket to \
             mount is missing: then remove it, start the application first, and mount the directory \
             of the socket"
        }
        false => "give the path of the socket that the application listens at",
    };
    warn(message, remedy)
}
