#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.15.0 (PyPI), DeepSeek V2 and V3: the two norms inside latent attention,
# `q_a_layernorm` and `kv_a_layernorm`, have an epsilon of 1e-6 whatever `rms_norm_eps` says. All others follow it.
# Guess: one field, one epsilon for all norms of the model.
# Seen: with `rms_norm_eps: 1e-5` a row of 0.001 becomes 0.7071 in `kv_a_layernorm`, 0.3015 in the other norms.
# What follows: weights that were trained by this code expect 1e-6 there. An engine of one's own that hands the field
# to all norms agrees on configurations with 1e-6 only; compare with another value too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 # 3 GB, as PyPI's torch brings CUDA.
FOLDER=$folder TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'END'
import torch
from transformers import DeepseekV2Config, DeepseekV2Model, DeepseekV3Config, DeepseekV3Model

sizes = dict(vocab_size=32, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=1)
sizes |= dict(num_attention_heads=2, num_key_value_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8)
sizes |= dict(qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1)
for config, model in ((DeepseekV2Config, DeepseekV2Model), (DeepseekV3Config, DeepseekV3Model)):
    seen = {}
    for name, module in model(config(**sizes, rms_norm_eps=1e-5)).named_modules():
        if name.endswith("norm"):
            row = torch.full((1, 1, module.weight.numel()), 0.001)
            seen[name.split(".")[-1]] = (module.variance_epsilon, round(module(row).max().item(), 4))
    print(model.__name__, seen)
    inside, other = (1e-6, 0.7071), (1e-5, 0.3015)
    expected = dict(q_a_layernorm=inside, kv_a_layernorm=inside, input_layernorm=other)
    assert seen == expected | dict(post_attention_layernorm=other, norm=other), "this has changed"
END
