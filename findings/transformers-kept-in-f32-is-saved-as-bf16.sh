#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.15.0 (PyPI), DeepSeek V3: the class names the router's `e_score_correction_bias` and
# `gate.weight` among what is kept in f32. Loading with `dtype=torch.bfloat16` keeps them, `model.to(torch.bfloat16)`
# does not, and `save_pretrained` then stores both with 16 bits.
# Guess: what is kept in f32, strictly by its name, stays so on each way to bf16.
# Seen: BF16 in the file; loaded again they are f32 by type, with rounded values, and 30 of 1000 tokens of a small
# random model go to other experts.
# What follows: two bf16 copies of one model answer differently though all of their other weights are equal. Look at
# the type that the file gives for these tensors before you look for a fault of the engine; a converter keeps F32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 # 3 GB, as PyPI's torch brings CUDA.
FOLDER=$folder TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'END'
import json, os, struct
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM as Model

def stored(folder):
    with open(folder + "/model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    bias, weight = ("model.layers.0.mlp.gate." + name for name in ("e_score_correction_bias", "weight"))
    return header[bias]["dtype"], header[weight]["dtype"], header["lm_head.weight"]["dtype"]

sizes = dict(vocab_size=32, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=1)
sizes |= dict(num_attention_heads=2, num_key_value_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8)
sizes |= dict(qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=64, num_experts_per_tok=4, n_group=1, topk_group=1)
original, loaded, moved = (os.environ["FOLDER"] + "/" + name for name in ("original", "loaded", "moved"))
torch.manual_seed(1)
model = Model(DeepseekV3Config(**sizes, first_k_dense_replace=0))
model.model.layers[0].mlp.gate.e_score_correction_bias.uniform_(0, 1)
model.save_pretrained(original)
Model.from_pretrained(original, dtype=torch.bfloat16).save_pretrained(loaded)
Model.from_pretrained(original, dtype=torch.float32).to(torch.bfloat16).save_pretrained(moved)
for folder in (original, loaded, moved):
    print(f"{os.path.basename(folder):8} bias, gate, lm_head: {stored(folder)}")
assert stored(loaded) == ("F32", "F32", "BF16") and stored(moved) == ("BF16",) * 3, "this has changed"

gates = [Model.from_pretrained(folder, dtype=torch.bfloat16).model.layers[0].mlp.gate for folder in (loaded, moved)]
assert all(gate.e_score_correction_bias.dtype == torch.float32 for gate in gates), "this has changed"
x = torch.randn(1, 1000, 32)
experts = [gate(x)[2].sort(-1).values for gate in gates]
differ = (experts[0] != experts[1]).any(-1).sum().item()
print(f"of 1000 tokens, {differ} go to other experts")
assert differ > 0, "this has changed"
END
