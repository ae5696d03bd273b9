//! What each boundary keeps out, what enforces it, and the test that shows it. (Documentation only.)
//!
//! A test is named by its file under `tests/` or `src/` and its name there. Those in
//! `tests/it/fire/` run against the release binary, beside an accepted client that must be served
//! within a second.
//!
//! # The public port, before the handshake
//!
//! No client is trusted, whatever its address.
//!
//! | a client | what stops it | tests |
//! |---|---|---|
//! | connects and sends nothing, or half of a ClientHello | a pool of its own, in which the oldest of the larger group (silent, begun) is dropped first; one deadline for the handshake | `tests/it/deadlines.rs` `silent_connections_keep_no_client_out`, `handshake_has_a_deadline_and_a_port_scan_is_no_rejection`; `tests/it/fire/strangers.rs` `silent_connections`, `halves_of_a_client_hello`, `a_client_hello_in_pieces`; `src/server/accept/pending.rs` `silent_connections_do_not_drop_a_handshake`, `stalled_handshakes_do_not_drop_a_new_connection` |
//! | makes the server compute | a limit on handshakes computed before requests get their turn (`--handshakes-at-once`) | `src/server/accept/limiter.rs` `request_does_not_wait_for_the_handshakes_before_it`; `tests/it/admin/bounds.rs` `handshakes_at_once`; `tests/it/fire/strangers.rs` `flood_of_unknown_certificates` |
//! | takes all descriptors | connections in their handshake give way | `tests/it/admin/bounds.rs` `descriptors`; `tests/it/fire/machine.rs` `more_silent_connections_than_descriptors`, `no_descriptors_left` |
//! | sends plain HTTP, or garbage | eight bytes are read; `400`, or nothing | `tests/it/deadlines.rs` `garbage_and_plain_http_have_distinct_reasons`; `tests/it/fire/strangers.rs` `garbage_and_plain_http` |
//! | fills the log | ten rejections a second are logged, the others counted in one line; a full log pipe drops lines | `tests/it/admin/logs.rs` `flood_of_rejections_is_summed_up_and_none_is_lost`; `src/log.rs` `full_log_pipe_drops_lines_and_never_blocks_requests` |
//!
//! # The handshake
//!
//! Trusted: a signature proves possession of a key, and the operator intended each certificate in
//! the store.
//!
//! | a client | what stops it | tests |
//! |---|---|---|
//! | has another certificate with API Gateway's subject | every byte of the certificate is compared, and nothing else | `tests/it/interop/curl.rs` `stranger_of_the_same_subject_is_rejected_until_trusted_and_again_after`; `tests/it/admission.rs` `two_thousand_certificates_of_one_subject_are_accepted` |
//! | has a certificate issued by the key of a trusted one | a pin is no CA | `tests/it/admission.rs` `pin_is_no_anchor_and_anchor_is_no_pin` |
//! | has a trusted certificate without its key | the signature, checked with the key in the file | `tests/it/admission.rs` `certificate_without_its_key_is_rejected` |
//! | comes outside the validity period | the clock, at each handshake and on live connections | `tests/it/admission.rs` `certificate_is_accepted_within_its_validity_period_without_a_reload`; `tests/it/reload/removal.rs` `expired_certificate_closes_live_connection` |
//! | has a chain that does not verify | webpki, with the earliest end of the chain | `tests/it/admission.rs` `valid_client_chain_to_a_trust_anchor_is_accepted`, `chain_ends_at_its_earliest_not_after_and_so_do_its_sessions` |
//! | resumes a session of a removed certificate | new session keys, and a lookup after each handshake | `tests/it/reload/removal.rs` `removed_certificate_resumes_no_session`; `tests/it/admission.rs` `session_is_not_resumed_after_not_after` |
//! | keeps a connection of a removed certificate | a check at each request, and a close | `tests/it/reload/removal.rs` `removed_certificate_closes_idle_connection_and_no_other`, `pipelined_request_after_removal_is_not_answered` |
//! | renegotiates, or sends early data | neither is supported | `tests/it/interop/openssl.rs` `tls_is_not_renegotiated`, `early_data_is_rejected` |
//! | profits from a mistake here or in the TLS library | no generation becomes active that accepts a client without a certificate | `src/reload/probe.rs` `configuration_without_client_authentication_is_found` |
//!
//! # The handshake without a client certificate
//!
//! With `--acme-domain` only, and only while the directory validates a name. It serves the directory,
//! which has no certificate that could be pinned.
//!
//! | a client | what stops it | tests |
//! |---|---|---|
//! | is no directory, and offers `acme-tls/1` alone for a name that is being validated | it gets the certificate of the challenge, which proves the name and nothing else, and `close_notify` | `tests/it/acme/handshake.rs` `validation_gets_its_proof_a_clean_close_and_no_session` |
//! | sends a request after it | it ends in `close_notify` and yields no connection; nothing that follows is decrypted | `tests/it/acme/handshake.rs` `request_after_a_validation_reaches_nothing` |
//! | offers another protocol beside `acme-tls/1` | it gets the strict handshake | `tests/it/acme/handshake.rs` `everything_else_gets_the_strict_handshake_during_a_validation`; `src/server/accept/acme.rs` `only_a_list_of_acme_alone_gets_the_relaxed_handshake` |
//! | names no host | the same | `tests/it/acme/handshake.rs` `everything_else_gets_the_strict_handshake_during_a_validation` |
//! | names a host that is not being validated | the same | `tests/it/acme/handshake.rs` `everything_else_gets_the_strict_handshake_during_a_validation`; `src/server/accept/acme.rs` `relaxed_handshake_is_for_a_name_that_is_being_validated_now` |
//! | comes outside a validation | the same | `tests/it/acme/handshake.rs` `outside_a_validation_nothing_gets_the_relaxed_handshake` |
//! | resumes its session, in TLS 1.2 or 1.3 | there is none: no tickets and no session store | `tests/it/acme/handshake.rs` `validation_gets_its_proof_a_clean_close_and_no_session`; `src/server/accept/acme.rs` `relaxed_configuration_resumes_no_session` |
//! | stalls, 5,000 at once | five seconds, eight places, of which the oldest is dropped first | `tests/it/acme/flood.rs` `stalled_validations_keep_out_neither_clients_nor_other_validations`, `stalled_validations_delay_a_client_no_more_than_other_stalled_handshakes` |
//! | comes before the first certificate was issued | every other handshake fails | `tests/it/acme/orders.rs` `empty_cache_listens_is_not_ready_and_rejects_every_handshake` |
//!
//! # The ACME directory
//!
//! Trusted to issue for these names, but not to be reliable.
//!
//! | the directory | what happens | tests |
//! |---|---|---|
//! | stalls, redirects, sends HTML, nonsense or a wrong date | the order fails, what is active stays, and the problem is logged | `tests/it/acme/failures.rs` `directory_that_stalls_is_named`, `directory_that_is_none_is_named` |
//! | vanishes, also during an order | the same | `tests/it/acme/failures.rs` `failed_renewal_leaves_the_active_certificate`, `directory_that_is_gone_during_an_order_changes_nothing` |
//! | has got half of an order when this process is killed | the next start uses what was active, and needs one order at most | `tests/it/acme/killed.rs` `server_killed_at_each_request_of_its_first_order_needs_one_more_order`, `server_killed_at_each_request_of_a_renewal_keeps_the_certificate_of_before`, `pair_that_was_being_written_is_not_used_and_the_one_of_before_is` |
//! | sends a problem of a megabyte | a thousand characters are kept | `src/acme/failure.rs` `long_words_of_a_directory_are_shortened_and_short_ones_are_whole` |
//! | issues for another name or key, or a worse chain | the certificate is not used | `tests/it/acme/failures.rs` `issued_certificate_that_does_not_fit_is_not_used`; `src/acme/certificate.rs` `issued_certificate_for_another_key_is_not_used`, `chain_without_its_issuer_is_used_only_where_nothing_better_is_active` |
//! | wants each certificate renewed at once | renewal information is fetched later and later | `src/acme/schedule.rs` `a_window_that_is_always_now_leads_to_fewer_and_fewer_orders` |
//! | is another server | its certificate must be of a known CA, or of `--acme-ca` | `tests/it/acme/failures.rs` `directory_with_a_certificate_of_an_unknown_ca_is_named` |
//!
//! # An accepted client
//!
//! It may send requests. It is not trusted to behave, nor to identify itself truthfully.
//!
//! | the client | what stops it | tests |
//! |---|---|---|
//! | is slow, or never reads | a deadline on each wait | `tests/it/admin/bounds.rs` `head_timeout`, `body_timeout`, `write_timeout`, `idle_timeout`; `tests/it/fire/clients.rs` `slow_heads`, `slow_bodies`, `clients_that_never_read` |
//! | sends too much | 431, 413 | `tests/it/admin/bounds.rs` `max_head_size`, `max_headers`, `max_body`; `tests/it/fire/clients.rs` `header_values_of_100_kb` |
//! | floods by HTTP/2 | limits on streams, resets and errors | `tests/it/admin/bounds.rs` `max_streams`, `max_resets`, `max_stream_errors`; `tests/it/fire/clients.rs` `rapid_resets` |
//! | opens every connection allowed | a limit on all of them, which is not a share for each client | `tests/it/admin/bounds.rs` `max_connections` |
//! | hides a request in another | a request that two parsers could read differently is refused, and every forwarded one is written anew | `tests/it/proxy_smuggling/`, all of it; `tests/it/interop/proxy.rs` `node_and_python_see_no_smuggled_request` |
//! | claims another identity | headers that carry one are stripped, in any spelling | `tests/it/proxy/passing.rs` `identity_headers_of_a_client_are_stripped` |
//! | is another API that presents the same certificate | `--api-id`, by the header that API Gateway itself sets | `tests/it/proxy/library.rs` `only_listed_apis_pass` |
//! | puts control characters into logged values | they are escaped: a line is one event | `src/log.rs` `text_line_is_one_line_with_unambiguous_values`, `json_line_is_one_object_whatever_its_values` |
//!
//! # The load balancer
//!
//! Trusted: the client address in its header, for logs and `X-Forwarded-For` alone.
//!
//! | a client | what stops it | tests |
//! |---|---|---|
//! | bypasses it | `--proxy-protocol-from` | `tests/it/proxy_protocol.rs` `connection_from_outside_proxy_protocol_from_is_refused` |
//! | sends no header, a malformed or an endless one | at most 4 KiB are read, within the handshake's deadline | `tests/it/proxy_protocol.rs` `connection_without_a_whole_proxy_header_is_refused`, `proxy_header_counts_towards_the_handshake_timeout`; `fuzz/` |
//! | sends one where none is expected | it is not TLS | `tests/it/proxy_protocol.rs` `proxy_header_without_proxy_protocol_is_not_tls` |
//!
//! # The application behind the proxy
//!
//! Trusted to receive requests, but not to respond correctly.
//!
//! | the application | what stops it | tests |
//! |---|---|---|
//! | responds with garbage, or more than once | the response is not forwarded | `tests/it/proxy_smuggling/mod.rs` `malformed_response_is_not_forwarded`, `bytes_after_a_response_are_not_the_next_response` |
//! | breaks off | so does its response, visibly | `tests/it/proxy/passing.rs` `broken_off_response_is_not_a_complete_one` |
//! | is slow, full or gone | 502, 503 or 504 within a deadline; the queue is bounded | `tests/it/proxy/failing.rs` `upstream_failures_have_distinct_status_and_reason`, `upstream_connections_and_queue_are_bounded`; `tests/it/admin/upstream_bounds.rs` `upstream_timeout`, `upstream_connect_timeout` |
//! | sends faster than the client reads | backpressure | `tests/it/proxy/http2.rs` `slow_reader_applies_backpressure_to_the_upstream` |
//! | leaks through an error | our problem responses are fixed text and an id; the log has the rest | `tests/it/proxy_cli.rs` `problem_response_has_the_request_id_and_the_log_the_reason` |
//!
//! # The files
//!
//! Write access to the trust paths decides which clients are accepted. The writer's intent is
//! trusted, but mistakes are expected.
//!
//! | the writer | what happens | tests |
//! |---|---|---|
//! | writes half a file, or garbage | nothing changes, and the problem is logged | `tests/it/reload/mod.rs` `half_written_file_loses_no_certificate`, `error_in_one_file_does_not_delay_another`; `tests/it/model.rs` `accepted_clients_match_the_model_after_each_step` |
//! | attacks the parser | it is strict, bounded, and never panics | `src/trust/tests.rs` `arbitrary_bytes_never_panic`, `a_damaged_certificate_never_panics`; `fuzz/` |
//! | loses or replaces the directory | nothing changes, and the problem is logged | `tests/it/reload/mod.rs` `vanished_or_empty_replaced_directory_changes_nothing` |
//! | renews a certificate before its key, or after it | the old pair stays active until both match | `tests/it/reload/mod.rs` `server_pair_is_renewed_in_either_order` |
//! | changes a link to lead elsewhere | in the sandbox, an error | `tests/it/sandbox.rs` `link_changed_to_lead_outside_is_an_error_in_the_sandbox_only` |
//! | adds ten thousand certificates | they load beside the requests | `tests/it/fire/machine.rs` `trust_directory_of_10_000_files` |
//!
//! # The admin port
//!
//! Plain HTTP without a password, for this machine or the pod's network. A client that reaches it
//! can read which clients are trusted and rejected, but change nothing.
//!
//! | a client | what stops it | tests |
//! |---|---|---|
//! | asks for it on the public port | it is not there | `tests/it/admin/health.rs` `public_port_serves_no_admin_path` |
//! | holds it open | bounds of its own | `tests/it/admin/health.rs` `admin_port_has_its_own_bounds` |
//! | is a page in a browser that rebinds its name to this address | only addresses, internal names and those of `--admin-host` are allowed | `src/admin/host.rs` `internal_names_and_addresses_are_allowed_and_public_names_are_not` |
//! | was rejected, with markup in its subject | it is text, in a page that loads nothing | `tests/it/interop/admin.rs` `subject_of_a_stranger_is_text_and_no_markup`, `status_text_is_never_markup` |
//! | makes series without end | no label has a value that a client chooses | `src/server/meters.rs` `unknown_status_creates_no_series_of_its_own` |
//!
//! # The process
//!
//! An attacker who controls its code gets little access.
//!
//! | the attacker wants | what stops it | tests |
//! |---|---|---|
//! | other files, other hosts | Landlock, where the kernel has it | `tests/it/sandbox.rs` `sandbox_rights_are_logged_once` |
//! | its keys, from a core dump, the log or `Debug` | none is written; no type that holds a key prints it | `tests/it/sandbox.rs` `no_core_dump_holds_the_memory`; `tests/it/binary.rs` `no_key_is_in_the_log` |
//! | its key, from the disk | a warning about its mode; an ACME cache is refused | `tests/it/sandbox.rs` `key_readable_by_others_is_reported`; `tests/it/acme/cache.rs` `cache_that_others_can_read_is_refused` |
//!
//! # The library's user
//!
//! Their service is trusted to receive requests, but not to be free of bugs.
//!
//! | the service | what stops it | tests |
//! |---|---|---|
//! | panics | `500`, and that connection only | `tests/it/library.rs` `panicking_service_costs_one_response_and_one_connection` |
//! | is used without the server that verifies | no identity, no response; outside this crate only tests can make one | `tests/it/proxy/library.rs` `request_without_an_identity_is_refused` |
//!
//! # Not defended against
//!
//! - The holder of a trusted certificate's private key, which is AWS's to keep, and anyone who can write to a
//!   trust path.
//! - Another API, of any account, that was given the same certificate, unless `--api-id` is used; and
//!   then anyone on the way who can set that header.
//! - An accepted client that politely sends more than the application can serve, or takes all of
//!   `--max-connections`.
//! - A flood that saturates the network before it reaches this machine.
//! - root on this machine, and users who can read this user's files or reach the admin port.
//! - A wrong clock, by which certificates begin and end.
//! - A load balancer that lies about addresses.
//!
//! # Scanners
//!
//! testssl.sh 3.0, sslscan 2.0, sslyze 6.3 and slowhttptest 1.8 were run against it with the
//! certificates of `certs-example/`, with and without a client certificate where they support one.
//! They find TLS 1.2 and 1.3, forward secrecy and authenticated encryption only, no renegotiation,
//! and none of the weaknesses that they know by name. They report:
//!
//! - *The certificate is not trusted, lives for too long, names neither CRL nor OCSP, is in no log*
//!   (testssl.sh, sslyze). It is the example's certificate, which is valid until 2049 and protects
//!   nothing. sslyze reports nothing else under Mozilla's "intermediate" profile.
//! - *No `TLS_FALLBACK_SCSV`* (sslscan). There is no version below TLS 1.2 to fall back to, and a
//!   TLS 1.3 client recognises a downgrade to 1.2 by the server's random.
//! - *No X448 and no Brainpool curves* (sslyze). X25519, P-256, P-384 and the hybrid of X25519 with
//!   ML-KEM-768 are offered.
//! - slowhttptest finds the service available throughout. Without a client certificate, none of its
//!   connections gets past the handshake. With one, through a tunnel, slow heads end after
//!   `--head-timeout`. Slow bodies and slow reads within `--body-timeout` and `--write-timeout`
//!   continue, each at the cost of one of `--max-connections`.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    /// The names in backquotes after a file in backquotes, up to the next file.
    fn named_tests(text: &str) -> BTreeMap<&str, Vec<&str>> {
        let mut named = BTreeMap::<_, Vec<_>>::new();
        for line in text.lines().filter(|line| line.starts_with("//! | ")) {
            let mut file = None;
            for quoted in line.split('`').skip(1).step_by(2) {
                let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                match file {
                    _ if quoted.ends_with(".rs") => file = Some(quoted),
                    Some(file) if quoted.chars().all(is_name) => {
                        named.entry(file).or_default().push(quoted);
                    }
                    _ => {}
                }
            }
        }
        named
    }

    #[test]
    fn every_named_test_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let named = named_tests(include_str!("threat_model.rs"));
        assert!(named.values().map(Vec::len).sum::<usize>() > 50, "{named:?}");
        for (file, names) in named {
            let source = fs::read_to_string(root.join(file));
            let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
            for name in names {
                assert!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
            }
        }
    }
}
