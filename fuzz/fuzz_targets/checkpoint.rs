//! Any bytes as an optimizer's saved state.

#![no_main]

#[path = "../../tests/gradients/fuzz/targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::checkpoint(data));
