#!/usr/bin/env python3
"""Makes the small random models that the engine's tests hold families against, with the values that PyTorch computes.

    python3 consumer/engine/tests/tiny-models.py nomic jina gte gte-rerank

Needs torch and safetensors. Nomic's, Jina's and GTE's encoders come with code of their own instead of with
transformers, so their formulas are written out here, plainly, one sequence at a time: hidden states are never packed,
nothing is fused. The tokenizer and the texts are those of the small BERT beside them.
"""

import argparse
import json
import math
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from torch.nn.functional import gelu, layer_norm, linear, normalize, silu, softmax

DATA = pathlib.Path(__file__).resolve().parent / "data/tiny"
VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, POSITIONS = 2000, 64, 128, 3, 4, 130
EPS = 1e-12


def attention(qkv, bias, rotate):
    """[tokens, 3 * hidden] to [tokens, hidden]: bidirectional, all heads."""
    tokens = qkv.shape[0]
    q, k, v = qkv.view(tokens, 3, HEADS, HIDDEN // HEADS).permute(1, 2, 0, 3)
    if rotate is not None:
        q, k = rotate(q), rotate(k)
    scores = q @ k.transpose(-1, -2) / math.sqrt(HIDDEN // HEADS)
    if bias is not None:
        scores = scores + bias
    return (softmax(scores, -1) @ v).permute(1, 0, 2).reshape(tokens, HIDDEN)


def rotation(tokens, base, divisors=1.0):
    """Turns the first half of each head against the second, by position; `divisors` slow the pairs down."""
    half = HIDDEN // HEADS // 2
    angles = torch.arange(tokens)[:, None] / base ** (torch.arange(half) / half) / divisors
    cos, sin = angles.cos(), angles.sin()

    def rotate(x):
        a, b = x.split(half, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    return rotate


def alibi(tokens):
    """[heads, tokens, tokens]: minus the distance times the head's slope. Heads are a power of two."""
    slopes = torch.tensor([2 ** (-8 * (head + 1) / HEADS) for head in range(HEADS)])
    positions = torch.arange(tokens)
    return -slopes[:, None, None] * (positions[None, :] - positions[:, None]).abs()


class Nomic:
    config = {
        "model_type": "nomic_bert",
        "architectures": ["NomicBertModel"],
        "vocab_size": VOCABULARY,
        "n_embd": HIDDEN,
        "n_inner": INNER,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_positions": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_epsilon": EPS,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "prenorm": False,
        "activation_function": "swiglu",
    }

    @staticmethod
    def shapes():
        yield "embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)
        yield "embeddings.token_type_embeddings.weight", (2, HIDDEN)
        yield from norm("emb_ln")
        for index in range(LAYERS):
            layer = f"encoder.layers.{index}"
            yield f"{layer}.attn.Wqkv.weight", (3 * HIDDEN, HIDDEN)
            yield f"{layer}.attn.out_proj.weight", (HIDDEN, HIDDEN)
            yield f"{layer}.mlp.fc11.weight", (INNER, HIDDEN)
            yield f"{layer}.mlp.fc12.weight", (INNER, HIDDEN)
            yield f"{layer}.mlp.fc2.weight", (HIDDEN, INNER)
            yield from norm(f"{layer}.norm1")
            yield from norm(f"{layer}.norm2")

    @staticmethod
    def forward(w, ids, types):
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = apply_norm(w, "emb_ln", x)
        rotate = rotation(len(ids), 1000.0)
        for index in range(LAYERS):
            layer = f"encoder.layers.{index}"
            context = attention(linear(x, w[f"{layer}.attn.Wqkv.weight"]), None, rotate)
            x = apply_norm(w, f"{layer}.norm1", linear(context, w[f"{layer}.attn.out_proj.weight"]) + x)
            gate = silu(linear(x, w[f"{layer}.mlp.fc12.weight"]))
            inner = linear(x, w[f"{layer}.mlp.fc11.weight"]) * gate
            x = apply_norm(w, f"{layer}.norm2", linear(inner, w[f"{layer}.mlp.fc2.weight"]) + x)
        return x


class Jina:
    config = {
        "model_type": "bert",
        "architectures": ["JinaBertForMaskedLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": EPS,
        "hidden_act": "gelu",
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
    }

    @staticmethod
    def shapes():
        yield "embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)
        yield "embeddings.token_type_embeddings.weight", (2, HIDDEN)
        yield from norm("embeddings.LayerNorm")
        for index in range(LAYERS):
            layer = f"encoder.layer.{index}"
            for role in ("query", "key", "value"):
                yield f"{layer}.attention.self.{role}.weight", (HIDDEN, HIDDEN)
                yield f"{layer}.attention.self.{role}.bias", (HIDDEN,)
            yield f"{layer}.attention.output.dense.weight", (HIDDEN, HIDDEN)
            yield f"{layer}.attention.output.dense.bias", (HIDDEN,)
            yield from norm(f"{layer}.attention.output.LayerNorm")
            yield f"{layer}.mlp.gated_layers.weight", (2 * INNER, HIDDEN)
            yield f"{layer}.mlp.wo.weight", (HIDDEN, INNER)
            yield f"{layer}.mlp.wo.bias", (HIDDEN,)
            yield from norm(f"{layer}.mlp.layernorm")

    @staticmethod
    def forward(w, ids, types):
        def dense(name, x):
            return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = apply_norm(w, "embeddings.LayerNorm", x)
        for index in range(LAYERS):
            layer = f"encoder.layer.{index}"
            roles = [dense(f"{layer}.attention.self.{role}", x) for role in ("query", "key", "value")]
            context = attention(torch.cat(roles, -1), alibi(len(ids)), None)
            projected = dense(f"{layer}.attention.output.dense", context)
            x = apply_norm(w, f"{layer}.attention.output.LayerNorm", projected + x)
            gated, other = dense(f"{layer}.mlp.gated_layers", x).split(INNER, -1)
            x = apply_norm(w, f"{layer}.mlp.layernorm", dense(f"{layer}.mlp.wo", gelu(gated) * other) + x)
        return x


class Gte:
    """`NewModel`. Its rotary frequencies are scaled ("ntk") for positions up to `factor` times the configured ones."""

    prefix = ""
    config = {
        "model_type": "new",
        "architectures": ["NewModel"],
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 0,
        "layer_norm_type": "layer_norm",
        "layer_norm_eps": EPS,
        "hidden_act": "gelu",
        "position_embedding_type": "rope",
        "rope_theta": 500.0,
        "rope_scaling": {"factor": 2.0, "type": "ntk"},
        "pack_qkv": True,
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
        "logn_attention_scale": False,
        "logn_attention_clip1": False,
    }

    @classmethod
    def shapes(cls):
        def biased(name, outputs, inputs):
            yield f"{name}.weight", (outputs, inputs)
            yield f"{name}.bias", (outputs,)

        yield f"{cls.prefix}embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)
        if cls.config["type_vocab_size"]:
            yield f"{cls.prefix}embeddings.token_type_embeddings.weight", (cls.config["type_vocab_size"], HIDDEN)
        yield from norm(f"{cls.prefix}embeddings.LayerNorm")
        for index in range(LAYERS):
            layer = f"{cls.prefix}encoder.layer.{index}"
            if cls.config["pack_qkv"]:
                yield from biased(f"{layer}.attention.qkv_proj", 3 * HIDDEN, HIDDEN)
            else:
                for role in "qkv":
                    yield from biased(f"{layer}.attention.{role}_proj", HIDDEN, HIDDEN)
            yield from biased(f"{layer}.attention.o_proj", HIDDEN, HIDDEN)
            yield from norm(f"{layer}.attn_ln")
            yield f"{layer}.mlp.up_gate_proj.weight", (2 * INNER, HIDDEN)
            yield from biased(f"{layer}.mlp.down_proj", HIDDEN, INNER)
            yield from norm(f"{layer}.mlp_ln")

    @classmethod
    def rotate(cls, tokens):
        half = HIDDEN // HEADS // 2
        scaling, base = cls.config["rope_scaling"], cls.config["rope_theta"]
        factor, power = scaling["factor"], scaling.get("mixed_b")
        if power is None:
            return rotation(tokens, base * factor, factor ** (1 / half))
        a = math.log(factor) / half**power
        return rotation(tokens, base, (a * torch.arange(1, half + 1) ** power).exp())

    @classmethod
    def forward(cls, w, ids, types):
        def dense(name, x):
            return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

        x = w[f"{cls.prefix}embeddings.word_embeddings.weight"][ids]
        if cls.config["type_vocab_size"]:
            x = x + w[f"{cls.prefix}embeddings.token_type_embeddings.weight"][types]
        x = apply_norm(w, f"{cls.prefix}embeddings.LayerNorm", x)
        rotate = cls.rotate(len(ids))
        for index in range(LAYERS):
            layer = f"{cls.prefix}encoder.layer.{index}"
            packed = cls.config["pack_qkv"]
            names = ["qkv_proj"] if packed else ["q_proj", "k_proj", "v_proj"]
            qkv = torch.cat([dense(f"{layer}.attention.{name}", x) for name in names], -1)
            projected = dense(f"{layer}.attention.o_proj", attention(qkv, None, rotate))
            x = apply_norm(w, f"{layer}.attn_ln", x + projected)
            up, gate = dense(f"{layer}.mlp.up_gate_proj", x).split(INNER, -1)
            x = apply_norm(w, f"{layer}.mlp_ln", x + dense(f"{layer}.mlp.down_proj", gelu(gate) * up))
        return x


class GteRerank(Gte):
    """`NewForSequenceClassification` of one label: a pooler of the first token, and a linear layer."""

    prefix = "new."
    config = Gte.config | {
        "architectures": ["NewForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "type_vocab_size": 2,
        "rope_scaling": {"factor": 8.0, "type": "ntk", "mixed_b": 0.7},
        "pack_qkv": False,
    }

    @classmethod
    def shapes(cls):
        yield from super().shapes()
        for name, outputs in (("new.pooler.dense", HIDDEN), ("classifier", 1)):
            yield f"{name}.weight", (outputs, HIDDEN)
            yield f"{name}.bias", (outputs,)

    @staticmethod
    def logits(w, hidden):
        pooled = linear(hidden[0], w["new.pooler.dense.weight"], w["new.pooler.dense.bias"]).tanh()
        return linear(pooled, w["classifier.weight"], w["classifier.bias"])


def norm(name):
    yield f"{name}.weight", (HIDDEN,)
    yield f"{name}.bias", (HIDDEN,)


def apply_norm(w, name, x):
    return layer_norm(x, (HIDDEN,), w[f"{name}.weight"], w[f"{name}.bias"], EPS)


def random_weights(model, seed):
    """Norms near 1 and 0, the rest with the spread that keeps a layer's outputs near its inputs' size."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in model.shapes():
        noise = torch.randn(shape, generator=generator)
        is_norm = any(part in name for part in ("norm", "Norm", "emb_ln", "attn_ln", "mlp_ln"))
        if is_norm:
            weights[name] = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
        else:
            weights[name] = noise * (1.0 / math.sqrt(shape[-1]) if len(shape) == 2 else 0.1)
    return weights


def make(name, model, seed):
    folder, bert = DATA / name, DATA / "bert"
    folder.mkdir(exist_ok=True)
    # Kept in bf16, as published models often are; computed with in f32.
    kept = {name: weight.bfloat16() for name, weight in random_weights(model, seed).items()}
    save_file(kept, folder / "model.safetensors")
    weights = {name: weight.float() for name, weight in kept.items()}
    (folder / "config.json").write_text(json.dumps(model.config, indent=2) + "\n")
    if hasattr(model, "logits"):
        shutil.copy(bert / "tokenizer.json", folder / "tokenizer.json")
        write_rows(DATA / "bert-rerank", folder, lambda row: logits(model, weights, row))
        return
    for file in ("tokenizer.json", "modules.json", "sentence_bert_config.json"):
        shutil.copy(bert / file, folder / file)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    shutil.copy(bert / "1_Pooling/config.json", folder / "1_Pooling/config.json")
    write_rows(bert, folder, lambda row: mean(model, weights, row))


def write_rows(of, folder, expected):
    """The rows of another model's reference, with this one's values."""
    with open(of / "expected.jsonl", encoding="utf-8") as rows, open(
        folder / "expected.jsonl", "w", encoding="utf-8"
    ) as out:
        for row in map(json.loads, rows):
            with torch.inference_mode():
                line = expected(row)
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def mean(model, weights, row):
    ids = torch.tensor(row["token_ids"])
    hidden = model.forward(weights, ids, torch.zeros_like(ids))
    values = [round(value, 7) for value in normalize(hidden.mean(0), dim=0).tolist()]
    return {"text": row["text"], "token_ids": row["token_ids"], "mean": values}


def logits(model, weights, row):
    hidden = model.forward(weights, torch.tensor(row["token_ids"]), torch.tensor(row["type_ids"]))
    values = [round(value, 7) for value in model.logits(weights, hidden).tolist()]
    return row | {"logits": values}


def main():
    models = {"nomic": (Nomic, 11), "jina": (Jina, 12), "gte": (Gte, 13), "gte-rerank": (GteRerank, 14)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=models)
    for name in parser.parse_args().names:
        make(name, *models[name])


if __name__ == "__main__":
    main()
