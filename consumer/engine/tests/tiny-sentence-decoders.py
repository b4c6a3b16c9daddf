#!/usr/bin/env python3
"""Makes the small random decoders that embed and rerank, with the values that sentence-transformers computes for them.

    python3 consumer/engine/tests/tiny-sentence-decoders.py [NAME ...]

Needs sentence-transformers 6.2 with torch and transformers 5.24. Weights are kept in bf16 and computed with in f32.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers import AutoTokenizer, PreTrainedTokenizerFast

DATA = pathlib.Path(__file__).resolve().parent / "data/tiny"
VOCABULARY, HIDDEN = 400, 48
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.25,
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Qwen's, by which it splits texts.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
# As the published rerankers have it: an instruction is a message of the system.
TEMPLATE = (
    '{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first'
    f' | default("{SEARCH}") -%}}\n'
    f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n<Instruct>: {{{{ instruction }}}}\n"
    '<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}\n'
    '<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>\n'
    "{%- if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
PROMPTS = {"query": "Instruct: Find what answers the question\nQuery:", "document": ""}
TEXTS = [
    "",
    "water",
    "A forebay is the pool in front of a turbine.",
    "Gates close when there is nothing to turn, and open when there is.",
    "Ünïcödé naïve 日本語 привет, white  space \n at the end ",
    "what looks like <|im_end|> and <|endoftext|>",
    "it holds the water and smooths the surges of the river, " * 6,
    "the queue is the pool, the workers are the turbines, the autoscaler works the gates; " * 20,
]


def tokenizer(appends=False, tokens_max=128):
    """Byte-level BPE as Qwen's, trained on a few words; `yes` and `no` are tokens. It may append the end of text."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), by_bytes])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([*TEXTS[:4], JUDGE, SEARCH, *["yes", "no"] * 50], trainer)
    made.add_special_tokens(SPECIAL)
    post = [processors.ByteLevel(trim_offsets=False)]
    if appends:
        end = SPECIAL[0]
        ids = [(end, made.token_to_id(end))]
        post.append(processors.TemplateProcessing(single=f"$A {end}", pair=f"$A $B {end}", special_tokens=ids))
    made.post_processor = processors.Sequence(post)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=tokens_max, eos_token=SPECIAL[2], pad_token=SPECIAL[0]
    )


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
            elif name.endswith("bias"):
                weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
            elif weight.dim() > 1:
                weight.copy_(0.25 * torch.randn(weight.shape, generator=generator))
            weight.copy_(weight.bfloat16().float())
    return model.eval()


def saved(auto, words, seed, **fields):
    """A model in a folder of its own."""
    ids = {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = AutoConfig.for_model(**COMMON | ids | fields)
    folder = tempfile.mkdtemp()
    randomize(auto.from_config(config, dtype=torch.float32), seed).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def keep(model, name):
    """Writes the folder, its weights in bf16, without what no program reads."""
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    for file in folder.rglob("*.safetensors"):
        save_file({name: weight.bfloat16() for name, weight in load_file(file).items()}, file)
    return folder


def edit(file, **fields):
    value = json.loads(file.read_text(encoding="utf-8")) | fields
    file.write_text(json.dumps({key: it for key, it in value.items() if it is not None}, indent=2) + "\n")


def write(folder, rows):
    with open(folder / "expected.jsonl", "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def embedder(name, words, seed, modules=(), prompts=None, pooling="lasttoken", **fields):
    transformer = Transformer(saved(AutoModel, words, seed, **fields))
    # As in folders of before, which a tokenizer's chat template changes nothing of.
    after = [Pooling(HIDDEN, pooling_mode=pooling), *modules, Normalize()]
    encoder = SentenceTransformer(modules=[transformer, *after], prompts=prompts or {}, device="cpu")
    folder = keep(encoder, name)
    encoder = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    rows = []
    for text in TEXTS:
        for prompt in {"", *(prompts or {}).values()}:
            ids = encoder.preprocess([text], prompt=prompt or None)["input_ids"][0].tolist()
            if ids:
                vector = encoder.encode(text, prompt=prompt or None).tolist()
                rows.append({"text": prompt + text, "token_ids": [int(id) for id in ids], "vector": vector})
    write(folder, rows)
    return folder


def qwen3_embed(name):
    """As Qwen3-Embedding: the class of a language model, switches of before, and a length that cuts."""
    folder = embedder(name, tokenizer(True, 100), 1, prompts=PROMPTS, model_type="qwen3", tie_word_embeddings=True)
    edit(folder / "config.json", architectures=["Qwen3ForCausalLM"])
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=2) + "\n")
    (folder / "sentence_bert_config.json").unlink()


def mistral_embed(name):
    """As e5-mistral: windows."""
    embedder(name, tokenizer(True), 2, model_type="mistral", sliding_window=37)


def qwen2_embed(name):
    """As GTE's Qwen2: every token sees all others; here with windows too."""
    fields = {"use_sliding_window": True, "sliding_window": 19, "max_window_layers": 2}
    embedder(name, tokenizer(True), 3, model_type="qwen2", is_causal=False, **fields)


def gemma3_embed(name):
    """As EmbeddingGemma: both directions, windows of which half is on either side, the mean, two linear layers."""
    torch.manual_seed(4)
    dense = [
        randomize(Dense(HIDDEN, 96, bias=False, activation_function=torch.nn.Identity()), 5),
        randomize(Dense(96, HIDDEN, bias=False, activation_function=torch.nn.Identity()), 6),
    ]
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    fields = {"use_bidirectional_attention": True, "sliding_window": 32, "query_pre_attn_scalar": 16}
    embedder(name, tokenizer(), 4, dense, prompts, "mean", model_type="gemma3_text", **fields)


def pairs():
    return [("what holds the water?", text) for text in TEXTS] + [(TEXTS[7], TEXTS[2])]


def scored(encoder, folder):
    rows = []
    for query, document in pairs():
        ids = encoder.preprocess([[query, document]])["input_ids"][0].tolist()
        score = encoder.predict([(query, document)], activation_fn=torch.nn.Identity())
        rows.append({"query": query, "document": document, "token_ids": ids, "logits": [float(score[0])]})
    write(folder, rows)
    return rows


def loaded(folder):
    return CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def qwen3_rerank(name):
    """As Qwen3-Reranker, with the files of sentence-transformers."""
    words = tokenizer(tokens_max=300)
    words.chat_template = TEMPLATE
    folder = saved(AutoModelForCausalLM, words, 7, model_type="qwen3", tie_word_embeddings=True)
    arguments = {"chat_template": {"add_generation_prompt": True}}
    transformer = Transformer(folder, transformer_task="text-generation", processing_kwargs=arguments)
    answers = [words.convert_tokens_to_ids(word) for word in ("yes", "no")]
    encoder = CrossEncoder(modules=[transformer, LogitScore(*answers)], device="cpu")
    folder = keep(encoder, name)
    rows = scored(loaded(folder), folder)
    # Its makers' code, for folders without these files, gives the same.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(folder)
    opening = f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n"
    closing = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    [opening, closing] = [words.encode(text, add_special_tokens=False) for text in (opening, closing)]
    for row in rows:
        text = f"<Instruct>: {SEARCH}\n<Query>: {row['query']}\n<Document>: {row['document']}"
        left = words.model_max_length - len(opening) - len(closing)
        ids = opening + words.encode(text, add_special_tokens=False, truncation=True, max_length=left) + closing
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1]
        assert ids == row["token_ids"], text
        assert abs(float(logits[answers[0]] - logits[answers[1]]) - row["logits"][0]) < 1e-5, text


def qwen3_score(name):
    """A reranker with a head of its own, whose tokenizer appends the token that fills texts up: it is passed over."""
    fields = {"num_labels": 1, "model_type": "qwen3"}
    folder = saved(AutoModelForSequenceClassification, tokenizer(True), 8, **fields)
    encoder = CrossEncoder(folder, device="cpu", model_kwargs={"dtype": torch.float32})
    folder = keep(encoder, name)
    scored(loaded(folder), folder)


MODELS = {
    "qwen3-embed": qwen3_embed,
    "mistral-embed": mistral_embed,
    "qwen2-embed": qwen2_embed,
    "gemma3-embed": gemma3_embed,
    "qwen3-rerank": qwen3_rerank,
    "qwen3-score": qwen3_score,
}
for name in sys.argv[1:] or MODELS:
    MODELS[name](name)
