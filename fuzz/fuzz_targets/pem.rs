//! Whatever a file holds, the loader returns certificates, errors, or both.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| portcullis::parts::fuzz_pem(bytes));
