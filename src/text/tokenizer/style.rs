//! What architectures expect of a tokenizer: special tokens, where they go, the subword algorithm.

/// The special tokens of an architecture, and how a text or a pair of texts is put between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TokenizerStyle {
    /// `[CLS] a [SEP] b [SEP]`, token types 0 and 1.
    #[default]
    Bert = 1,
    /// `a b` without special tokens between; `<|endoftext|>` ends a text and pads.
    Gpt2 = 2,
    /// `<s> a </s></s> b </s>`, one token type.
    Roberta = 3,
}

/// How words are split into subwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TokenizerAlgorithm {
    /// The longest known subwords from the left, `##` inside words; a word may be unknown.
    WordPiece = 1,
    /// Byte-pair encoding of UTF-8 bytes; nothing is unknown.
    ByteLevelBpe = 2,
}

/// The role of a special token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SpecialToken {
    /// Pads short sequences.
    Pad = 0,
    /// Stands for unknown words.
    Unk = 1,
    /// First token of a sequence (`[CLS]`, `<s>`).
    Cls = 2,
    /// Separates sequences (`[SEP]`, `</s>`).
    Sep = 3,
    /// Replaces a masked token.
    Mask = 4,
    /// Begins a text.
    Bos = 5,
    /// Ends a text.
    Eos = 6,
}

impl SpecialToken {
    /// All roles, in the order of their numbers.
    pub const ALL: [SpecialToken; 7] = [
        SpecialToken::Pad,
        SpecialToken::Unk,
        SpecialToken::Cls,
        SpecialToken::Sep,
        SpecialToken::Mask,
        SpecialToken::Bos,
        SpecialToken::Eos,
    ];

    /// The key in `tokenizer_config.json`.
    pub(crate) fn key(self) -> &'static str {
        ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token", "bos_token", "eos_token"]
            [self as usize]
    }
}

impl SpecialToken {
    /// Names that added tokens of this role have in published vocabularies of other styles.
    pub(crate) fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Pad => &["[PAD]", "<pad>", "<|pad|>"],
            Self::Unk => &["[UNK]", "<unk>", "<|unk|>"],
            Self::Cls => &["[CLS]", "<cls>"],
            Self::Sep => &["[SEP]", "<sep>"],
            Self::Mask => &["[MASK]", "<mask>"],
            Self::Bos => &["<s>", "<bos>", "[BOS]", "<|startoftext|>", "<|begin_of_text|>"],
            Self::Eos => &["</s>", "<eos>", "[EOS]", "<|endoftext|>", "<|end_of_text|>"],
        }
    }
}

impl TokenizerStyle {
    /// The text of a special token; `None` when the style has none.
    pub fn token(self, special: SpecialToken) -> Option<&'static str> {
        use SpecialToken::*;
        match (self, special) {
            (Self::Bert, Pad) => Some("[PAD]"),
            (Self::Bert, Unk) => Some("[UNK]"),
            (Self::Bert, Cls) => Some("[CLS]"),
            (Self::Bert, Sep) => Some("[SEP]"),
            (Self::Bert, Mask) => Some("[MASK]"),
            (Self::Bert, Bos | Eos) => None,
            (Self::Gpt2, Pad | Unk | Bos | Eos) => Some("<|endoftext|>"),
            (Self::Gpt2, Cls | Sep | Mask) => None,
            (Self::Roberta, Cls | Bos) => Some("<s>"),
            (Self::Roberta, Pad) => Some("<pad>"),
            (Self::Roberta, Sep | Eos) => Some("</s>"),
            (Self::Roberta, Unk) => Some("<unk>"),
            (Self::Roberta, Mask) => Some("<mask>"),
        }
    }

    /// The special tokens in the order of their ids in a trained vocabulary.
    pub(crate) fn special_tokens(self) -> &'static [&'static str] {
        match self {
            Self::Bert => &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            Self::Gpt2 => &["<|endoftext|>"],
            Self::Roberta => &["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        }
    }

    /// The algorithm of the published models.
    pub fn default_algorithm(self) -> TokenizerAlgorithm {
        if self == Self::Bert {
            TokenizerAlgorithm::WordPiece
        } else {
            TokenizerAlgorithm::ByteLevelBpe
        }
    }
}
