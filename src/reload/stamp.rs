//! Detects changed files and replaced directories by their metadata.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

/// Two changes within this time may leave the same time stamp.
const STAMP_GRAIN: Duration = Duration::from_secs(2);

/// Identifies a directory, so that another one at the same path is detected. It includes the time
/// of creation because a file system may reuse an inode number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectoryIdentity(u64, u64, Option<SystemTime>);

impl DirectoryIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino(), metadata.created().ok())
    }
}

/// The metadata that changes when a file's content does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// True if every change after `now` gives another stamp.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        now.duration_since(changed).is_ok_and(|age| age > STAMP_GRAIN)
    }
}
