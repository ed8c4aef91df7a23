//! Any bytes as a model, every third time not by structure.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

mod models;
#[path = "../../tests/gradients/fuzz/targets.rs"]
#[allow(dead_code)]
mod targets;

fuzz_target!(|data: &[u8]| {
    targets::reader(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    models::mutated(data, size, max_size, seed, 3)
});
