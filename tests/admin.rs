//! What the operator sees, from outside: health, metrics, status, logs, and the answers to "why".

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

#[path = "admin/answers.rs"]
mod answers;
#[path = "admin/bounds.rs"]
mod bounds;
#[path = "admin/health.rs"]
mod health;
#[path = "admin/logs.rs"]
mod logs;
#[path = "admin/site.rs"]
mod site;
mod support;
