//! What the operator sees, from outside: health, metrics, status, logs, and the commands that explain.

mod bounds;
mod diagnosis;
mod health;
mod logs;
pub mod site;
mod upstream_bounds;
