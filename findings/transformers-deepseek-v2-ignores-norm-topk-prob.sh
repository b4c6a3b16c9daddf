#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.15.0 (PyPI), DeepSeek V2: the router ignores `norm_topk_prob`. The weights of the
# chosen experts are never divided by their sum.
# Guess: with `true` the weights of a token's experts have a sum of 1 (times `routed_scaling_factor`), as in V3.
# Seen: outputs of one model with `true` and `false` are equal bit by bit in V2, for both ways to choose; not so in V3.
# What follows: for V2 a reference by transformers holds for `false` only. A loader that follows the field differs from
# it on `true`; one that follows transformers should refuse `true` rather than read past it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 # 3 GB, as PyPI's torch brings CUDA.
FOLDER=$folder TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'END'
import torch
from transformers import DeepseekV2Config, DeepseekV2Model, DeepseekV3Config, DeepseekV3Model

sizes = dict(vocab_size=32, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=2)
sizes |= dict(num_attention_heads=2, num_key_value_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8)
sizes |= dict(qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=8, num_experts_per_tok=3, n_group=2, topk_group=1)
sizes |= dict(first_k_dense_replace=0, n_shared_experts=1)

def compare(config, model, **more):
    outputs, sums = [], []
    for norm_topk_prob in (True, False):
        torch.manual_seed(1)
        network = model(config(**sizes, **more, norm_topk_prob=norm_topk_prob)).eval()
        with torch.no_grad():
            outputs.append(network(torch.arange(3, 19)[None])[0])
            weights = network.layers[0].mlp.gate(torch.ones(1, 1, 32))[1]
        sums.append(round(weights.sum().item(), 4))
    same = torch.equal(*outputs)
    print(f"{model.__name__} {more}: sum of a token's weights {sums}, outputs {'equal' if same else 'differ'}")
    return same, sums

for method in ("greedy", "group_limited_greedy"):
    same, sums = compare(DeepseekV2Config, DeepseekV2Model, topk_method=method)
    assert same and sums[0] == sums[1] < 0.9, "this has changed"
same, sums = compare(DeepseekV3Config, DeepseekV3Model, routed_scaling_factor=1.0)
assert not same and sums[0] == 1.0 != sums[1], "this has changed"
END
