#!/usr/bin/env bash
# safetensors 0.8.0 with numpy 2.4.6 (PyPI): a transposed array is saved with its own shape and the bytes of the array
# it is a view of. No error, no warning; what is loaded has the right shape and other values.
# Guess: an error, as for torch tensors that are not contiguous, or a copy in the order of the shape.
# Seen: [[0, 1, 2], [3, 4, 5]] transposed comes back as [[0, 1], [2, 3], [4, 5]].
# What follows: call ascontiguousarray before weights are exported with numpy. A model folder whose vectors make no
# sense may have been written without it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import numpy as np
from safetensors.numpy import load, save

weights = np.arange(6, dtype=np.float32).reshape(2, 3).T
loaded = load(save({"weights": weights}))["weights"]
copied = load(save({"weights": np.ascontiguousarray(weights)}))["weights"]
print("saved: ", weights.tolist())
print("loaded:", loaded.tolist())
print("loaded, saved from a contiguous copy:", copied.tolist())
assert np.array_equal(copied, weights), "this has changed"
assert loaded.shape == weights.shape and loaded.tolist() == [[0, 1], [2, 3], [4, 5]], "this has changed"
END
