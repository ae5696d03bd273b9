//! What the operator sees: health, metrics, the status, and a page of it.
//!
//! [`Admin`] answers plain HTTP on a port of its own, for the machine itself or the pod's network,
//! never for the public. It knows nothing but what a [`Handle`](crate::Handle) tells.
//!
//! | path | what it answers |
//! |---|---|
//! | `/livez` | `200` as long as the process answers |
//! | `/readyz` | `200` while the server listens with a certificate of its own and at least one client certificate or CA in their dates; `503` and the reason otherwise, and from the moment a stop begins |
//! | `/metrics` | the metrics below, in Prometheus' text format |
//! | `/status` | the state as JSON: see [`status`] |
//! | `/` | the same as a page that keeps itself current |
//!
//! # Events
//!
//! Every line of the log is an event with a stable name (`message` in JSON) and stable fields. A
//! field that has nothing to say is left out. Every time is RFC 3339, every duration in seconds,
//! every fingerprint SHA-256 in lower-case hex.
//!
//! | event | level | when | fields |
//! |---|---|---|---|
//! | `trust_loaded` | info | the files were read at start | `generation`, `certificates`, `trusted` |
//! | `listening` | info | for each address that clients may connect to | `addr` |
//! | `admin_listening` | info | `--admin` answers | `addr` |
//! | `trust_changed` | info | certificates were added or removed | `generation`, `added`, `removed`, `connections_ended` |
//! | `server_certificate_changed` | info | the server's own was renewed | `generation`, `fingerprint`, `not_after` |
//! | `certificate_begun` | info | the time of a trusted one has come | `generation`, `certificates` |
//! | `certificate_ended` | warn | a trusted one has ended | `generation`, `certificates`, `connections_ended`, `remedy` |
//! | `trusts_nobody` | error | no client can be let in any more | `generation`, `remedy` |
//! | `certificate_expiring` | warn | daily from 60 days before its end, hourly in the last day | `file`, `fingerprint`, `not_after`, `days_left`, `remedy` (says where no successor is loaded) |
//! | `load_failed`, `reload_failed` | error | a file is faulty, at start or later; said once | `file`, `line`, `problem`, `remedy` |
//! | `file_warning` | warn | a file is odd; said once | `file`, `line`, `problem`, `remedy` |
//! | `fault_mended` | info | a fault is gone | `file`, `line`, `problem` |
//! | `watch_unavailable` | warn | the file system tells of no change; it is polled | `error`, `poll_interval`, `remedy` |
//! | `reload_asked` | info | SIGHUP | |
//! | `refused` | warn | a client was refused: up to ten a second, and the first of each reason | `reason` (a [`Reason`](crate::Reason)), `peer`, `fingerprint`, `subject`, `serial`, `not_before`, `not_after`, `nearest` (the trusted certificate that is nearest: the same one, removed when, same key, same serial), `detail`, `remedy` |
//! | `refusals_summed` | warn | once a second in a flood: those that were not said one by one | `count`, `reasons` |
//! | `connection_ended` | info | a connection that was let in has ended | `peer`, `certificate`, `reason` (`done`, `idle`, `slow_head`, `slow_reader`, `aged`, `stopped`, `certificate_removed`, `certificate_expired`), `requests`, `duration` |
//! | `request` | info | a request was answered; target `portcullis::access`, `--access-log off` leaves it out | `method`, `path` (without the query), `status`, `bytes`, `duration`, `certificate`, `peer`, `api_id`, `trace_id`, `cut_off` (the answer did not reach its end) |
//! | `service_panicked` | error | the application panicked; the client got `500` | `panic` |
//! | `accept_failed` | warn | the machine has no room for a connection | `error`, `remedy` |
//! | `open_files_not_raised` | warn | the limit on open files stays as it is | `error`, `remedy` |
//! | `draining` | info | a stop begins | `connections`, `shutdown_delay`, `drain_timeout` |
//! | `still_running` | warn | connections outlive the stop | `connections` |
//! | `stopped` | info | the last line | `connections_cut` |
//! | `log_lines_lost` | warn | nobody read the log fast enough | `lines` |
//! | `cannot_start` | error | it ends, with exit code 1 or 2 | `error`, `remedy` |
//!
//! # Metrics
//!
//! Each one's `HELP` line says what it counts. Those of the server as a whole are
//! `portcullis_handshakes_total{result}` (`accepted`, or a [`Reason`](crate::Reason)),
//! `portcullis_handshake_duration_seconds`, `portcullis_connections`,
//! `portcullis_requests_total{status}`, `portcullis_request_duration_seconds`,
//! `portcullis_resumptions_total{result}` (`full`, `resumed`, `refused`),
//! `portcullis_server_certificate_expiration_timestamp_seconds`, `portcullis_trust_generation`,
//! `portcullis_reload_last_successful`, `portcullis_reload_last_success_timestamp_seconds`,
//! `portcullis_reloads_total{result}` (`success`, `failure`) and `portcullis_trust_files_failed`.
//! The library keeps them current through the [`metrics`](::metrics) facade, whatever recorder there is.
//!
//! Those of each trusted certificate, by `fingerprint` and `file`, are
//! `portcullis_client_certificate_expiration_timestamp_seconds`, and after the same prefix
//! `_handshakes_total`, `_requests_total`, `_connections` and `_last_seen_timestamp_seconds`. They
//! are told to a recorder by [`Handle::report_certificates`](crate::Handle::report_certificates),
//! because they have to go when their certificate does, and the facade knows no removal.
//!
//! No label has a value that a client can choose: there are as many series as reasons, status
//! codes and trusted certificates.

mod http;
mod metrics;
mod page;
pub mod status;
mod verdict;

pub use http::Admin;
pub use metrics::Metrics;
