//! State on disk: weights and training state in safetensors.

pub mod weights;
