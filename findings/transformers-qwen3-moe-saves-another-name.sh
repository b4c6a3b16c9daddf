#!/usr/bin/env bash
# transformers 5.24.0 (PyPI): a configuration of Qwen3 MoE that says `num_experts`, as the published ones do, is saved
# with `num_local_experts` in its stead. Loading takes both names, saving writes the new one only.
# Guess: a configuration that is loaded and saved unchanged keeps its names.
# Seen: `num_experts: 16` comes back as `num_local_experts: 16`.
# What follows: a fine-tuned copy of a model can't be read by a reader that knows the published name only, and one that
# has a default for it would build a model of another size. Accept both names, and refuse a folder with neither.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
FOLDER=$folder TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'END'
import json, os
from transformers import AutoConfig

folders = [os.environ["FOLDER"] + "/published", os.environ["FOLDER"] + "/saved"]
os.mkdir(folders[0])
with open(folders[0] + "/config.json", "w") as file:
    json.dump({"model_type": "qwen3_moe", "num_experts": 16, "num_experts_per_tok": 2}, file)
AutoConfig.from_pretrained(folders[0]).save_pretrained(folders[1])
seen = []
for folder in folders:
    with open(folder + "/config.json") as file:
        fields = json.load(file)
    seen.append({field: fields[field] for field in ("num_experts", "num_local_experts") if field in fields})
    print(f"{os.path.basename(folder):9} {seen[-1]}, loaded: {AutoConfig.from_pretrained(folder).num_experts} experts")
    assert AutoConfig.from_pretrained(folder).num_experts == 16, "this has changed"
assert seen == [{"num_experts": 16}, {"num_local_experts": 16}], "this has changed"
END
