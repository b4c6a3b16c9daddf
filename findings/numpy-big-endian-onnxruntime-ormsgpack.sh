#!/usr/bin/env bash
# onnxruntime 1.32.0 and ormsgpack 1.13.1 with numpy 2.4.6 (PyPI): an array of big-endian numbers, as `frombuffer`
# gives of files and messages in network order, is taken for a little-endian one. No error, no warning.
# Guess: converted, as safetensors 0.8.0 does, or refused by its type, as gguf and onnx do. A scalar of the same type
# is packed correctly by ormsgpack.
# Seen: [1, 2, 3] as `>f4` is [4.6e-41, 9.0e-44, 2.3e-41] to both; integers 1, 2, 3 are 16777216, 33554432, 50331648.
# What follows: call `.astype("<f4")` on what was read in network order before it is computed with or sent. Vectors
# of a client that are all close to 0 may have been packed without it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 ormsgpack==1.13.1 safetensors==0.8.0 \
  numpy==2.4.6
"$folder/venv/bin/python" - 2>/dev/null <<'END'
import numpy as np, onnxruntime, ormsgpack
from onnx import TensorProto, helper
from safetensors.numpy import load, save

kinds = {">f4": TensorProto.FLOAT, ">i4": TensorProto.INT32}

def through_onnxruntime(array):
    x, y = (helper.make_tensor_value_info(name, kinds[array.dtype.str], ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": array})[0]

def through_ormsgpack(value):
    return np.array(ormsgpack.unpackb(ormsgpack.packb(value, option=ormsgpack.OPT_SERIALIZE_NUMPY)))

for kind in kinds:
    array = np.array([1, 2, 3], kind)
    swapped = array.view(kind.replace(">", "<"))
    seen = {
        "onnxruntime": through_onnxruntime(array),
        "ormsgpack": through_ormsgpack(array),
        "safetensors": load(save({"array": array}))["array"],
        "ormsgpack, scalar": through_ormsgpack(array[1]),
    }
    for name, values in seen.items():
        print(f"{kind} {array.tolist()} through {name:18} {values.tolist()}")
    assert np.array_equal(seen["onnxruntime"], swapped), "this has changed"
    assert np.array_equal(seen["ormsgpack"].astype(swapped.dtype), swapped), "this has changed"
    assert np.array_equal(seen["safetensors"], array) and seen["ormsgpack, scalar"] == 2, "this has changed"
END
