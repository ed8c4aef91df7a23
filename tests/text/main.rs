//! Corpora, tokenizers and the script that fetches sentences.

mod data;
mod fetch;
mod published;
mod robust;
mod scores;
