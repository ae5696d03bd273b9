//! What answers.

mod hello;

pub use hello::Hello;
