//! An admitted connection until it closes: drive → gate → service → response → close.
//!
//! `connection` serves it and logs its end, `drive` waits for hyper, deadlines and signals, `gate`
//! checks each request, and `state` is what they share.

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
