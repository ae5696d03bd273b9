//! An admitted connection until it closes.

mod access_log;
pub(super) mod close_reason;
pub(super) mod connection;
mod deadlines;
mod drive;
pub(super) mod failure_log;
mod flush;
mod gate;
mod in_flight;
mod io;
pub(super) mod malformed;
mod progress;
mod request_check;
mod response_body;
pub(super) mod state;
