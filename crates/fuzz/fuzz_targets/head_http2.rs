//! Hands libFuzzer's bytes to the body of this name.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (leastgate_oracles::target("head_http2").body)(bytes));
