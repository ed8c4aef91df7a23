//! The mutator of the targets that take models: decodes, changes what the message says, encodes.

use libfuzzer_sys::fuzzer_mutate;
use mmopt::onnx::proto::ModelProto;
use prost::Message;

#[path = "../../tests/gradients/fuzz/mutate.rs"]
mod mutate;

/// Puts a mutated model into `data` and returns its length; bytes once in `every`, and where
/// they are no model.
pub fn mutated(data: &mut [u8], size: usize, max_size: usize, seed: u32, every: usize) -> usize {
    let mut choices = mutate::Choices::new(seed.into());
    if !choices.once_in(every)
        && let Ok(mut model) = ModelProto::decode(&data[..size])
    {
        mutate::mutate(&mut model, &mut choices);
        let bytes = model.encode_to_vec();
        if !bytes.is_empty() && bytes.len() <= max_size {
            data[..bytes.len()].copy_from_slice(&bytes);
            return bytes.len();
        }
    }
    fuzzer_mutate(data, size, max_size)
}
