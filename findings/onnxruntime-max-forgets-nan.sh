#!/usr/bin/env bash
# onnxruntime 1.32.0 (PyPI), ReduceMax and ArgMax on the processor: a value that is not a number counts only where it
# stands first along the reduced axis. Anywhere else it is passed over, and the result is finite.
# Guess: it shows in the result, as in numpy, in ONNX's reference evaluator and in onnxruntime's own Max and Softmax.
# Seen: after max pooling over five tokens, a token of NaN makes all 384 values NaN if it is the first, none if it is
# another one. ArgMax over [1, NaN, 3] gives 2, over [NaN, 1, 3] gives 0; the reference evaluator gives 1 and 0.
# What follows: a finite pooled vector or a chosen token of such an engine does not prove a sound computation; look at
# the layer before it. A pooling of one's own must say what it does with NaN, and a test must put it at a later token.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - 2>/dev/null <<'END'
import numpy as np, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

def model(node, shape, kind, constants=()):
    x, y = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], "one_node", [x], [y], list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0], ReferenceEvaluator(model).run(None, {"x": x})[0]

axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
max_pooling = helper.make_node("ReduceMax", ["x", "axis"], ["y"], keepdims=0)
max_pooling = model(max_pooling, ["texts", "tokens", 384], TensorProto.FLOAT, [axis])
arg_max = model(helper.make_node("ArgMax", ["x"], ["y"], axis=-1, keepdims=0), ["n"], TensorProto.INT64)
seen = []
for token in range(5):
    x = np.ones((1, 5, 384), np.float32)
    x[0, token] = np.nan
    nans = [int(np.isnan(y).sum()) for y in run(max_pooling, x)]
    print(f"token {token} of 5 is NaN: {nans[0]} of 384 pooled values are NaN, by the reference {nans[1]}")
    seen.append(nans)
assert seen == [[384, 384]] + [[0, 384]] * 4, "this has changed"
for x, expected in (([np.nan, 1, 3], [0, 0]), ([1, np.nan, 3], [2, 1])):
    found = [int(y) for y in run(arg_max, np.array(x, np.float32))]
    print(f"ArgMax of {x}: {found[0]}, by the reference {found[1]}")
    assert found == expected, "this has changed"
END
