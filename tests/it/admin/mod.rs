//! What the operator sees, from outside: health, metrics, status, logs, and the answers to "why".

mod answers;
mod bounds;
mod health;
mod logs;
pub mod site;
