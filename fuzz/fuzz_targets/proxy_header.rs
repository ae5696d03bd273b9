//! A PROXY protocol header is bounded, and exactly its bytes are read, whole or in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| portcullis::parts::fuzz_proxy_header(bytes));
