//! Reads regular files, and reports by name what else is at a path.

use std::fmt;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest trust file, certificate file or key file.
pub(super) const MAX_FILE_SIZE: u64 = 1 << 20;

/// Where PEM text comes from. [`fmt::Debug`] shows no content, which may be a key.
#[derive(Clone)]
pub(crate) enum PemSource {
    /// A file, or for trusted certificates also a directory. It is read again when it changes.
    Path(PathBuf),
    /// Bytes, with a name for messages.
    Bytes(PathBuf, Arc<[u8]>),
}

impl PemSource {
    /// The path, or the name of the bytes.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Bytes(path, _) => path,
        }
    }

    /// The path, if there is one to watch.
    pub(super) fn watched(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Bytes(..) => None,
        }
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, ReadError> {
        match self {
            Self::Path(path) => read_regular(path, &metadata(path)?),
            Self::Bytes(_, bytes) => Ok(bytes.to_vec()),
        }
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.path(), f)
    }
}

/// Why a file could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    /// A link whose target does not exist.
    DanglingLink(PathBuf),
    /// A link, at the path or above it, that leads back to itself.
    LinkLoop(PathBuf),
    /// A file, where the path goes on as if it were a directory.
    FileAbove(PathBuf),
    Directory,
    /// A FIFO, socket or device: which.
    Special(&'static str),
}

impl ReadError {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::DanglingLink(_) => "restore its target, or remove the link",
            Self::LinkLoop(_) => "lead the link to the file itself: ln -sfn FILE LINK",
            Self::FileAbove(_) => {
                "end the path with the name of the file, without a slash behind it"
            }
            Self::Directory => {
                "give a file; a container runtime makes such a directory when the file to mount is \
                 missing: then remove it and mount the file"
            }
            Self::Special(_) => "give a regular file, which can be read again after a change",
            // Too many open files, in the process or in all.
            Self::Io(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                "raise the limit on open files, or lower --max-connections"
            }
            Self::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => "check the path, or put the file back",
                io::ErrorKind::PermissionDenied => {
                    "let the user that runs portcullis read it; if since the start a file in / or a \
                     whole directory was replaced, or a link changed to lead there, the sandbox \
                     denies it: start portcullis again (or with --no-sandbox)"
                }
                _ => "make it readable again",
            },
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::DanglingLink(target) => {
                write!(f, "it is a link to {}, which does not exist", target.display())
            }
            Self::LinkLoop(link) => write!(f, "the link {} leads back to itself", link.display()),
            Self::FileAbove(file) => {
                write!(f, "{} is a file, and the path goes on behind it", file.display())
            }
            Self::Directory => write!(f, "it is a directory, not a file"),
            Self::Special(kind) => write!(f, "it is {kind}, not a regular file"),
        }
    }
}

/// The metadata of what a path leads to.
pub(super) fn metadata(path: &Path) -> Result<Metadata, ReadError> {
    fs::metadata(path).map_err(|error| match (fs::read_link(path), error.kind()) {
        (Ok(target), io::ErrorKind::NotFound) => ReadError::DanglingLink(target),
        (_, io::ErrorKind::NotADirectory) => match file_above(path) {
            Some(file) => ReadError::FileAbove(file),
            None => ReadError::Io(error),
        },
        _ if is_link_loop(&error) => match looping_link(path) {
            Some(link) => ReadError::LinkLoop(link),
            None => ReadError::Io(error),
        },
        _ => ReadError::Io(error),
    })
}

/// The part of a path that is a file and not its last part, or has a slash behind it.
fn file_above(path: &Path) -> Option<PathBuf> {
    let is_file = |part: &&Path| fs::metadata(part).is_ok_and(|metadata| !metadata.is_dir());
    // Without the slash, which `ancestors` keeps in the first one.
    let whole: PathBuf = path.components().collect();
    whole.ancestors().find(is_file).map(Path::to_owned)
}

/// The first link of a path that cannot be followed to its end.
fn looping_link(path: &Path) -> Option<PathBuf> {
    let parts: Vec<_> = path.ancestors().collect();
    let is_loop = |part: &&&Path| {
        part.is_symlink() && fs::metadata(part).is_err_and(|error| is_link_loop(&error))
    };
    parts.iter().rev().find(is_loop).map(|part| part.to_path_buf())
}

fn is_link_loop(error: &io::Error) -> bool {
    const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };
    error.raw_os_error() == Some(ELOOP)
}

/// Reads a regular file, up to one byte more than [`MAX_FILE_SIZE`].
pub(super) fn read_regular(path: &Path, metadata: &Metadata) -> Result<Vec<u8>, ReadError> {
    if !metadata.is_file() {
        return Err(not_regular(metadata.file_type()));
    }
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(ReadError::Io)
}

pub(super) fn not_regular(kind: FileType) -> ReadError {
    match kind {
        kind if kind.is_dir() => ReadError::Directory,
        kind if kind.is_fifo() => ReadError::Special("a FIFO (named pipe)"),
        kind if kind.is_socket() => ReadError::Special("a socket"),
        _ => ReadError::Special("a device"),
    }
}
