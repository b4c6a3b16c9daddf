#!/usr/bin/env python3
"""Makes files of other formats of the small random models with experts that tiny-decoders.py has made: the same
weights, exactly.

    python3 consumer/engine/tests/expert-files.py

Needs torch, safetensors and gguf (0.19.0 was used).
"""

import json
import pathlib
import shutil

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file

DATA = pathlib.Path(__file__).resolve().parent / "data/tiny"
TABLE = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def blocks(weight):
    """Codes `[..., blocks, 32]` and exponents `[..., blocks]` of values that MXFP4 has, in blocks along the last
    dimension."""
    values = weight.float().view(*weight.shape[:-1], -1, 32)
    codes = torch.zeros(values.shape, dtype=torch.uint8)
    exponents = torch.zeros(values.shape[:-1], dtype=torch.uint8)
    left = torch.ones(values.shape[:-1], dtype=torch.bool)
    for exponent in range(-7, -1):
        parts = (values.abs() / 2.0**exponent)[..., None] == TABLE
        fits = parts.any(-1).all(-1) & left
        found = parts.to(torch.uint8).argmax(-1).to(torch.uint8) | (values.signbit().to(torch.uint8) << 3)
        codes[fits] = found[fits]
        exponents[fits] = 127 + exponent
        left &= ~fits
    assert not left.any(), "values that MXFP4 doesn't have"
    return codes, exponents


def mxfp4_folder():
    """gpt-oss as its checkpoints are: `*_blocks`, two codes a byte, and `*_scales`."""
    source, folder = DATA / "gpt-oss", DATA / "gpt-oss-mxfp4"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if name.endswith(("gate_up_proj", "down_proj")):
            codes, exponents = blocks(tensor.transpose(1, 2).contiguous())
            tensors[f"{name}_blocks"] = codes[..., 0::2] | codes[..., 1::2] << 4
            tensors[f"{name}_scales"] = exponents
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ["tokenizer.json", "generation_config.json", "expected.jsonl"]:
        shutil.copy(source / name, folder / name)


PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_tensors(arch, tensors, config):
    """Names and tensors as llama.cpp's converter names and shapes them."""
    for name, tensor in tensors.items():
        base, _, end = name.rpartition(".")
        if base in WHOLE:
            yield f"{WHOLE[base]}.{end}", tensor
            continue
        _, _, layer, rest = name.split(".", 3)
        part, _, end = rest.rpartition(".")
        if part in PARTS:
            new = "post_attention_norm" if (arch, PARTS[part]) == ("gpt-oss", "ffn_norm") else PARTS[part]
            yield f"blk.{layer}.{new}.{end}", tensor
        elif rest == "self_attn.sinks":
            yield f"blk.{layer}.attn_sinks.weight", tensor
        elif end in ("gate_up_proj", "gate_up_proj_bias"):
            kind = "bias" if end.endswith("bias") else "weight"
            turned = tensor if kind == "bias" else tensor.transpose(1, 2)
            yield f"blk.{layer}.ffn_gate_exps.{kind}", turned[:, 0::2].contiguous()
            yield f"blk.{layer}.ffn_up_exps.{kind}", turned[:, 1::2].contiguous()
        elif end == "down_proj_bias":
            yield f"blk.{layer}.ffn_down_exps.bias", tensor
        elif end == "down_proj":
            yield f"blk.{layer}.ffn_down_exps.weight", tensor.transpose(1, 2).contiguous()
    for layer in range(config["num_hidden_layers"]):
        for part in ["gate", "up", "down"]:
            names = [
                f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
                for expert in range(config["num_local_experts"])
            ]
            if names[0] in tensors:
                yield f"blk.{layer}.ffn_{part}_exps.weight", torch.stack([tensors[name] for name in names])


def add(writer, arch, name, tensor):
    values = tensor.float().numpy()
    if "_exps.weight" in name and arch == "gpt-oss":
        codes, exponents = blocks(tensor)
        halves = codes[..., :16] | codes[..., 16:] << 4
        raw = torch.cat([exponents[..., None], halves], -1).flatten(-2).numpy()
        assert np.array_equal(gguf.dequantize(raw, Kind.MXFP4), values)
        writer.add_tensor(name, raw, raw_dtype=Kind.MXFP4)
    elif tensor.dim() == 1 or name.endswith("bias") or "gate_inp" in name:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, gguf.quantize(values, Kind.BF16), raw_dtype=Kind.BF16)


def gguf_file(family, arch):
    source, folder = DATA / family, DATA / f"{family}-gguf"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    words = json.loads((source / "tokenizer.json").read_text())
    tokens = sorted(words["model"]["vocab"], key=words["model"]["vocab"].get)
    special = [token["content"] for token in words["added_tokens"]]
    writer = gguf.GGUFWriter(folder / "model.gguf", arch)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config.get("moe_intermediate_size", config["intermediate_size"]))
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if arch == "gpt-oss":
        writer.add_sliding_window(config["sliding_window"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + special)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL] * len(special))
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    for name, tensor in gguf_tensors(arch, load_file(source / "model.safetensors"), config):
        add(writer, arch, name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copy(source / "expected.jsonl", folder / "expected.jsonl")


mxfp4_folder()
gguf_file("qwen3-moe", "qwen3moe")
gguf_file("gpt-oss", "gpt-oss")
