//! Architectures by number and by published name.

use std::ffi::{CStr, c_char};

use super::args::text;
use super::guard::guard_or;

/// Architectures that the library can build, and the tokenizer of each.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_architecture {
    /// BERT: WordPiece, [CLS] a [SEP] b [SEP].
    Bert = 1,
    /// GPT-2: byte-level BPE, no special tokens around a text.
    Gpt2 = 2,
    /// RoBERTa: byte-level BPE, `<s> a </s></s> b </s>`.
    Roberta = 3,
    /// DistilBERT: as BERT, without token types.
    Distilbert = 4,
}

const NAMES: [(u32, &CStr); 4] = [
    (mmopt_architecture::Bert as u32, c"bert"),
    (mmopt_architecture::Gpt2 as u32, c"gpt2"),
    (mmopt_architecture::Roberta as u32, c"roberta"),
    (mmopt_architecture::Distilbert as u32, c"distilbert"),
];

/// The mmopt_architecture of a published name: "bert", "gpt2", "roberta", "distilbert". 0 for any
/// other name, and for NULL.
///
/// @param[in] name the published name; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_architecture_from_name(name: *const c_char) -> u32 {
    guard_or(0, || {
        // SAFETY: the caller's text, by the header's contract.
        let name = unsafe { text(name, "name") }?;
        Ok(NAMES.iter().find(|n| n.1.to_bytes() == name.as_bytes()).map_or(0, |n| n.0))
    })
}

/// The published name of an mmopt_architecture; empty for any other number. Static, never freed.
///
/// @param architecture an mmopt_architecture.
#[unsafe(no_mangle)]
pub extern "C" fn mmopt_architecture_name(architecture: u32) -> *const c_char {
    NAMES.iter().find(|n| n.0 == architecture).map_or(c"", |n| n.1).as_ptr()
}
