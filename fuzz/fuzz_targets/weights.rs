//! Any bytes as weights files and configurations.

#![no_main]

#[path = "../../tests/gradients/fuzz/targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::weights(data));
