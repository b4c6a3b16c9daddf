"""Makes tests/data/gguf: files as GGUF's own library writes them, with what transformers and the reference read there.

    pip install transformers==5.24.0 torch gguf==0.19.0 sentencepiece accelerate
    python gguf-data.py texts.txt [smollm2.gguf]

`texts.txt` has one text a line; 40 of them go into the data. With SmolLM2's file, which is too large to keep, the
checksums of its tensors as transformers loads them and the ids of texts are written too.
"""

import io
import json
import pathlib
import sys
import zlib

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from tokenizers import decoders, models, pre_tokenizers, trainers

DATA = pathlib.Path(__file__).parent / "data" / "gguf"
LINES = pathlib.Path(sys.argv[1]).read_text().splitlines()
# Borders: spaces, line ends, digits, signs, characters of other scripts, characters of several code points, endings.
HARD = [
    "", " ", "  ", "   a", "a   b", "\t\tx", "\n", "\n\n", "a\n\n\nb", "a \n b", "x\r\ny", " \r\n ",
    "1", "12", "123", "1234567890", "3.14159", "year 2026, 7 of 12", "x86_64", "1,000,000.00", "v1.2.3-rc4",
    "٣٤٥", "½ ²",
    "I'll we've can't don't I'M THEY'RE it's", "camelCase HTTPServer snake_case SCREAMING", "don’t", "o'clock '90s",
    "Hello, world!", " Hello", "Hello ", "émile naïve café", "e\u0301 a\u0308", "ﬁ ℌ ①", "Ⅷ", "привет мир", "こんにちは世界",
    "中文文本", "한국어 텍스트", "שלום", "مرحبا بالعالم", "नमस्ते", "🙂", "👩‍👩‍👧‍👦", "🇩🇪", "\u200b\ufeff", "\u0000", "a\u00a0b",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "<|im_start", "<s>[INST]</s>", "<0x0A>",
    "def f(x):\n    return x ** 2\n\n\nclass A:\n\tpass\n", "{\"a\": [1, 2.5e-3, null]}", "https://a.b/c?d=e&f=g#h",
    "ﷺ" * 3, "a" * 60, "=" * 40, "▁a ▁▁b", "Ġa", "[PAD]",
]


def write(path, arch, tokens=None, kinds=None, settings=(), tensors=()):
    writer = gguf.GGUFWriter(path, arch)
    sizes = {"block_count": 2, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64}
    for name, value in sizes.items():
        writer.add_uint32(f"{arch}.{name}", value)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    if tokens is not None:
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
    for add in settings:
        add(writer)
    for name, values, kind in tensors:
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- blocks of every kind, and their values by the reference


def blocks():
    random = np.random.default_rng(7)
    tensors = []
    halves = {  # where a block has floats of 16 bits
        "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
        "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    }
    scales = np.array([1, -1, 0, 6e-8, 0.0123, -65504, 3e-5, 0.333], dtype=np.float16)
    for name in ["F32", "F16", "BF16", *halves, "MXFP4"]:
        kind = Kind[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        count = {1: 256, 32: 16, 256: 6}[values]
        raw = random.integers(0, 256, (count, size), dtype=np.uint8)
        if name in ("F32", "F16", "BF16"):
            floats = random.normal(size=(count,)).astype(np.float32)
            floats[:4] = [0, -0.0, 6e-8, 65504]
            data = gguf.quantize(floats.reshape(1, -1), kind)
            tensors.append((f"stored.{name}", data, kind))
            tensors.append((f"values.{name}", gguf.dequantize(data, kind), Kind.F32))
            continue
        for at in halves.get(name, []):
            raw[:, at : at + 2] = random.choice(scales, count).view(np.uint8).reshape(count, 2)
        if name == "MXFP4":
            raw[:, 0] = random.integers(0, 255, count)
            raw[:3, 0] = [0, 1, 254]
        data = raw.reshape(1, -1)
        tensors.append((f"stored.{name}", data, kind))
        tensors.append((f"values.{name}", gguf.dequantize(data, kind), Kind.F32))
    write(DATA / "blocks.gguf", "llama", tensors=tensors)


# --- tokenizers


def rows(path, encode, texts):
    with open(path, "w") as file:
        for text in texts:
            file.write(json.dumps({"text": text, "token_ids": encode(text)}, ensure_ascii=False) + "\n")


def by_transformers(path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    return lambda text: tokenizer(text)["input_ids"]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOOL = "<tool_call>"


def byte_levels():
    """A small vocabulary for each way to split, with the ids that transformers gives texts by the file."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as splits

    for pre in ["gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken"]:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        parts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in splits)]
        if pre in splits:
            parts.insert(0, pre_tokenizers.Split(tokenizers.Regex(splits[pre]), behavior="isolated"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(LINES[:400] + HARD, trainer)
        made = json.loads(tokenizer.to_str())["model"]
        words = sorted(made["vocab"], key=made["vocab"].get) + [*SPECIAL, TOOL]
        kinds = [gguf.TokenType.NORMAL] * (len(words) - 4) + [gguf.TokenType.CONTROL] * 3
        kinds.append(gguf.TokenType.USER_DEFINED)
        merges = [" ".join(pair) for pair in made["merges"]]
        path = DATA / f"{pre}.gguf"
        settings = [
            lambda w: w.add_tokenizer_model("gpt2"),
            lambda w: w.add_tokenizer_pre(pre),
            lambda w: w.add_token_merges(merges),
            lambda w: w.add_add_bos_token(pre in ("llama-bpe", "tekken")),
            lambda w: w.add_bos_token_id(len(words) - 4),
            lambda w: w.add_eos_token_id(len(words) - 2),
        ]
        write(path, "llama", words, kinds, settings)
        encode = by_transformers(path)
        if pre in ("llama-bpe", "tekken"):
            inner = encode
            first = len(words) - 4
            encode = lambda text: inner(text) if inner(text)[:1] == [first] else [first, *inner(text)]
        if pre == "qwen2":
            # What the model's own tokenizer has and transformers doesn't take from a file: characters are composed.
            import unicodedata

            plain = encode
            encode = lambda text: plain(unicodedata.normalize("NFC", text))
        rows(DATA / f"{pre}.jsonl", encode, HARD + LINES[400:410])


def sentence_pieces():
    """Small SentencePiece models, with the ids that SentencePiece itself gives texts."""
    for name, space in [("spm", True), ("spm-gemma", False)]:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES[:400]), model_writer=model, vocab_size=600, model_type="bpe",
            byte_fallback=True, add_dummy_prefix=space, remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            split_digits=True, character_coverage=0.99, minloglevel=2, user_defined_symbols=["<start_of_turn>"],
            num_threads=1,
        )
        spm = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        words, kinds, scores = [], [], []
        for i in range(spm.vocab_size()):
            kind = gguf.TokenType.NORMAL
            if spm.is_unknown(i):
                kind = gguf.TokenType.UNKNOWN
            elif spm.is_control(i):
                kind = gguf.TokenType.CONTROL
            elif spm.is_byte(i):
                kind = gguf.TokenType.BYTE
            elif spm.id_to_piece(i) == "<start_of_turn>":
                kind = gguf.TokenType.USER_DEFINED
            words.append(spm.id_to_piece(i))
            kinds.append(kind)
            scores.append(spm.get_score(i))
        arch = "llama" if space else "gemma3"
        path = DATA / f"{name}.gguf"
        settings = [
            lambda w: w.add_tokenizer_model("llama"),
            lambda w: w.add_tokenizer_pre("default"),
            lambda w: w.add_token_scores(scores),
            lambda w: w.add_bos_token_id(1),
            lambda w: w.add_eos_token_id(2),
            lambda w: w.add_unk_token_id(0),
            lambda w: w.add_add_space_prefix(space),
        ]
        write(path, arch, words, kinds, settings)
        # Texts with the names of tokens are cut there by transformers and not by SentencePiece.
        texts = [text for text in HARD if not set("<\u2581\0") & set(text) and text] + LINES[400:420]
        rows(DATA / f"{name}.jsonl", lambda text: [1, *spm.encode(text)], texts)


# --- SmolLM2


def smollm2(path):
    """The model's own tokenizer: digits one by one, then GPT-2's words. transformers takes no digits from the file."""
    backend = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name).backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    rows(DATA / "smollm2.jsonl", lambda text: backend.encode(text).ids, HARD + LINES[:40])
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    stored = model.state_dict().items()
    sums = {name: [list(value.shape), zlib.crc32(value.numpy().tobytes())] for name, value in stored}
    config = model.config.to_dict()
    keep = ["model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    keep += ["num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings", "hidden_act"]
    whole = {"config": {key: config[key] for key in keep}, "tensors": sums}
    (DATA / "smollm2.json").write_text(json.dumps(whole, indent=0) + "\n")


DATA.mkdir(exist_ok=True)
blocks()
byte_levels()
sentence_pieces()
if len(sys.argv) > 2:
    smollm2(pathlib.Path(sys.argv[2]))
