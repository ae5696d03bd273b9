//! An admitted connection until it closes.

pub(super) mod access_log;
pub(super) mod connection;
pub(super) mod gate;
pub(super) mod progress;
