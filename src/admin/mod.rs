//! What the operator sees: health, metrics, status, and the status page.
//!
//! [`Admin`] serves plain HTTP on a port of its own, for the machine itself or the pod's network,
//! never for the public. It knows what a [`Handle`](crate::Handle) reports, and nothing else.
//!
//! | path | response |
//! |---|---|
//! | `/livez` | `200` while the process responds |
//! | `/readyz` | `200` while the server listens with a certificate of its own and at least one client certificate or CA that are valid; `503` and the reason otherwise, and from the moment a stop begins. `/readyz?upstream` includes the application |
//! | `/metrics` | the metrics below, in Prometheus' text format |
//! | `/status` | the state as JSON: see [`status`] |
//! | `/` | the same as a page that refreshes itself |
//!
//! # Events
//!
//! Every line of the log is an event with a stable name (`message` in JSON) and stable fields. A
//! field without a value is left out. Every time is RFC 3339, every duration in seconds,
//! every fingerprint SHA-256 in lower-case hex.
//!
//! | event | level | when | fields |
//! |---|---|---|---|
//! | `trust_loaded` | info | the files were read at start | `generation`, `certificates`, `trusted` |
//! | `listening` | info | for each address that clients may connect to | `addr` |
//! | `admin_listening` | info | `--admin` is bound | `addr` |
//! | `trust_reloaded` | info | certificates were added or removed | `generation`, `added`, `removed`, `connections_ended` |
//! | `server_certificate_changed` | info | the server certificate was renewed | `generation`, `fingerprint`, `not_after` |
//! | `certificate_begun` | info | a trusted one became valid | `generation`, `certificates` |
//! | `certificate_ended` | warn | a trusted one expired | `generation`, `certificates`, `connections_ended`, `remedy` |
//! | `trusts_nobody` | error | no client can be accepted any more | `generation`, `remedy` |
//! | `certificate_expiring` | warn | daily from 60 days before its end, hourly in the last day | `file`, `fingerprint`, `not_after`, `days_left`, `urgency`, `verdict`, `remedy` (the next step, as in `/status`) |
//! | `successor_loaded` | info | a certificate that was reported without a successor has one | `file`, `fingerprint`, `not_after`, `urgency`, `verdict`, `remedy` |
//! | `load_failed`, `reload_failed` | error | a file has an error, at start or later; logged once | `file`, `line`, `problem`, `remedy` |
//! | `trust_file_warning` | warn | a file has a warning, or others can read the server key; logged once | `file`, `line`, `problem`, `remedy` |
//! | `fault_mended` | info | an error is fixed | `file`, `line`, `problem` |
//! | `reload_ended` | error | the task that reads the files has ended: no change is applied any more | `error`, `remedy` |
//! | `watch_unavailable` | warn | the file system reports no changes; files are polled | `error`, `poll_interval`, `remedy` |
//! | `reloaded` | info | the reload that SIGHUP requested is done | `generation` |
//! | `chain_ended` | info | an accepted chain expired, and its sessions with it | `generation`, `connections_ended` |
//! | `client_rejected` | warn | a client was rejected: up to ten a second, and the first of each reason | `reason` (a [`Reason`](crate::Reason)), `peer`, `fingerprint`, `subject`, `serial`, `not_before`, `not_after`, `nearest` (the nearest trusted certificate: the same one and when it was removed, same key, same serial), `detail`, `remedy` |
//! | `refusals_summed` | warn | once a second in a flood: the rejections that were not logged one by one | `count`, `reasons` |
//! | `connection_closed` | info | a connection of an accepted client closed | `peer`, `certificate`, `reason` (`done`, `failed`, `large_head`, `flooding`, `idle`, `slow_head`, `slow_reader`, `aged`, `stopped`, `certificate_removed`, `certificate_expired`), `error` (of `failed`), `requests`, `duration` |
//! | `request` | info | a request got its response; target `portcullis::access`, `--access-log off` leaves it out | `method`, `path` (without the query), `status`, `bytes`, `duration`, `certificate`, `peer`, `request_id`, `api_id`, `trace_id`, `traceparent`, `cut_off` (the response did not reach its end) |
//! | `service_panicked` | error | the application panicked; the client got `500` | `panic` |
//! | `accept_failed` | warn | the machine has no room for a connection | `error`, `remedy` |
//! | `open_files_not_raised` | warn | the limit on open files stays as it is | `error`, `remedy` |
//! | `request_refused` | info | a request got a `4xx` response before it reached the application | `reason`, `status`, `request_id`, and as far as known: `error`, `method`, `trace_id`, `api_id`, `fingerprint` |
//! | `request_malformed` | warn | a request could not be parsed: up to ten a second | `reason`, `peer`, `certificate`, `error`, `suppressed` |
//! | `gate_missing` | error | an axum handler of a library user got a request that passed no gate; the client got `500` | `missing`, `error`, `request_id`, `method`, `path` |
//! | `upstream_failed` | warn | the application did not respond, or not correctly | `reason`, `status`, `error`, `request_id`, `method`, `trace_id` |
//! | `upstream_not_a_socket` | warn | at start: something else stands at the path of `--upstream unix:` | `path`, `problem`, `remedy` |
//! | `sandboxed` | info | the process has given up all rights except these | `read`, `write`, `connect`, `resolves`, `is_whole` (whether the kernel enforces every one) |
//! | `sandbox_broad` | warn | a right covers a directory that holds much more than certificates | `path`, `what`, `remedy` |
//! | `sandbox_blocks_renewal` | warn | a file lies directly in the root: its replacement cannot be read | `path`, `problem`, `remedy` |
//! | `not_sandboxed` | warn, info for `--no-sandbox` | it has given up no right | `why`, `remedy` |
//! | `core_dumps_possible` | warn | a core dump would hold the memory, with the keys in it | `error`, `remedy` |
//! | `acme_started` | info | the server certificate comes from an ACME directory | `domains`, `directory`, `cache`, `note` |
//! | `acme_not_ready_until_issued` | warn | there is no server certificate yet, or an expired one | `remedy` |
//! | `acme_behind_load_balancer` | warn | with `--proxy-protocol`: a validation may reach another replica | `remedy` |
//! | `acme_certificate_issued` | info | an order succeeded and its certificate is active | `domains`, `fingerprint`, `not_after`, `next_attempt` |
//! | `acme_order_failed` | error | an order failed; what was active stays active | `domains`, `step` (`directory`, `account`, `order`, `authorization`, `challenge`, `validation`, `finalize`, `certificate`, `check`, `store`, `activate`), `problem_type` (the directory's, if it sent one), `detail`, `next_attempt`, `remedy` |
//! | `acme_order_postponed` | warn | at start: an order that failed before is not tried again yet | `step`, `problem_type`, `detail` (of that failure), `next_attempt`, `remedy` |
//! | `acme_timed_out` | error | there was no usable certificate (none, or an expired one) within `--acme-timeout`; the process exits with code 1 | `reason`, `remedy` |
//! | `acme_cache_in_use` | warn | another process orders with this cache; this one reads its files | `cache`, `remedy` |
//! | `acme_cache_damaged` | warn | a file of the cache is damaged and is made anew | `problem`, `remedy` |
//! | `acme_cache_not_locked`, `acme_cache_not_written` | warn | the cache cannot be locked, or its history cannot be written | `error`, `remedy` |
//! | `unknown_variable` | warn | no command reads this `PORTCULLIS_*` variable | `variable`, `nearest`, `remedy` |
//! | `unverified_header_passed` | info | `--pass-header` passes a header that is stripped by default | `header`, `remedy` |
//! | `memory_not_returned` | warn | the thread that returns freed memory to the system did not start | `error`, `remedy` |
//! | `notify_failed` | warn | the service manager could not be notified | `error`, `remedy` |
//! | `status_failed` | error | `/status` could not be written | `error` |
//! | `draining` | info | a stop begins | `connections`, `shutdown_delay`, `drain_timeout` |
//! | `still_running` | warn | connections outlived the stop | `connections` |
//! | `stopped` | info | the last line | `connections_cut` |
//! | `log_lines_lost` | warn | the log pipe was full | `lines` |
//! | `cannot_start` | error | it ends, with exit code 1 or 2 | `error`, `remedy` |
//!
//! # Metrics
//!
//! Each metric's `HELP` line describes it. Those of the server as a whole are
//! `portcullis_handshakes_total{result}` (`accepted`, or a [`Reason`](crate::Reason)),
//! `portcullis_handshake_duration_seconds`, `portcullis_connections`,
//! `portcullis_requests_total{status}`, `portcullis_request_duration_seconds`,
//! `portcullis_resumptions_total{result}` (`full`, `resumed`, `refused`),
//! `portcullis_server_certificate_expiration_timestamp_seconds`, `portcullis_trust_generation`,
//! `portcullis_reload_last_successful`, `portcullis_reload_last_success_timestamp_seconds`,
//! `portcullis_reloads_total{result}` (`success`, `failure`) and `portcullis_trust_files_failed`.
//! The library keeps them current through the [`metrics`](::metrics) facade, whatever recorder
//! there is. With `--acme-domain` there are `portcullis_acme_orders_total{result}` (`success`,
//! `failure`), `portcullis_acme_next_attempt_timestamp_seconds` and
//! `portcullis_acme_handshakes_total{result}` (`completed`, `failed`, `timed_out`, `dropped`),
//! which counts validations apart from clients. The binary adds
//! `portcullis_build_info{version,features}`, `portcullis_tasks` (of its runtime) and the usual
//! `process_*`.
//!
//! Each bound that is reached is counted:
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
//! | `--max-head-size` | `portcullis_connections_ended_total{reason="large_head"}`; in HTTP/2 the response is `431`, from the HTTP/2 library |
//! | `--max-headers` | `portcullis_requests_malformed_total{reason="too_many_headers"}` |
//! | `--max-resets`, `--max-stream-errors` | `portcullis_connections_ended_total{reason="flooding"}` |
//! | `--max-streams` | `portcullis_streams_exhausted_total`: a stream above it is refused, and counts against `--max-stream-errors` |
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
//! `portcullis_requests_malformed_total{reason}` counts what the gate and the HTTP library refuse. In
//! HTTP/2 the library handles some malformed requests by itself. They reset one stream, or get
//! `431`, and are neither logged nor counted, except that more of them than `--max-stream-errors`
//! close the connection as `flooding`:
//!
//! - a head above `--max-head-size`, unless it is above four times of it, which is `flooding`;
//! - a pseudo-header that is missing, empty, repeated, invalid, not at the beginning, or of a response;
//! - `Connection`, `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding` or `Upgrade`, and `TE`
//!   other than `trailers`;
//! - a `Content-Length` that is no number or not the length of a body that is empty;
//! - `:protocol`, a stream that depends on itself, and a stream above `--max-streams`.
//!
//! A fragment (`#`) in `:path` is removed by the library: the request is served without it. What
//! breaks the connection as a whole is counted as `http2`, such as a header name in upper case.
//!
//! `portcullis_upstream_up` is `NaN` until the first connect to the application.
//!
//! Those of each trusted certificate, by `fingerprint` and `file`, are
//! `portcullis_client_certificate_expiration_timestamp_seconds`, and after the same prefix
//! `_handshakes_total`, `_requests_total`, `_connections`, `_last_seen_timestamp_seconds` and
//! `_urgency` (0 none, 1 soon, 2 now; `portcullis_server_certificate_urgency` is the server's).
//! They are reported to a recorder by
//! [`Handle::report_certificates`](crate::Handle::report_certificates), because they must disappear
//! with their certificate, and the facade cannot remove a series.
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
