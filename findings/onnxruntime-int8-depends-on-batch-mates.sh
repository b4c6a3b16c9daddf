#!/usr/bin/env bash
# onnxruntime 1.32.0 (PyPI), a matrix product quantized by quantize_dynamic: a row's result depends on the rows that it
# is computed with, since one scale is taken from the whole batch. In f32 the row has the same bits in every batch.
# Guess: the reverse: f32 differs in its last bits with the size of the batch, int8 scales each row by itself.
# Seen: with 63 rows ten times as large beside it, an int8 row keeps a cosine of about 0.996 to itself computed alone.
# What follows: int8 answers of such an engine are no reference for one text; compare with batches of one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
FOLDER=$folder "$folder/venv/bin/python" - 2>/dev/null <<'END'
import os
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

random = np.random.default_rng(0)
weights = (random.standard_normal((384, 1536)) * 0.05).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "linear",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 384])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1536])],
    [numpy_helper.from_array(weights, "w")],
)
f32, int8 = os.environ["FOLDER"] + "/f32.onnx", os.environ["FOLDER"] + "/int8.onnx"
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), f32)
quantize_dynamic(f32, int8, weight_type=QuantType.QInt8)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
batch = random.standard_normal((64, 384)).astype(np.float32)
batch[1:] *= 10
same = {}
for name, path in (("f32", f32), ("int8", int8)):
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    alone = session.run(None, {"x": batch[:1]})[0][0]
    together = session.run(None, {"x": batch})[0][0]
    cosine = alone @ together / np.linalg.norm(alone) / np.linalg.norm(together)
    same[name] = np.array_equal(alone, together)
    print(f"{name}: the row alone and among 64 has the same bits: {same[name]}, cosine {cosine:.4f}")
    if name == "int8":
        assert cosine < 0.999, "this has changed"
assert same == {"f32": True, "int8": False}, "this has changed"
END
