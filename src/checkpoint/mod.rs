//! State on disk: weights as safetensors, checkpoints as directories that appear whole.
//!
//! `ROOT/step-00000100/` holds one checkpoint: its files, and `manifest.json` with their sizes and
//! BLAKE3 hashes, a hash of itself, and a number that grows with each checkpoint that is written
//! into ROOT. It is written as `ROOT/.partial-*` and renamed, so a crash at any point leaves whole
//! checkpoints alone. Reading takes the newest whole one.
//!
//! - `manifest`: what a checkpoint says of itself
//! - `files`: its files before they are written
//! - `beside`: writing in a thread of its own
//! - `writer`: the one writer of a directory
//! - `reader`: the newest whole checkpoint, with its files open
//! - `listing`: all checkpoints of a directory, checked; removal of old ones
//! - `weights`: safetensors files

pub mod beside;
pub mod files;
pub mod listing;
mod manifest;
pub mod reader;
pub mod weights;
pub mod writer;

#[cfg(test)]
mod tests;
