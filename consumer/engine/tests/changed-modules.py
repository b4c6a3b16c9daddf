#!/usr/bin/env python3
"""Writes what the libraries compute after one field of a model of sparse or token vectors, or of one that comes with
code of its own, is changed: `data/changed/modules.jsonl` and `data/changed/own-code.jsonl`.

    pip install torch==2.8.0 transformers==5.24.0 sentence-transformers==6.2.0
    python3 consumer/engine/tests/changed-modules.py

A line of `modules.jsonl`:

- `model`: a folder of `data/tiny`; `stanford`: its parts are put together as Stanford's ColBERT library does
- `file`, `field`, `value`: the change; a field that is `absent` is removed
- `with`: further fields by their files, which are set before
- `text`, and what is made of it: `sparse` (the number of values, and the largest with their indices), or `query` and
  `document` (the number of vectors, then the first, the last and the mean); absent where the library has no answer

A line of `own-code.jsonl` is one of `fields.jsonl` (`changed-fields.py`). Its values come of the formulas in
`tiny-models.py`.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder, SparseEncoder

TESTS = pathlib.Path(__file__).resolve().parent
DATA = TESTS / "data"
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
F32 = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}}

TEXT = "The library, written in Rust, decodes and encodes audio files: it has no other dependencies than the one."
CONFIG, MAIN, OWN = "config.json", "config_sentence_transformers.json", "sentence_bert_config.json"
SPLADE, DENSE = "1_SpladePooling/config.json", "1_Dense/config.json"
MASK, NORMALIZE = "2_MultiVectorMask/config.json", "3_Normalize/config.json"
METADATA = "artifact.metadata"
# Weights would be missing: the library makes them up.
LACKING = [("tie_word_embeddings", False), ("classifier_bias", True), ("norm_bias", True)]
# Fields that are not removed: without them another class of the library is meant, or one of its own checks fails.
KEPT = {"model_type", "module_output_name"}
# Values of a sparse vector that a line has.
LARGEST = 12

OF_SPLADE = [
    (SPLADE, "pooling_strategy", "sum"), (SPLADE, "pooling_strategy", "max"), (SPLADE, "pooling_strategy", "mean"),
    (SPLADE, "activation_function", "relu"), (SPLADE, "activation_function", "log1p_relu"),
    (SPLADE, "activation_function", "gelu"), (SPLADE, "embedding_dimension", 7), (SPLADE, "chunk_size", 3),
    (MAIN, "max_active_dims", 5), (MAIN, "max_active_dims", 0),
    (OWN, "max_seq_length", 9), (OWN, "processor_kwargs", {"model_max_length": 9}),
    (OWN, "processor_kwargs", {"truncation_side": "left"}), (OWN, "query_length", 9), (OWN, "document_length", 9),
    (OWN, "transformer_task", "feature-extraction"), (OWN, "do_lower_case", True),
    (CONFIG, "tie_word_embeddings", False), (CONFIG, "tie_word_embeddings", True),
]
HEADS = {
    "splade": [("hidden_act", "relu"), ("hidden_act", "quick_gelu"), ("layer_norm_eps", 0.1)],
    "splade-distilbert": [("activation", "relu"), ("hidden_act", "relu"), ("layer_norm_eps", 0.1)],
    "splade-roberta": [("hidden_act", "relu"), ("layer_norm_eps", 0.1)],
    "splade-modernbert": [
        ("classifier_activation", "relu"), ("classifier_bias", True), ("norm_bias", True), ("norm_eps", 0.1),
        ("decoder_bias", False), ("sparse_prediction", True), ("hidden_activation", "relu"),
    ],
}
EXPANSION = {"strategy": "fixed", "attend": False, "length": 32}
OF_COLBERT = [
    (DENSE, "activation_function", "torch.nn.modules.activation.Tanh"), (DENSE, "activation_function", "ReLU"),
    (DENSE, "activation_function", "torch.nn.modules.activation.Sigmoid"),
    (DENSE, "bias", True), (DENSE, "use_residual", True), (DENSE, "module_input_name", "sentence_embedding"),
    (DENSE, "in_features", 32), (DENSE, "module_output_name", "other"),
    (MASK, "skiplist_words", ["the", "library", "no such word"]), (MASK, "skiplist_words", None),
    (MASK, "skiplist_tasks", "query"), (MASK, "skiplist_tasks", ["query", "document"]),
    (MASK, "skiplist_tasks", []), (MASK, "keep_only_token_ids", [61]), (MASK, "keep_only_token_ids", []),
    (NORMALIZE, "module_input_name", "sentence_embedding"), (NORMALIZE, "unknown", 1),
    (OWN, "query_length", 40), (OWN, "query_length", 20), (OWN, "document_length", 10), (OWN, "document_length", None),
    (OWN, "query_expansion", None), (OWN, "query_expansion", EXPANSION | {"attend": True}),
    (OWN, "query_expansion", EXPANSION | {"strategy": "min", "length": 16}),
    (OWN, "query_expansion", EXPANSION | {"length": 16}), (OWN, "query_expansion", EXPANSION | {"length": 0}),
    (OWN, "query_expansion", EXPANSION | {"strategy": "none"}), (OWN, "query_expansion", EXPANSION | {"color": 1}),
    (OWN, "query_expansion", EXPANSION | {"token": "the"}), (OWN, "query_expansion", EXPANSION | {"token": "no such"}),
    (OWN, "max_seq_length", 20), (OWN, "processor_kwargs", {"model_max_length": 20}),
    (MAIN, "prompts", {"query": "find: ", "document": "text: "}), (MAIN, "query_prefix", "[unused0] "),
    (MAIN, "query_length", 24), (MAIN, "document_length", 9), (MAIN, "model_type", "ColBERT"),
    (CONFIG, "hidden_act", "relu"), (CONFIG, "layer_norm_eps", 0.1),
    ("tokenizer_config.json", "mask_token", "[PAD]"),
]
OF_PYLATE = [
    (MAIN, "query_prefix", ""), (MAIN, "document_prefix", None), (MAIN, "query_length", 12),
    (MAIN, "query_length", None),
    (MAIN, "document_length", 9), (MAIN, "query_expansion", None),
    (MAIN, "query_expansion", EXPANSION | {"length": 16}), (MAIN, "query_expansion", EXPANSION),
    (MAIN, "do_query_expansion", False), (MAIN, "do_query_expansion", None),
    (MAIN, "attend_to_expansion_tokens", True), (MAIN, "attend_to_mask_tokens", True),
    (MAIN, "skiplist_words", ["the"]), (MAIN, "skiplist_words", []),
    (MAIN, "prompts", {"query": "find: ", "document": "[D] text: "}),
    (OWN, "query_length", 12), (OWN, "query_expansion", None), (OWN, "query_expansion", EXPANSION | {"length": 16}),
    (DENSE, "activation_function", "torch.nn.modules.activation.GELU"),
    (DENSE, "module_input_name", "token_embeddings"),
]
OF_STANFORD = [
    (METADATA, "query_token_id", "[MASK]"), (METADATA, "doc_token_id", ""), (METADATA, "query_maxlen", 16),
    (METADATA, "query_maxlen", None), (METADATA, "doc_maxlen", 9), (METADATA, "doc_maxlen", None),
    (METADATA, "attend_to_mask_tokens", True), (METADATA, "mask_punctuation", False), (METADATA, "similarity", "l2"),
    (METADATA, "interaction", "flipr"), (METADATA, "nbits", 4), (CONFIG, "hidden_act", "relu"),
]
STANFORDS = {
    METADATA: {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 32, "doc_maxlen": 60,
               "dim": 16, "mask_punctuation": True, "attend_to_mask_tokens": False, "similarity": "cosine"},
    CONFIG: {"architectures": ["HF_ColBERT"]},
}


def change(folder, file, fields):
    path = folder / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | fields))


def to_stanfords(folder):
    """Puts the parts of a BERT together as Stanford's library does."""
    weights = {f"bert.{name}": weight for name, weight in load_file(folder / "model.safetensors").items()}
    weights |= load_file(folder / "1_Dense/model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("1_Dense", "2_MultiVectorMask", "3_Normalize"):
        shutil.rmtree(folder / name)
    for name in ("modules.json", MAIN, OWN):
        (folder / name).unlink()


def tokens_digest(vectors):
    rounded = [[round(value, 6) for value in row.tolist()] for row in (vectors[0], vectors[-1], vectors.mean(0))]
    return {"count": len(vectors), "vectors": rounded}


def compute(folder, is_sparse):
    if is_sparse:
        vector = SparseEncoder(str(folder), **F32).encode(TEXT, convert_to_sparse_tensor=False)
        order = vector.argsort(descending=True, stable=True)[:LARGEST]
        values = [[int(index), round(float(vector[index]), 6)] for index in order if vector[index] > 0]
        return {"sparse": {"dim": len(vector), "count": int((vector > 0).sum()), "largest": values}}
    encoder = MultiVectorEncoder(str(folder), **F32)
    encode = {"query": encoder.encode_query, "document": encoder.encode_document}
    return {task: tokens_digest(torch.as_tensor(encode(TEXT))) for task, encode in encode.items()}


def line_of(model, given, file=None, field=None, value=None, absent=False):
    with tempfile.TemporaryDirectory() as copy:
        folder = pathlib.Path(copy) / model
        shutil.copytree(DATA / "tiny" / model, folder)
        line = {"model": model, **given, "text": TEXT}
        if given.get("stanford"):
            to_stanfords(folder)
        for changed, fields in given.get("with", {}).items():
            change(folder, changed, fields)
        if file is not None:
            line |= {"file": file, "field": field, **({"absent": True} if absent else {"value": value})}
            if absent:
                content = json.loads((folder / file).read_text())
                content.pop(field)
                (folder / file).write_text(json.dumps(content))
            else:
                change(folder, file, {field: value})
        if (field, value) in LACKING:
            return line
        try:
            return line | compute(folder, model.startswith("splade"))
        except Exception as error:
            assert file is not None, error
            print(f"{model} {file} {field} = {value}: {type(error).__name__}: {str(error)[:150]}")
            return line


def changes():
    for model, of_head in HEADS.items():
        yield model, {}, [*OF_SPLADE, *((CONFIG, field, value) for field, value in of_head)]
    yield "colbert", {}, OF_COLBERT
    yield "colbert-pylate", {}, OF_PYLATE
    yield "colbert", {"stanford": True, "with": STANFORDS}, OF_STANFORD


def write_modules(out):
    for model, given, these in changes():
        lines = [line_of(model, given), *(line_of(model, given, *this) for this in these)]
        files = {MAIN, OWN, SPLADE, DENSE, MASK, NORMALIZE} if not given else {METADATA}
        for file in sorted(files):
            path = DATA / "tiny" / model / file
            present = given.get("with", {}).get(file) or (json.loads(path.read_text()) if path.is_file() else {})
            lines += [line_of(model, given, file, field, absent=True) for field in present if field not in KEPT]
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def own_code():
    """The module with the formulas."""
    spec = importlib.util.spec_from_file_location("tiny_models", TESTS / "tiny-models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NTK = {"factor": 4.0, "type": "ntk"}
# The field, its value, and names of `tiny-models.py` or fields there that make the formulas compute it: `None` where
# the code has no such model, or the weights lack something.
OF_OWN_CODE = {
    "gte": ("Gte", [
        ("rope_scaling", None, {"rope_scaling": NTK | {"factor": 1.0}}),
        ("rope_scaling", NTK, {"rope_scaling": NTK}),
        ("rope_scaling", NTK | {"mixed_b": 0.5}, {"rope_scaling": NTK | {"mixed_b": 0.5}}),
        ("rope_scaling", {"factor": 4.0, "type": "linear"}, None),
        ("rope_scaling", {"factor": 4.0, "type": "dynamic"}, None),
        ("rope_theta", 300.0, {"rope_theta": 300.0}),
        ("layer_norm_eps", 0.1, {"EPS": 0.1}),
        ("num_hidden_layers", 2, {"LAYERS": 2}),
        ("num_attention_heads", 8, {"HEADS": 8}),
        ("hidden_act", "relu", {"gelu": torch.relu}),
        ("max_position_embeddings", 200, {}),
        ("type_vocab_size", 2, None), ("pack_qkv", False, None), ("layer_norm_type", "rms_norm", None),
        ("logn_attention_scale", True, None), ("position_embedding_type", "absolute", None),
        ("position_embedding_type", "alibi", None),
        *((field, True, {}) for field in (
            "unpad_inputs", "use_memory_efficient_attention", "logn_attention_clip1")),
        ("hidden_dropout_prob", 0.5, {}), ("pad_token_id", 5, {}),
    ]),
    "jina": ("Jina", [
        ("layer_norm_eps", 0.1, {"EPS": 0.1}),
        ("num_hidden_layers", 2, {"LAYERS": 2}),
        ("num_attention_heads", 8, {"HEADS": 8}),
        ("feed_forward_type", "reglu", {"gelu": torch.relu}),
        ("feed_forward_type", "original", None), ("position_embedding_type", "absolute", None),
        ("position_embedding_type", "relative_key", None), ("type_vocab_size", 3, None),
        ("hidden_act", "relu", {}), ("max_position_embeddings", 200, {}), ("emb_pooler", "mean", {}),
        ("attn_implementation", "torch", {}), ("model_max_length", 64, {}), ("pad_token_id", 5, {}),
    ]),
}


def write_own_code(out):
    for model, (name, these) in OF_OWN_CODE.items():
        folder = DATA / "tiny" / model
        weights = {key: weight.float() for key, weight in load_file(folder / "model.safetensors").items()}
        rows = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
        ids = max((row["token_ids"] for row in rows if len(row["token_ids"]) < 120), key=len)
        for field, value, given in [(None, None, {}), *these]:
            line = {"model": model, "base": {}, "token_ids": ids, "type_ids": None, "field": field, "value": value}
            if given is not None:
                code = own_code()
                kind = getattr(code, name)
                for changed, to in given.items():
                    if changed in kind.config:
                        kind.config = kind.config | {changed: to}
                    else:
                        setattr(code, changed, to)
                with torch.inference_mode():
                    values = code.mean(kind, weights, {"text": "", "token_ids": ids})["mean"]
                line["values"] = [round(value, 6) for value in values]
            out.write(json.dumps(line) + "\n")


def main():
    for name, write in [("own-code", write_own_code), ("modules", write_modules)]:
        with open(DATA / "changed" / f"{name}.jsonl", "w", encoding="utf-8") as out:
            write(out)


if __name__ == "__main__":
    main()
