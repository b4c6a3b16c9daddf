#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.15.0 (PyPI): `sliding_window` of a model without a causal mask is counted in two
# ways. With `is_causal: false` (Qwen2, Mistral) a token sees that many on each side; in Gemma 3 with
# `use_bidirectional_attention` it sees half as many.
# Guess: one field, one meaning, or a window that keeps its width when the causal mask goes.
# Seen: a window of 8 is 7 tokens before and 0 after with the causal mask of each; 8 and 8 for Qwen2 and Mistral
# without it; 4 and 4 for Gemma 3, where 9 gives the same as 8.
# What follows: an embedder of a decoder's layers needs the rule of its family, and a test needs texts that are longer
# than the window, with a token at its very edge.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 # 3 GB, as PyPI's torch brings CUDA.
FOLDER=$folder TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'END'
import torch
from transformers import Gemma3TextConfig, Gemma3TextModel, MistralConfig, MistralModel, Qwen2Config, Qwen2Model

sizes = dict(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
sizes |= dict(num_key_value_heads=2, head_dim=16, layer_types=["sliding_attention"], pad_token_id=0)
more = dict(use_sliding_window=True, max_window_layers=0)
families = {"Qwen2": (Qwen2Config, Qwen2Model, more, {"is_causal": False})}
families["Mistral"] = (MistralConfig, MistralModel, {}, {"is_causal": False})
families["Gemma 3"] = (Gemma3TextConfig, Gemma3TextModel, {}, {"use_bidirectional_attention": True})
seen = {}
for name, (config, model, more, without) in families.items():
    for window in (8, 9):
        for causal in (True, False):
            torch.manual_seed(1)
            chosen = sizes | more | dict(sliding_window=window) | ({} if causal else without)
            network = model(config(**chosen)).eval()
            # Which tokens of 40 the one at 20 sees: those on which its output depends.
            x = torch.randn(1, 40, 32, requires_grad=True)
            network(inputs_embeds=x)[0][0, 20, 0].backward()
            sees = x.grad[0].abs().amax(-1).nonzero().flatten()
            assert len(sees) == sees.max() - sees.min() + 1, "the window has gaps"
            seen[name, window, causal] = (20 - sees.min().item(), sees.max().item() - 20)
            before, after = seen[name, window, causal]
            print(f"{name:8} window {window} {'causal' if causal else 'both sides':10}: {before} before, {after} after")
for window in (8, 9):
    for name in families:
        assert seen[name, window, True] == (window - 1, 0), "this has changed"
        both = 4 if name == "Gemma 3" else window
        assert seen[name, window, False] == (both, both), "this has changed"
END
