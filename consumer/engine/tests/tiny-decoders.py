#!/usr/bin/env python3
"""Makes the small random decoders that the engine's tests hold families against, with the tokens that transformers
generates from them.

    python3 consumer/engine/tests/tiny-decoders.py [FAMILY ...]

Needs torch and transformers (5.24 was used). Every model continues three prompts by its likeliest tokens in f32. Where
two tokens are nearly alike, the order of sums would decide; such models are thrown away and others drawn.
"""

import json
import pathlib
import shutil
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

DATA = pathlib.Path(__file__).resolve().parent / "data/tiny"
VOCABULARY = 288
TOKENS = 64
PROMPTS = [5, 41, 100]
GAP_MIN = 2e-3

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
    "initializer_range": 0.25,
}

FAMILIES = {
    # Llama 3.x: frequencies scaled by wave length, an own head size, a head of its own.
    "llama": {
        "model_type": "llama",
        "head_dim": 16,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    # SmolLM2: a Llama of odd sizes whose head is its table of words.
    "smollm2": {
        "model_type": "llama",
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    # SmolLM3: no positions in every second layer.
    "smollm3": {
        "model_type": "smollm3",
        "no_rope_layer_interval": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0},
    },
    # Mistral: a window in every layer, heads that are not hidden / heads.
    "mistral": {
        "model_type": "mistral",
        "head_dim": 24,
        "sliding_window": 37,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    # Qwen2.5: biases of queries, keys and values; windows in the upper layers.
    "qwen2": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 33,
        "max_window_layers": 2,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    # Qwen3: norms of queries and keys, and YaRN as its documentation has it for long texts.
    "qwen3": {
        "model_type": "qwen3",
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    # Gemma 3: norms around each half, two bases, windows, scaled words.
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "num_key_value_heads": 1,
        "num_hidden_layers": 6,
        "sliding_window": 30,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 40,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    # Phi-4-mini: fused projections, three quarters of a head turn, LongRoPE.
    "phi3": {
        "model_type": "phi3",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "sliding_window": 120,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.7],
            "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
        },
    },
}

# Qwen3-MoE: experts in all layers but one, of which a token takes three, weighed by a softmax over all.
FAMILIES["qwen3-moe"] = {
    "model_type": "qwen3_moe",
    "hidden_size": 32,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "mlp_only_layers": [1],
    "norm_topk_prob": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}

# gpt-oss: sinks, biases, windows in every second layer, YaRN on parts of pairs, bounds within the experts. Experts'
# weights are such that blocks of MXFP4 hold them.
FAMILIES["gpt-oss"] = {
    "model_type": "gpt_oss",
    "hidden_size": 32,
    "intermediate_size": 32,
    "head_dim": 16,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "sliding_window": 25,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 8.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
    },
}

# DeepSeek V3: latent attention with low-rank queries, YaRN whose amplitude is that of scores, experts in groups behind
# a dense layer.
FAMILIES["deepseek3"] = {
    "model_type": "deepseek_v3",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 40,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 20,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 24,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 64,
    },
}

# DeepSeek V2 Lite: whole queries, a softmax over all experts, two shared ones.
FAMILIES["deepseek2"] = {
    **FAMILIES["deepseek3"],
    "model_type": "deepseek_v2",
    "q_lora_rank": None,
    "n_group": None,
    "topk_group": None,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": False,
}

# GLM-4.7-Flash: as DeepSeek V3, experts in one group, no scaling of frequencies.
FAMILIES["glm4-lite"] = {
    **{field: value for field, value in FAMILIES["deepseek3"].items() if field != "first_k_dense_replace"},
    "model_type": "glm4_moe_lite",
    "n_group": 1,
    "topk_group": 1,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}

# The same beyond its trained length, where the other factors are right from the first token on.
FAMILIES["phi3-long"] = {**FAMILIES["phi3"], "original_max_position_embeddings": 32}


def byte_level():
    """A tokenizer that takes every byte for a token: its 256 characters in GPT-2's order, then the special ones."""
    bs = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    cs = bs[:]
    for byte in range(256):
        if byte not in bs:
            bs.append(byte)
            cs.append(256 + len(bs) - 189)
    characters = {byte: chr(c) for byte, c in zip(bs, cs)}
    special = [
        {"id": 256 + n, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for n, text in enumerate(["<|begin|>", "<|end|>"])
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {characters[byte]: byte for byte in range(256)}, "merges": [],
        },
    }


def of_blocks(tensor, exponents):
    """Random values that MXFP4 has, in blocks of 32 along the inputs, which are the second of three dimensions."""
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    experts, inputs, outputs = tensor.shape
    scales = torch.randint(*exponents, (experts, inputs // 32, 1, outputs)).float().exp2()
    signs = torch.randint(0, 2, tensor.shape) * 2 - 1
    values = table[torch.randint(0, 8, tensor.shape)] * signs
    return (values.view(experts, inputs // 32, 32, outputs) * scales).view(tensor.shape)


def draw(config, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.add_(torch.randn_like(tensor) * 0.3)
            elif name.endswith("bias"):
                tensor.copy_(torch.randn_like(tensor) * 0.5)
            elif name.endswith("sinks"):
                tensor.copy_(torch.randn_like(tensor))
            elif "experts" in name and config.model_type == "gpt_oss":
                # Some of what goes into a gate is beyond its bounds.
                tensor.copy_(of_blocks(tensor, (-4, -1) if "gate_up" in name else (-7, -4)))
            elif "embed_tokens" in name and config.model_type == "gemma3_text":
                # They are multiplied by the root of the hidden size, and are the head too: the likeliest token would
                # always be the last one again.
                tensor.mul_(0.2)
        for name, tensor in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                tensor.copy_((torch.randn_like(tensor) * 0.1).to(torch.bfloat16))
        # As it is stored.
        for tensor in model.parameters():
            tensor.copy_(tensor.to(torch.bfloat16))
    return model


@torch.no_grad()
def continued(model, prompt):
    """The tokens and their log-probabilities; `None` where two tokens are nearly alike."""
    ids = list(prompt)
    logprobs = []
    for _ in range(TOKENS):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = logits.topk(2).values
        if best[0] - best[1] < GAP_MIN:
            return None
        token = int(logits.argmax())
        logprobs.append(float(torch.log_softmax(logits.double(), -1)[token]))
        ids.append(token)
    return ids[len(prompt):], logprobs


def make(family):
    config = AutoConfig.for_model(**{**COMMON, **FAMILIES[family]})
    for seed in range(1000):
        model = draw(config, seed)
        generator = torch.Generator().manual_seed(seed)
        lines = []
        for length in [41, 70, 100] if family == "phi3-long" else PROMPTS:
            prompt = torch.randint(0, 256, (length,), generator=generator).tolist()
            found = continued(model, prompt)
            # A model that repeats itself shows little.
            if found is None or len(set(found[0])) < 12:
                break
            lines.append({"prompt": prompt, "tokens": found[0], "logprobs": [round(p, 6) for p in found[1]]})
        if len(lines) == len(PROMPTS):
            break
    else:
        sys.exit(f"{family}: no model whose tokens are certain")
    folder = DATA / family
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(byte_level(), ensure_ascii=False) + "\n")
    (folder / "expected.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(family, "seed", seed, [len(set(line["tokens"])) for line in lines])


for family in sys.argv[1:] or FAMILIES:
    make(family)
