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
//! | `trust_reloaded` | info | certificates were added or removed | `generation`, `added`, `removed`, `connections_ended` |
//! | `server_certificate_changed` | info | the server's own was renewed | `generation`, `fingerprint`, `not_after` |
//! | `certificate_begun` | info | the time of a trusted one has come | `generation`, `certificates` |
//! | `certificate_ended` | warn | a trusted one has ended | `generation`, `certificates`, `connections_ended`, `remedy` |
//! | `trusts_nobody` | error | no client can be let in any more | `generation`, `remedy` |
//! | `certificate_expiring` | warn | daily from 60 days before its end, hourly in the last day | `file`, `fingerprint`, `not_after`, `days_left`, `remedy` (says where no successor is loaded) |
//! | `load_failed`, `reload_failed` | error | a file is faulty, at start or later; said once | `file`, `line`, `problem`, `remedy` |
//! | `trust_file_warning` | warn | a file is odd, or everybody can read the server's key; said once | `file`, `line`, `problem`, `remedy` |
//! | `fault_mended` | info | a fault is gone | `file`, `line`, `problem` |
//! | `reload_ended` | error | what reads the files has ended by a fault of its own: nothing is taken up any more | `error`, `remedy` |
//! | `watch_unavailable` | warn | the file system tells of no change; it is polled | `error`, `poll_interval`, `remedy` |
//! | `reloaded` | info | what SIGHUP asked for is done | `generation` |
//! | `chain_ended` | info | a chain that was let in has ended, and its sessions with it | `generation`, `connections_ended` |
//! | `client_rejected` | warn | a client was refused: up to ten a second, and the first of each reason | `reason` (a [`Reason`](crate::Reason)), `peer`, `fingerprint`, `subject`, `serial`, `not_before`, `not_after`, `nearest` (the trusted certificate that is nearest: the same one, removed when, same key, same serial), `detail`, `remedy` |
//! | `refusals_summed` | warn | once a second in a flood: those that were not said one by one | `count`, `reasons` |
//! | `connection_closed` | info | a connection that was let in has ended | `peer`, `certificate`, `reason` (`done`, `failed`, `large_head`, `flooding`, `idle`, `slow_head`, `slow_reader`, `aged`, `stopped`, `certificate_removed`, `certificate_expired`), `requests`, `duration` |
//! | `request` | info | a request was answered; target `portcullis::access`, `--access-log off` leaves it out | `method`, `path` (without the query), `status`, `bytes`, `duration`, `certificate`, `peer`, `api_id`, `trace_id`, `cut_off` (the answer did not reach its end) |
//! | `service_panicked` | error | the application panicked; the client got `500` | `panic` |
//! | `accept_failed` | warn | the machine has no room for a connection | `error`, `remedy` |
//! | `open_files_not_raised` | warn | the limit on open files stays as it is | `error`, `remedy` |
//! | `request_refused` | info | a request got an answer of `4xx` before the application heard of it | `reason`, `status`, `request_id`, and what is known of it: `error`, `method`, `trace_id`, `api_id`, `fingerprint` |
//! | `upstream_failed` | warn | the application did not answer a request, or not as it must | `reason`, `status`, `error`, `request_id`, `method`, `trace_id` |
//! | `sandboxed` | info | the process has given up all rights but these | `read`, `connect`, `resolves`, `is_whole` (whether the kernel knows all that was asked of it) |
//! | `not_sandboxed` | warn, info for `--no-sandbox` | it has given up none | `why`, `remedy` |
//! | `core_dumps_possible` | warn | a core dump would hold the memory, with the keys in it | `error`, `remedy` |
//! | `notify_failed` | warn | the service manager could not be told how far the server is | `error`, `remedy` |
//! | `status_failed` | error | `/status` could not be written | `error` |
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
//! `portcullis_tasks` is the binary's own, of its runtime; the library keeps the others current
//! through the [`metrics`](::metrics) facade, whatever recorder there is.
//!
//! Whoever comes to a bound is counted:
//!
//! | bound | series |
//! |---|---|
//! | `--max-connections` | `portcullis_handshakes_total{result="too_many_connections"}` |
//! | `--max-handshakes`, and no descriptors for more | `portcullis_handshakes_total{result="too_many_handshakes"}` |
//! | `--handshakes-at-once` | `portcullis_handshakes_delayed_total` |
//! | `--handshake-timeout` | `portcullis_handshakes_total{result="handshake_timeout"}` |
//! | `--proxy-protocol-from` | `portcullis_handshakes_total{result="proxy_protocol"}` |
//! | descriptors and memory of the machine | `portcullis_accept_failures_total` |
//! | `--idle-timeout` | `portcullis_connections_ended_total{reason="idle"}` |
//! | `--head-timeout` | `portcullis_connections_ended_total{reason="slow_head"}` |
//! | `--write-timeout` | `portcullis_connections_ended_total{reason="slow_reader"}` |
//! | `--max-connection-age` | `portcullis_connections_ended_total{reason="aged"}` |
//! | `--max-head-size` | `portcullis_connections_ended_total{reason="large_head"}`; in HTTP/2 the answer is `431` and is not heard of here |
//! | `--max-headers` | `portcullis_connections_ended_total{reason="large_head"}`; in HTTP/2 `portcullis_requests_total{status="431"}` |
//! | `--max-resets`, `--max-stream-errors` | `portcullis_connections_ended_total{reason="flooding"}` |
//! | `--max-streams` | `portcullis_streams_exhausted_total`: what is asked beyond is refused, and counts against `--max-stream-errors` |
//! | `--drain-timeout` | `portcullis_connections_cut_total` |
//! | `--body-timeout` | `portcullis_requests_total{status="408"}` |
//! | `--max-body` | `portcullis_requests_total{status="413"}`, `portcullis_proxy_failures_total{reason="body_too_large"}` |
//! | `--api-id` | `portcullis_requests_total{status="403"}` |
//! | `--upstream-max-connections`, `--upstream-queue` | `portcullis_proxy_failures_total{reason="queue_full"}` and `"queue_timeout"` |
//! | `--upstream-connect-timeout` | `portcullis_proxy_failures_total{reason="connect_timeout"}` |
//! | `--upstream-timeout` | `portcullis_proxy_failures_total{reason="response_timeout"}` and `"body_timeout"` |
//! | an application that panics | `portcullis_service_panics_total` |
//!
//! The other reasons of `portcullis_connections_ended_total` are those of the event
//! `connection_closed`, and of `portcullis_proxy_failures_total` those of `request_refused` and
//! `upstream_failed`.
//!
//! Those of each trusted certificate, by `fingerprint` and `file`, are
//! `portcullis_client_certificate_expiration_timestamp_seconds`, and after the same prefix
//! `_handshakes_total`, `_requests_total`, `_connections` and `_last_seen_timestamp_seconds`. They
//! are told to a recorder by [`Handle::report_certificates`](crate::Handle::report_certificates),
//! because they have to go when their certificate does, and the facade knows no removal.
//!
//! No label has a value that a client can choose: there are as many series as reasons, status
//! codes and trusted certificates.

mod host;
mod http;
mod metrics;
mod page;
pub mod status;

pub use http::Admin;
pub use metrics::Metrics;
