//! However a PROXY protocol header comes, exactly its octets are read, and it is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| portcullis::parts::fuzz_proxy_header(bytes));
