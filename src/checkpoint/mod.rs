//! State on disk: weights as safetensors, checkpoints as directories that appear whole.

pub mod directory;
pub mod weights;
