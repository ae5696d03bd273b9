//! What the operator sees, from outside: health, metrics, status, logs, and the answers to "why".

#[path = "admin/answers.rs"]
mod answers;
#[path = "admin/health.rs"]
mod health;
#[path = "admin/logs.rs"]
mod logs;
#[path = "admin/site.rs"]
mod site;
mod support;
