#!/usr/bin/env python3
"""Writes what the libraries compute after one field of a model's files is changed: `data/changed/*.jsonl`.

    pip install torch==2.8.0 transformers==5.24.0 sentence-transformers==6.2.0
    python3 consumer/engine/tests/changed-fields.py

A line of `fields.jsonl` is a change of a field of one of the small models in `data/tiny`:

- `model`: its folder; `base`: fields that replace those of its `config.json` before the change (`null` removes one)
- `field`, `value`: the change; a field that is `absent` is removed
- `token_ids`: the sequence; `type_ids` of a pair
- `values`: the mean of the last hidden states divided by its norm, or the logits of a classifier; `same` where they are
  those of the model as it was; absent where transformers can't load it, or the weights lack something

A line of `folders.jsonl` is a set of files (`files`, and `dense`: sizes of a linear layer made of sines) that make a
folder of sentence-transformers of the small BERT, and the vector of `text`.
"""

import json
import math
import os
import pathlib
import shutil
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file

DATA = pathlib.Path(__file__).resolve().parent / "data"
TINY = DATA / "tiny"
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

# The model of each family, and the fields that make it the family's own configuration where that is another one.
NOMIC = {
    "n_embd": None, "n_inner": None, "n_layer": None, "n_head": None, "n_positions": None, "prenorm": None,
    "layer_norm_epsilon": None, "rotary_emb_base": None, "rotary_emb_fraction": None, "rotary_emb_interleaved": None,
    "activation_function": None, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 130, "layer_norm_eps": 1e-12, "hidden_act": "silu",
}
HEAD_OF_NOMIC = 16
# As transformers writes it: the code on the hub has other fields, and scales rotations.
GTE = {
    "model_type": "gte", "rope_scaling": None, "layer_norm_type": None, "pack_qkv": None, "unpad_inputs": None,
    "position_embedding_type": None, "use_memory_efficient_attention": None, "logn_attention_scale": None,
    "logn_attention_clip1": None,
}
CAMEMBERT = {"model_type": "camembert", "architectures": ["CamembertForSequenceClassification"]}
MODELS = [
    ("bert", {}), ("distilbert", {}), ("mpnet", {}), ("modernbert", {}), ("nomic", NOMIC),
    ("bert-rerank", {}), ("roberta-classify", {}), ("xlm-roberta-rerank", {}), ("deberta-v2-rerank", {}),
    ("gte", GTE | {"architectures": ["GteModel"]}),
    ("roberta-classify", CAMEMBERT), ("xlm-roberta", {}),
]

# Other legal values of fields, where a rule by type doesn't give one. Each is tried.
VALUES = {
    "hidden_act": ["relu", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "silu", "quick_gelu"],
    "hidden_activation": ["relu", "gelu_new", "silu"],
    "activation": ["relu", "gelu_new", "gelu_python"],
    "classifier_activation": ["relu", "silu"],
    "pooler_hidden_act": ["tanh", "relu"],
    "classifier_pooling": ["mean"],
    "problem_type": ["regression", "single_label_classification", "multi_label_classification"],
    "layer_types": "layer_types",
    "rope_parameters": "rope_parameters",
    "global_attn_every_n_layers": [2, 5],
    "global_rope_theta": [1000.0],
    "local_rope_theta": [500.0],
    "rope_theta": [500.0],
    "rope_scaling": [{"type": "linear", "factor": 2.0}, {"type": "ntk", "factor": 2.0}],
    "local_attention": [8],
    "pos_att_type": [["c2p"], ["p2c"], "c2p|p2c", []],
    "norm_rel_ebd": ["none", "layer_norm"],
    "position_buckets": [-1, 8],
    "max_relative_positions": [64],
    "relative_attention_num_buckets": [16, 64],
    "position_embedding_type": ["absolute", "relative_key"],
    "num_hidden_layers": [2, 4],
    "n_layers": [1, 7],
    "num_attention_heads": [1, 8, 3],
    "n_heads": [1, 8, 3],
    "layer_norm_eps": [0.1],
    "norm_eps": [0.1],
    "pad_token_id": [0, 5, 1],
    "attention_probs_dropout_prob": [0.5],
    "num_labels": [1, 5],
    "id2label": [{"0": "a"}, {"0": 0, "1": 1, "2": 2}],
    "architectures": [None],
    "pruned_heads": [{}],
    "is_decoder": [True],
    "add_cross_attention": [True],
    "head_dim": [8],
}
# Fields that no present configuration lists and files of earlier libraries have.
EARLIER = {
    "modernbert": ["global_attn_every_n_layers", "global_rope_theta", "local_rope_theta", "rope_parameters"],
    "nomic": ["rope_theta", "rope_parameters"],
    "bert": ["position_embedding_type", "pruned_heads"],
    "deberta-v2-rerank": ["norm_rel_ebd", "position_buckets", "share_att_key", "conv_kernel_size"],
    "roberta-classify": ["position_embedding_type", "num_labels", "id2label"],
    "gte": ["rope_theta", "rope_parameters", "rope_scaling"],
    "xlm-roberta-rerank": ["num_labels"],
}
# Names, paths and things that say nothing of the computation. The number type is each worker's choice.
NOT_TRIED = {
    "dtype", "torch_dtype",
    "model_type", "transformers_version", "_name_or_path", "auto_map", "task_specific_params", "tokenizer_class",
    "label2id", "return_dict", "output_hidden_states", "output_attentions", "torchscript", "name_or_path",
}


def others(field, value, config):
    if field == "layer_types":
        count = config["num_hidden_layers"]
        return [["full_attention"] * count, ["sliding_attention"] * count, ["full_attention"]]
    if field == "rope_parameters":
        plain = {"rope_type": "default", "rope_theta": 700.0}
        if config["model_type"] != "modernbert":
            linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 700.0}
            return [plain, linear]
        local = {**plain, "rope_theta": 300.0}
        return [{"full_attention": plain, "sliding_attention": local}, {"full_attention": plain}]
    if field in VALUES:
        return VALUES[field]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2]
    if isinstance(value, float):
        return [value + 0.25]
    return []


def compute(config, folder, ids, types):
    """The model's values; `None` where it can't be loaded whole."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / "model.safetensors", copy)
        (pathlib.Path(copy) / "config.json").write_text(json.dumps(config))
        classes = config.get("architectures") or [""]
        scores = classes[0].endswith("ForSequenceClassification")
        auto = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModel
        try:
            model, info = auto.from_pretrained(copy, output_loading_info=True, attn_implementation="eager")
            missing = [name for name in info["missing_keys"] if "pooler" not in name or scores]
            if missing or info["mismatched_keys"]:
                return None
            given = {"input_ids": torch.tensor([ids])}
            if types is not None and config["model_type"] not in ("roberta", "xlm-roberta"):
                given["token_type_ids"] = torch.tensor([types])
            with torch.inference_mode():
                out = model.float().eval()(**given)
        except Exception:
            return None
        vector = out.logits[0] if scores else torch.nn.functional.normalize(out.last_hidden_state[0].mean(0), dim=0)
        return None if vector.isnan().any() else [round(value, 6) for value in vector.tolist()]


def write_fields(out):
    for name, base in MODELS:
        folder = TINY / name
        config = {**json.loads((folder / "config.json").read_text()), **base}
        config = {key: value for key, value in config.items() if value is not None or key not in base}
        rows = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
        row = max((row for row in rows if len(row["token_ids"]) < 120), key=lambda row: len(row["token_ids"]))
        ids, types = row["token_ids"], row.get("type_ids")
        line = {"model": name, "base": base, "token_ids": ids, "type_ids": types}
        before = compute(config, folder, ids, types)
        assert before is not None, name
        out.write(json.dumps({**line, "field": None, "values": before}) + "\n")
        if "roberta" in name or name == "mpnet":
            padded = [*ids[:3], 1, *ids[3:8], 1, 1, *ids[8:12], ids[-1]]
            values = compute(config, folder, padded, None)
            given = {**line, "token_ids": padded, "type_ids": None, "field": None}
            out.write(json.dumps({**given, "values": values}) + "\n")
        full = {**transformers.AutoConfig.for_model(**config).to_dict(), **config}
        fields = [*sorted(full), *(field for field in EARLIER.get(name, []) if field not in full)]
        for field in fields:
            if field in NOT_TRIED:
                continue
            changes = [{"value": value} for value in others(field, full.get(field), config)]
            if field in config and field not in base:
                changes += [{"value": None}, {"absent": True}]
            for change in changes:
                if not change.get("absent") and field in config and change["value"] == config[field]:
                    continue
                changed = {**config, field: change.get("value")}
                if change.get("absent"):
                    del changed[field]
                values = compute(changed, folder, ids, types)
                # Not a legal value; ModernBERT's default is a token that the small model hasn't got.
                if values is None and not change.get("absent") and change["value"] is None and field != "pad_token_id":
                    continue
                if values is None and (name, field) == ("modernbert", "pad_token_id"):
                    continue
                result = {"same": True} if values == before else {} if values is None else {"values": values}
                short = {"model": name, "field": field, **change, **result}
                out.write(json.dumps(short) + "\n")


def write_nomic_of_hub(out):
    """Nomic's configuration in the words of its own code: what transformers computes for the same settings."""
    folder = TINY / "nomic"
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in NOMIC}
    config.update({key: value for key, value in NOMIC.items() if value})
    rows = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
    ids = max((row["token_ids"] for row in rows), key=len)
    base = {"max_trained_positions": 16}

    def line(field, value, theta):
        changed = {**config, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
        values = {"values": compute(changed, folder, ids, None)} if theta else {}
        shape = {"model": "nomic", "base": base, "token_ids": ids, "type_ids": None}
        out.write(json.dumps({**shape, "field": field, "value": value, **values}) + "\n")

    line(None, None, 1000.0)
    line("rotary_scaling_factor", None, 1000.0)
    line("rotary_emb_base", 300, 300.0)
    head = HEAD_OF_NOMIC
    line("rotary_scaling_factor", 2.0, 1000.0 * (2.0 * len(ids) / 16 - 1.0) ** (head / (head - 2)))
    # Its own code computes others, which the engine has to refuse.
    for field in ["prenorm", "causal", "parallel_block", "qkv_proj_bias", "mlp_fc1_bias", "rotary_emb_interleaved"]:
        line(field, True, None)
    line("rotary_emb_fraction", 0.5, None)
    line("activation_function", "gelu", None)
    line("rotary_emb_scale_base", 512, None)
    line("moe_every_n_layers", 2, None)


POOLING = {"embedding_dimension": 64, "include_prompt": True}
LONG = " ".join(f"word{index} of a text that is too long" for index in range(40))


def folders():
    one = "Library for decoding and encoding audio files"
    modes = ["cls", "max", "mean", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]
    for mode in [*modes, ["mean", "max"], ["lasttoken", "weightedmean", "mean_sqrt_len_tokens"]]:
        yield {"files": {"1_Pooling/config.json": {**POOLING, "pooling_mode": mode}}, "text": one}
    switches = {"word_embedding_dimension": 64, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    yield {"files": {"1_Pooling/config.json": switches}, "text": one}
    switches = {"word_embedding_dimension": 64, "pooling_mode_cls_token": True}
    yield {"files": {"1_Pooling/config.json": switches}, "text": one}
    yield {"files": {"tokenizer_config.json": {"truncation_side": "left", "model_max_length": 24}}, "text": LONG}
    yield {"files": {"tokenizer_config.json": {"model_max_length": 24}}, "text": LONG}
    for family in ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"]:
        yield {"files": {f"sentence_{family}_config.json": {"max_seq_length": 12}}, "text": LONG}
    names = ["sentence_roberta_config.json", "sentence_xlnet_config.json"]
    both = {name: {"max_seq_length": 12 + 8 * index} for index, name in enumerate(names)}
    yield {"files": both, "text": LONG}
    for path in ["config_sentence_transformers.json"]:
        prompts = {"prompts": {"query": "query: ", "document": None}, "default_prompt_name": "query"}
        yield {"files": {path: prompts}, "text": one}
    for activation in ["Tanh", "ReLU", "GELU", "SiLU"]:
        config = {"bias": True, "activation_function": f"torch.nn.modules.activation.{activation}"}
        yield {"dense": [64, 24], "files": {"2_Dense/config.json": config}, "text": one}
    identity = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
    yield {"dense": [64, 80], "normalize_first": True, "files": {"2_Dense/config.json": identity}, "text": one}


def sines(rows, columns):
    return torch.tensor([[math.sin(row * columns + column + 1) for column in range(columns)] for row in range(rows)])


def write_folders(out):
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
    for case in folders():
        with tempfile.TemporaryDirectory() as copy:
            folder = pathlib.Path(copy)
            for file in ("config.json", "model.safetensors", "tokenizer.json"):
                shutil.copy(TINY / "bert" / file, folder)
            tokens = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
            files = {"1_Pooling/config.json": {**POOLING, "pooling_mode": "mean"}, **case["files"]}
            tokens["tokenizer_class"] = "PreTrainedTokenizerFast"
            files["tokenizer_config.json"] = {**files.get("tokenizer_config.json", {}), **tokens}
            order = ["Transformer", "Pooling"]
            if "dense" in case:
                order += ["Normalize", "Dense"] if case.get("normalize_first") else ["Dense"]
                inputs, outputs = case["dense"]
                sizes = {"in_features": inputs, "out_features": outputs}
                files["2_Dense/config.json"] = {**files["2_Dense/config.json"], **sizes}
                weights = {"linear.weight": sines(outputs, inputs)}
                if files["2_Dense/config.json"]["bias"]:
                    weights["linear.bias"] = sines(1, outputs)[0].clone()
                (folder / "2_Dense").mkdir()
                save_file(weights, folder / "2_Dense/model.safetensors")
            files["modules.json"] = [
                {"idx": index, "name": str(index), "path": kinds[kind], "type": f"sentence_transformers.models.{kind}"}
                for index, kind in enumerate(order)
            ]
            for path, content in files.items():
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_text(json.dumps(content))
            model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
            values = model.encode(case["text"], normalize_embeddings=True, show_progress_bar=False)
            values = [round(value, 6) for value in values.tolist()]
            line = {"files": files, "dense": case.get("dense"), "text": case["text"], "values": values}
            out.write(json.dumps(line) + "\n")


def main():
    (DATA / "changed").mkdir(exist_ok=True)
    for name, write in [("fields", write_fields), ("nomic", write_nomic_of_hub), ("folders", write_folders)]:
        with open(DATA / "changed" / f"{name}.jsonl", "w", encoding="utf-8") as out:
            write(out)


if __name__ == "__main__":
    main()
