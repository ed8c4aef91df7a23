"""Hostile strings as the classes of `transformers` encode them, for tests/text/published.rs.

Run in an environment with `pip install tokenizers transformers` (0.23.3 and 5.24.0 made the committed
files): `python reference.py` in this folder. Writes small vocabularies, `strings.json`, and
`expected.jsonl`: for each configuration of `cases.json` a line for each string with ids, token types
and offsets, which count bytes and leave out white space at the ends of a token.
"""
import json
import pathlib
import random
import shutil
import tempfile

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast, RobertaTokenizer

HERE = pathlib.Path(__file__).parent
CLASSES = {"BertTokenizer": BertTokenizer, "GPT2Tokenizer": GPT2Tokenizer,
           "RobertaTokenizer": RobertaTokenizer, "PreTrainedTokenizerFast": PreTrainedTokenizerFast}
# What Rust's `char::is_whitespace` holds.
SPACES = "".join(map(chr, [9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B),
                           0x2028, 0x2029, 0x202F, 0x205F, 0x3000]))


def strings():
    """435 strings: odd spaces, marks, scripts, controls, special tokens, long words, mixtures."""
    dice = random.Random(20)
    pieces = [
        "a", "The", "cat", "sat", "on", "mat", "don't", "U.S.", "3.14", "--", "...", "é", "e\u0301",
        "ÀÉÎ", "straße", "ſ", "İstanbul", "ı", "ΑΣ", "ς", "ﬁne", "ﬀ", "①", "½", "２", "中", "中文字",
        "日本語", "カタカナ", "한국어", "한", "שָׁלוֹם", "مَرْحَبًا", "नमस्ते", "ไทย", "😀", "👩‍👩‍👧", "❤️", "🇩🇪",
        "\u200b", "\u200d", "\u00ad", "\ufeff", "\u0000", "\u0001", "\u001c", "\u0085", "\u00a0",
        "\u2028", "\u3000", "\t", "\n", "\r\n", "  ", "\u202e", "\ufffd", "\U0001f6001", "\ud7ff",
        "𠮷", "𝒳", "A\u030a", "n\u0303", "o\u0308\u0304", "[CLS]", "[MASK]", "[UNK]", "<mask>", "</s>",
        "<|endoftext|>", "[PAD]", "<ent>", "##a", "Ġ", "▁", "'", "\"", "`", "$", "^", "~", "|", "_",
        "http://a.b/?c=d&e", "a@b.c", "1,000", "AbC", "ABC", "x" * 20, "y" * 101,
    ]
    found = ["", " ", "\n", "\u00a0"] + pieces
    for a in pieces:
        found += [f"cat {a} sat", f"cat{a}sat"]
    while len(set(found)) < 435:
        n = dice.randint(2, 5)
        found.append("".join(dice.choice(["", " "]) + dice.choice(pieces) for _ in range(n)))
    return list(dict.fromkeys(found))[:435]


def vocabularies(texts):
    corpus = [t for t in texts if t] * 3 + ["the cat sat on the mat"] * 20
    shutil.rmtree(HERE / "bert", ignore_errors=True)
    for name in ["bert", "gpt2", "roberta", "unigram", "wordpiece"]:
        (HERE / name).mkdir(exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer(lowercase=False)
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert.train_from_iterator(corpus + [t.lower() for t in corpus], trainers.WordPieceTrainer(
        vocab_size=420, special_tokens=special, limit_alphabet=220, show_progress=False))
    vocab = sorted(bert.get_vocab().items(), key=lambda kv: kv[1])
    (HERE / "bert/vocab.txt").write_text("".join(t + "\n" for t, _ in vocab), encoding="utf-8")
    # The same as tokenizer.json, which lower-cases where its configuration may not.
    bert.normalizer = normalizers.BertNormalizer(lowercase=True)
    bert.decoder = decoders.WordPiece()
    bert.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    bert.save(str(HERE / "wordpiece/tokenizer.json"), pretty=False)
    for name, special in [("gpt2", ["<|endoftext|>"]),
                          ("roberta", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])]:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.train_from_iterator(corpus, trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        bpe.model.save(str(HERE / name))
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(
        tokenizers.Regex(" {2,}"), " ")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.train_from_iterator(corpus, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], unk_token="<unk>",
        show_progress=False))
    unigram.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)])
    unigram.save(str(HERE / "unigram/tokenizer.json"), pretty=False)


def cases():
    def added(content, special=False, **more):
        token = {"content": content, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": not special, "special": special}
        return {**token, **more}

    bert = {"tokenizer_class": "BertTokenizer"}
    gpt2 = {"tokenizer_class": "GPT2Tokenizer"}
    mask = added("<mask>", True, lstrip=True)
    roberta = {"tokenizer_class": "RobertaTokenizer", "mask_token": {"__type": "AddedToken", **mask}}
    config = "tokenizer_config.json"
    n_bert = len((HERE / "bert/vocab.txt").read_text(encoding="utf-8").splitlines())
    return [
        ["bert", "bert", {config: bert}],
        ["cased", "bert", {config: {**bert, "do_lower_case": False}}],
        ["keep-accents", "bert", {config: {**bert, "strip_accents": False}}],
        ["cased-strip", "bert", {config: {**bert, "do_lower_case": False, "strip_accents": True}}],
        ["no-chinese", "bert", {config: {**bert, "tokenize_chinese_chars": False}}],
        ["added-tokens", "bert", {config: bert, "added_tokens.json": {"<ent>": n_bert, "NEW": n_bert + 1}}],
        ["special-map", "bert", {config: bert, "special_tokens_map.json": {
            "additional_special_tokens": ["<ent>"], "mask_token": added("[MASK]", lstrip=True)}}],
        ["beside-json", "wordpiece", {config: {**bert, "do_lower_case": False}}],
        ["gpt2", "gpt2", {config: gpt2}],
        ["gpt2-pad", "gpt2", {config: {**gpt2, "pad_token": "[PAD]"}}],
        ["gpt2-space", "gpt2", {config: {**gpt2, "add_prefix_space": True}}],
        ["gpt2-added", "gpt2", {config: {**gpt2, "added_tokens_decoder": {
            "0": added("<|endoftext|>", True), "400": added("<ent>", True, rstrip=True),
            "401": added("cat", single_word=True)}}}],
        ["roberta", "roberta", {config: roberta}],
        ["roberta-space", "roberta", {config: {**roberta, "add_prefix_space": True}}],
        ["unigram", "unigram", {config: {"tokenizer_class": "PreTrainedTokenizerFast",
                                         "unk_token": "<unk>", "pad_token": "<pad>"}}],
    ]


def in_bytes(text, start, end):
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip(SPACES))
    kept = piece.strip(SPACES)
    if kept:
        start, end = start + left, start + left + len(kept)
    return [len(text[:start].encode()), len(text[:end].encode())]


def line(tokenizer, first, second):
    encoded = tokenizer(first, second, return_offsets_mapping=True, return_token_type_ids=True)
    rust = encoded.encodings[0]
    offsets = []
    for i, (start, end) in enumerate(encoded["offset_mapping"]):
        sequence = rust.sequence_ids[i]
        text = first if sequence == 0 else second
        offsets.append([0, 0] if sequence is None else in_bytes(text, start, end))
    return [encoded["input_ids"], encoded["token_type_ids"], [n for o in offsets for n in o]]


def main():
    texts = strings()
    vocabularies(texts)
    all_cases = cases()
    dump = lambda value: json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    (HERE / "strings.json").write_text("[" + ",\n".join(map(dump, texts)) + "]\n")
    (HERE / "cases.json").write_text("[" + ",\n".join(map(dump, all_cases)) + "]\n")
    with (HERE / "expected.jsonl").open("w") as out:
        for name, base, files in all_cases:
            with tempfile.TemporaryDirectory() as folder:
                shutil.copytree(HERE / base, folder, dirs_exist_ok=True)
                for file, content in files.items():
                    (pathlib.Path(folder) / file).write_text(json.dumps(content))
                cls = CLASSES[files["tokenizer_config.json"]["tokenizer_class"]]
                tokenizer = cls.from_pretrained(folder)
                for i, text in enumerate(texts):
                    # Every fifth with a second text.
                    second = texts[(i + 7) % len(texts)] if i % 5 == 0 else None
                    if second == "":
                        second = "mat"
                    ids, types, offsets = line(tokenizer, text, second)
                    # Types are 0, but for the second text.
                    types = [] if not any(types) else types
                    out.write(dump([name, i, ids, types, offsets]) + "\n")
                out.write(dump([name, "size", len(tokenizer), [], []]) + "\n")


main()
