#!/usr/bin/env bash
# safetensors 0.8.0 with numpy 2.4.6 and ml_dtypes 0.6.0 (PyPI): an array of bfloat16 is saved as BF16, correctly, and
# the same module can't load what it has just saved: KeyError 'BF16'. float8_e4m3fn fares the same.
# Guess: what `safetensors.numpy` saves it loads.
# What follows: checks of bf16 model folders from Python read the bytes themselves, or go through torch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
"$folder/venv/bin/python" - <<'END'
import json, struct
import ml_dtypes, numpy as np
from safetensors.numpy import load, save

for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
    weights = np.arange(4).astype(kind)
    data = save({"weights": weights})
    header_bytes = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8 : 8 + header_bytes])["weights"]
    assert data[8 + header_bytes :] == weights.tobytes(), "this has changed"
    try:
        load(data)
        seen = "loads"
    except KeyError as error:
        seen = f"KeyError {error}"
    print(f"{entry['dtype']} {entry['shape']}: {seen}")
    assert seen == f"KeyError '{entry['dtype']}'", "this has changed"
END
