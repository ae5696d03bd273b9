//! What answers.

mod hello;
mod patient;

pub use hello::Hello;
pub use patient::{Patient, Stalled};
