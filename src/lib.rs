//! An HTTPS server that lets in Amazon API Gateway, and nobody else.
//!
//! A client is let in if it proves that it holds the key of a certificate in the trust store,
//! equal to it byte for byte, within its dates. All certificates that API Gateway makes have the
//! same subject, and no extensions: nothing else about them tells one from another. The store may
//! hold as many as you like; what changes on disk is in force within a second; what was removed
//! is put out, live connections and resumable sessions included.
//!
//! It is a binary (see the README) and this library, which puts the same gate in front of any
//! [`tower`](tower_service::Service) or [hyper](hyper::service::Service) service:
//!
//! ```no_run
//! use axum::{Extension, Router, routing::get};
//! use portcullis::{ClientIdentity, Config};
//!
//! async fn hello(Extension(client): Extension<ClientIdentity>) -> String {
//!     format!("hello {}\n", client.fingerprint())
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), portcullis::StartError> {
//! let bound = Config::new("server-cert.pem", "server-key.pem")
//!     .trust("trust/")
//!     .listen(([127, 0, 0, 1], 8443).into())
//!     .bind()?;
//! let running = bound.serve(Router::new().route("/", get(hello)));
//! // Call `running.handle().stop()` from where your signals arrive.
//! running.stopped().await;
//! # Ok(())
//! # }
//! ```
//!
//! Each stage is a type: a [`Config`] has read nothing, a [`Bound`] has loaded its files and
//! listens, a [`Running`] answers, and its [`Handle`] stops it and tells its state. Nothing here
//! installs anything process-wide: no signal handler, no subscriber, no crypto provider.
//!
//! # What happens to one connection
//!
//! 1. `server/accept/mod.rs` accepts it and gives it a place among those that have not yet proved who
//!    they are; when these are all taken, the oldest gives up its own.
//! 2. Behind a load balancer, `server/accept/proxy_header.rs` reads whose connection it is, if it comes
//!    from where the load balancer is: that client is the peer from here on.
//!    `server/accept/handshake.rs` waits for its first octet. Plain HTTP is answered `400`. Then it takes
//!    the newest generation and shakes hands, in turns that leave requests theirs
//!    (`server/accept/limiter.rs`); one deadline covers all of this.
//! 3. `trust/verifier.rs` asks `trust/store.rs`, which looks the certificate up by its octets (or
//!    verifies its chain, if CAs are trusted too), and checks the signature with the key that was
//!    parsed when the file was. A refusal leaves its reason and what was presented with the
//!    handshake, which logs it and lingers until the alert has arrived. What the handshake writes
//!    goes out in few segments (`server/accept/buffered.rs`), the session ticket with the first answer.
//! 4. `reload/live.rs` looks it up again in the newest generation: a resumed session asked no
//!    verifier, and the store may have changed. From here on it is in the table of live
//!    connections.
//! 5. `server/http/connection.rs` serves HTTP/1.1 or HTTP/2, as ALPN said. `server/http/gate.rs` asks for
//!    each request whether the certificate is still in, adds the [`ClientIdentity`] and the
//!    [`PeerAddr`] to its extensions, and passes it to the service. An HTTP/1.1 connection that has
//!    been idle for half a second gives up hyper's buffers, and gets new ones with the next octet.
//! 6. It ends when the client leaves, when nothing was asked for too long, when its certificate is
//!    taken away or expires, or when the server stops: what is in flight is finished, within a
//!    time. Each bound that ends it, or a request of it, has a counter (`server/meters.rs`; the
//!    docs of `admin` list them).
//!
//! # What happens on a change
//!
//! 1. An event (`reload/watch.rs`), the poll, the moment in which a certificate begins or ends, or
//!    [`Handle::reload`] starts a look; after an event, when 100 ms have been quiet, and 500 ms
//!    later at the latest.
//! 2. `reload/files.rs` reads what has changed. What cannot be read or parsed keeps what it last
//!    held, and is a [`Finding`] until it is mended.
//! 3. `reload/mod.rs` compares the whole with the generation in force. If they differ, it makes a
//!    new one (`reload/generation.rs`): trust store, server certificate and key, session keys.
//!    The session keys are carried over only where nothing was taken away.
//! 4. `reload/live.rs` puts out the connections that the new generation does not let in, and
//!    publishes it. No other connection is woken.
//!
//! # What happens on a stop
//!
//! `server/mod.rs` goes through the phases: *lame duck*, for the shutdown delay, in which
//! everything is served and each answer is the last of its connection; *draining*, in which nobody
//! is accepted and what is in flight is finished; *cut*, in which the rest is ended and counted.
//! Who was accepted just before the drain and has not asked yet has a second to do so, in the
//! handshake or after it: a client that was let in gets the one answer that it came for.
//! Every connection holds a receiver of the phase, and the server has stopped when the last of
//! them is gone.
//!
//! The binary tells the service manager how far it is (`cli/systemd.rs`), and listens at the sockets
//! that it passes: these outlive the process, and connections wait in them for the next one. In a
//! library that is [`Config::bind_to`].
//!
//! # What the binary may do
//!
//! Before there is a second thread, and before a key is read, `cli/sandbox.rs` gives up every right
//! to read, write or connect that the flags do not name, and keeps the memory out of core dumps. A
//! right is given for the directory that holds what a flag names, so that it outlasts a file that is
//! replaced and a directory that is made again. The library does none of this: it is the process's
//! to decide.
//!
//! # Which module may use which
//!
//! ```text
//! trust/     who is let in        octets → certificates → store → verifier → identity
//! reload/    keeping that current files → trust store + server identity → generation
//! server/    one connection's life  accept → handshake → who is it → HTTP → drain
//! service/   what answers
//! admin/     what the operator sees  health · metrics · status page
//! cli.rs, log.rs, main.rs   the binary: flags → parts → run → exit code
//!
//! main → cli → server → reload → trust          service knows the identity, and is known by main
//!                                               admin knows what a Handle tells, likewise
//! ```
//!
//! `trust/` is pure: it reads no file and waits for nothing. Only `reload/` opens files. A flag is
//! added in `cli.rs` and [`Config`]; a reason for a refusal in `trust/reason.rs`; a fault of a
//! file in `trust/pem.rs`.
//!
//! # Threat model
//!
//! What lies behind each boundary, what stops whom there, and the test that shows it: a file under
//! `tests/it/` or `src/`, and its name there. Those in `tests/it/fire/` are run against the release
//! binary, with a client beside them that is let in and must be served within a second.
//!
//! **The public port, before the handshake.** Nobody is trusted, by no address.
//!
//! | who | what stops them | the test |
//! |---|---|---|
//! | connect and say nothing, or half of a ClientHello | a pool of their own, the oldest put out first; one deadline for all of the handshake | `tests/it/binary.rs` `silent_connections_keep_no_client_out`, `handshake_has_a_deadline_and_a_port_scan_is_no_rejection`; `tests/it/fire/strangers.rs` `silent_connections`, `halves_of_a_client_hello`, `a_client_hello_in_pieces` |
//! | have us compute | only some handshakes are computed before requests have their turn (`--handshakes-at-once`) | `src/server/accept/limiter.rs` `a_request_waits_for_none_of_the_handshakes_that_have_come_before_it`; `tests/it/admin/bounds.rs` `handshakes_at_once`; `tests/it/fire/strangers.rs` `flood_of_unknown_certificates` |
//! | take all descriptors | those who have not proved who they are give way | `tests/it/admin/bounds.rs` `descriptors`; `tests/it/fire/machine.rs` `more_silent_connections_than_descriptors`, `no_descriptors_left` |
//! | speak plain HTTP, or garbage | eight octets are looked at; `400`, or nothing | `tests/it/binary.rs` `garbage_and_plain_http_have_distinct_reasons`; `tests/it/fire/strangers.rs` `garbage_and_plain_http` |
//! | fill the log | ten refusals a second are said, the rest is summed up; a log that nobody reads holds nobody up | `tests/it/admin/logs.rs` `flood_of_rejections_is_summed_up_and_none_is_lost`; `src/log.rs` `what_nobody_reads_is_lost_and_counted_and_holds_nobody_up` |
//!
//! **The handshake.** What is trusted is that whoever signs holds a key, and that a certificate in
//! the store is there because it should be.
//!
//! | who | what stops them | the test |
//! |---|---|---|
//! | a stranger with API Gateway's subject | every octet of the certificate is compared, and nothing else | `tests/it/interop/curl.rs` `stranger_of_the_same_subject_is_rejected_until_trusted_and_again_after`; `tests/it/admission.rs` `two_thousand_certificates_of_one_subject_are_accepted` |
//! | whoever is certified by the key of one that is trusted | a pinned certificate is no CA | `tests/it/admission.rs` `pin_is_no_anchor_and_anchor_is_no_pin` |
//! | a certificate without its key | the signature, checked with the key of the file | `tests/it/admission.rs` `certificate_without_its_key_is_rejected` |
//! | one out of its dates | the clock, at each handshake and on live connections | `tests/it/admission.rs` `certificate_is_accepted_within_its_validity_period_without_a_reload`; `tests/it/reload.rs` `expired_certificate_closes_live_connection` |
//! | a chain that does not hold | webpki, with the earliest end of the chain | `tests/it/admission.rs` `valid_client_chain_to_a_trust_anchor_is_accepted`, `chain_ends_at_its_earliest_not_after_and_so_do_its_sessions` |
//! | a session of one that was removed | new session keys, and the store is asked again after each handshake | `tests/it/reload.rs` `removed_certificate_resumes_no_session`; `tests/it/admission.rs` `session_is_not_resumed_after_not_after` |
//! | a connection of one that was removed | each request asks again, and the connection is told to end | `tests/it/reload.rs` `removed_certificate_closes_idle_connection_and_no_other`, `pipelined_request_after_removal_is_not_answered` |
//! | what TLS once allowed: renegotiation, early data | neither is there | `tests/it/interop/openssl.rs` `tls_is_not_renegotiated`, `early_data_is_rejected` |
//! | a mistake of ours, or of the TLS library | no generation is in force that lets somebody without a certificate in | `src/reload/probe.rs` `a_server_that_lets_anybody_in_does_not_pass` |
//!
//! **A client that is let in.** It may ask; it is not trusted to be polite, nor to say who it is.
//!
//! | what it does | what stops it | the test |
//! |---|---|---|
//! | is slow, or never reads | a deadline on each wait | `tests/it/admin/bounds.rs` `head_timeout`, `body_timeout`, `write_timeout`, `idle_timeout`; `tests/it/fire/clients.rs` `slow_heads`, `slow_bodies`, `clients_that_never_read` |
//! | sends too much | 431, 413 | `tests/it/admin/bounds.rs` `max_head_size`, `max_headers`, `max_body`; `tests/it/fire/clients.rs` `header_values_of_100_kb` |
//! | floods by HTTP/2 | streams, resets and errors are bounded | `tests/it/admin/bounds.rs` `max_streams`, `max_resets`, `max_stream_errors`; `tests/it/fire/clients.rs` `rapid_resets` |
//! | opens all connections that may be | how many there may be, which is no share for each | `tests/it/admin/bounds.rs` `max_connections` |
//! | hides a request in another | what two parsers could read differently is refused, and what goes on is written anew | `tests/it/proxy_smuggling.rs`, all of it; `src/service/proxy/request.rs` `a_body_that_could_be_framed_in_two_ways_is_refused`; `tests/it/interop/proxy.rs` `node_and_python_see_no_smuggled_request` |
//! | says that it is somebody else | headers that tell an application so are taken out, in any spelling | `tests/it/proxy/passing.rs` `identity_headers_of_a_client_are_stripped`; `src/service/headers/tests.rs` `an_application_is_told_only_what_is_known`, `what_passes_is_what_the_rules_let_pass` |
//! | is another API that was given the same certificate | `--api-id`, by what API Gateway itself writes | `tests/it/proxy/library.rs` `only_listed_apis_pass` |
//! | writes control characters into what is logged | they are escaped: a line is one event | `src/log.rs` `a_text_line_is_one_line_whose_words_are_what_they_seem`, `a_json_line_is_one_object_whatever_is_in_it` |
//!
//! **The load balancer.** It is trusted to say whose connection it is, if it comes from where it
//! should, and for logs and `X-Forwarded-For` alone.
//!
//! | who | what stops them | the test |
//! |---|---|---|
//! | comes past it | `--proxy-protocol-from` | `tests/it/proxy_protocol.rs` `connection_from_outside_proxy_protocol_from_is_refused` |
//! | sends no header, a malformed or an endless one | at most 4 KiB are read, within the handshake's time | `tests/it/proxy_protocol.rs` `connection_without_a_whole_proxy_header_is_refused`, `proxy_header_counts_towards_the_handshake_timeout`; `src/server/accept/proxy_header.rs` `what_is_malformed_is_named`, `it_is_bounded`; `fuzz/` |
//! | sends one where none is expected | it is not TLS | `tests/it/proxy_protocol.rs` `proxy_header_without_proxy_protocol_is_not_tls` |
//!
//! **The application behind the proxy.** It is trusted with requests, and not to answer well.
//!
//! | what it does | what stops it | the test |
//! |---|---|---|
//! | answers nonsense, or more than one answer | it is not passed on | `tests/it/proxy_smuggling.rs` `malformed_response_is_not_forwarded`, `bytes_after_a_response_are_not_the_next_response` |
//! | breaks off | so does its answer, visibly | `tests/it/proxy/passing.rs` `broken_off_response_is_not_a_complete_one` |
//! | is slow, full or gone | 502, 503, 504 within a time; the queue is bounded | `tests/it/proxy/failing.rs` `upstream_failures_have_distinct_status_and_reason`, `upstream_connections_and_queue_are_bounded`; `tests/it/admin/bounds.rs` `upstream_timeout`, `upstream_connect_timeout` |
//! | sends faster than the client reads | it is held back | `tests/it/proxy/http2.rs` `slow_reader_applies_backpressure_to_the_upstream` |
//! | would be told of to the client | an answer of ours is fixed text and a number; the log has the rest | `tests/it/proxy_cli.rs` `problem_response_has_the_request_id_and_the_log_the_reason` |
//!
//! **The files.** Whoever may write to the trust paths says who is let in. They are trusted to mean
//! it, not to be careful.
//!
//! | what they do | what comes of it | the test |
//! |---|---|---|
//! | write half a file, or garbage | nothing changes, and it is said | `tests/it/reload.rs` `half_written_file_loses_no_certificate`, `error_in_one_file_does_not_delay_another`; `tests/it/model.rs` `accepted_clients_match_the_model_after_each_step` |
//! | write what is made to harm a parser | it is strict, bounded, and panics at nothing | `src/trust/tests.rs` `arbitrary_bytes_never_panic`, `a_damaged_certificate_never_panics`; `fuzz/` |
//! | lose or replace the directory | nothing changes, and it is said | `tests/it/reload.rs` `vanished_or_empty_replaced_directory_changes_nothing` |
//! | renew a certificate before its key, or the other way round | the old pair stays until both match | `tests/it/reload.rs` `server_pair_is_renewed_in_either_order` |
//! | change a link to lead elsewhere | in the sandbox that is a fault | `tests/it/sandbox.rs` `link_changed_to_lead_outside_is_an_error_in_the_sandbox_only` |
//! | put ten thousand there | it takes its time aside | `tests/it/fire/machine.rs` `trust_directory_of_10_000_files` |
//!
//! **The operator's port.** Plain HTTP without a password, for this machine or the pod's network:
//! whoever reaches it reads who is trusted and who was refused, and can change nothing.
//!
//! | who | what stops them | the test |
//! |---|---|---|
//! | asks for it at the public port | it is not there | `tests/it/admin/health.rs` `public_port_serves_no_admin_path` |
//! | holds it open | bounds of its own | `tests/it/admin/health.rs` `admin_port_has_its_own_bounds` |
//! | was refused, with a subject made to harm who looks | it is text, in a page that loads nothing | `tests/it/interop/admin.rs` `subject_of_a_stranger_is_text_and_no_markup`, `status_text_is_never_markup` |
//! | would make series without end | no label holds what a client chooses | `src/server/meters.rs` `a_status_that_nobody_has_heard_of_makes_no_series_of_its_own` |
//!
//! **The process.** Should its code be turned against it, it holds little.
//!
//! | what is sought | what stops it | the test |
//! |---|---|---|
//! | other files, other hosts | Landlock, where the kernel has it | `src/cli/sandbox.rs` `what_is_not_named_can_neither_be_read_nor_written_nor_connected_to`; `tests/it/sandbox.rs` `sandbox_rights_are_logged_once` |
//! | its keys, in a core dump, the log or `Debug` | none is written; nothing that holds a key prints it | `tests/it/sandbox.rs` `no_core_dump_holds_the_memory`; `src/reload/loader.rs` `no_key_is_in_what_debug_says`; `tests/it/binary.rs` `no_key_is_in_the_log` |
//! | its key, on the disk | whoever left it open is told | `tests/it/sandbox.rs` `key_readable_by_others_is_reported` |
//!
//! **The library's user.** Their service is trusted with requests, and not to be without faults.
//!
//! | what it does | what stops it | the test |
//! |---|---|---|
//! | panics | `500`, and that connection only | `tests/it/library.rs` `panicking_service_costs_one_response_and_one_connection` |
//! | is put up without the server that verifies | no identity, no answer; nothing outside this crate can make one, but for tests | `tests/it/proxy/library.rs` `request_without_an_identity_is_refused` |
//!
//! What is **not** defended against: whoever has the private key of a trusted certificate, which is
//! AWS's to keep, or writes to a trust path; another API, of any account, that presents a certificate
//! which was given to it as well, unless `--api-id` is used, and then whoever may set that header on
//! the way; a client that is let in and asks politely for more than the application can do, or takes
//! all of `--max-connections`; a flood that fills the line before it reaches this machine; root on
//! this machine, and whoever may read this user's files; a user of the same machine who reaches the
//! operator's port; a clock that is set wrong, by which certificates begin and end; a load balancer
//! that lies about addresses.
//!
//! # What scanners say
//!
//! testssl.sh 3.0, sslscan 2.0, sslyze 6.3 and slowhttptest 1.8 were run against it with the
//! certificates of `certs-example/`, those that take a client's with it and without. They find TLS
//! 1.2 and 1.3, forward secrecy and authenticated encryption only, no renegotiation, and none of
//! the weaknesses that they know by name. What they complain of:
//!
//! - *The certificate is not trusted, lives for too long, names neither CRL nor OCSP, is in no log*
//!   (testssl.sh, sslyze): so it is with the example's, which is meant to outlive every tutorial
//!   and protects nothing. It is all that sslyze has against it by Mozilla's "intermediate"
//!   profile.
//! - *No `TLS_FALLBACK_SCSV`* (sslscan): nothing below TLS 1.2 is there to fall back to, and a TLS
//!   1.3 client recognises a fall to 1.2 by the server's random.
//! - *No X448 and no Brainpool curves* (sslyze): X25519, P-256, P-384, and X25519 with ML-KEM-768
//!   before them.
//! - slowhttptest finds the service available throughout. Without a client's certificate none of
//!   its connections is heard. With one (through a tunnel, as it can present none itself), slow
//!   heads end after `--head-timeout`. Slow bodies and slow reads that keep within `--body-timeout`
//!   and `--write-timeout` go on, each at the cost of one of `--max-connections`, to somebody who
//!   holds a trusted key.

#![forbid(unsafe_code)]
// In tests they are how a test fails.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::dbg_macro,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unwrap_used
    )
)]

#[cfg(feature = "cli")]
pub mod admin;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod error;
#[cfg(feature = "cli")]
pub mod log;
#[cfg(feature = "parts")]
#[doc(hidden)]
pub mod parts;
mod problem;
mod reload;
mod request_context;
mod server;
pub mod service;
mod trust;

pub use clock::{Clock, SystemClock};
pub use reload::{NotStartable, Problem, ReloadState, Severity};
pub use server::{
    Bound, CheckReport, Cidr, Config, Handle, Handshakes, HttpService, NotReady, PeerAddr,
    RejectedClient, Running, ServerCertificate, Snapshot, StartError, Stopped, TrustedCertificate,
};
pub use trust::pem::PemErrorKind;
pub use trust::{
    ApiUsage, Assessment, ClientIdentity, Fingerprint, Nearest, Reason, Relation, Role, State,
    Urgency, Usage,
};
