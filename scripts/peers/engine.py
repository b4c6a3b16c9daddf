"""Other engines on the same model folder and the same texts, beside which `make bench` puts ours.

Takes part in the bench as a program that stays loaded: it says on standard output which peers there are, and then
answers each line of standard input with lines of JSON.

    round NAME      embeds all texts once with that peer: {"peer", "seconds", "tokens_per_s"}
    compare FILE    holds {"embedding"} lines against the reference: {"cosine_min"}

The reference is PyTorch in f32. Every peer tokenises, sorts by length, runs batches of 32 and uses all processors.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel
from transformers.utils import logging

BATCH = 32
TOKENS_MAX = 256
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class Encoder(torch.nn.Module):
    """The transformer with its pooling, so that an exported graph has all of it: the tokens' mean, of length 1."""

    def __init__(self, folder):
        super().__init__()
        self.transformer = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


class Batches:
    """Tokenises texts and cuts them, sorted by length, into padded batches."""

    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)

    def of(self, texts):
        """Pairs of the texts' places and their three arrays."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            ids = np.zeros((len(places), len(rows[places[-1]])), dtype=np.int64)
            mask = np.zeros_like(ids)
            for line, place in enumerate(places):
                ids[line, : len(rows[place])] = rows[place]
                mask[line, : len(rows[place])] = 1
            yield places, (ids, mask, np.zeros_like(ids))


def embedder(batches, infer):
    """A function from texts to vectors, in order, around one that takes a batch's three arrays."""

    def embed(texts):
        vectors = [None] * len(texts)
        for places, arrays in batches.of(texts):
            for place, vector in zip(places, infer(*arrays)):
                vectors[place] = vector
        return np.stack(vectors)

    return embed


def reference(encoder, batches):
    def infer(*arrays):
        with torch.inference_mode():
            return encoder(*map(torch.from_numpy, arrays)).numpy()

    return embedder(batches, infer)


def sentence_transformers_peer(folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = TOKENS_MAX
    return lambda texts: model.encode(texts, batch_size=BATCH, normalize_embeddings=True)  # it sorts by itself


def export(encoder, work):
    """The whole encoder as ONNX, with open sizes of batch and sequence."""
    path = os.path.join(work, "encoder.onnx")
    example = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in INPUTS)
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS}
    torch.onnx.export(
        encoder, example, path, input_names=INPUTS, output_names=["embedding"], dynamic_axes=axes, dynamo=False
    )
    return path


def onnxruntime_peer(encoder, batches, work, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(export(encoder, work), options, providers=["CPUExecutionProvider"])
    return embedder(batches, lambda *arrays: session.run(None, dict(zip(INPUTS, arrays)))[0])


def openvino_peer(encoder, batches, precision, threads):
    import openvino

    example = {name: torch.ones((2, 8), dtype=torch.int64) for name in INPUTS}
    model = openvino.convert_model(encoder, example_input=example)
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(model, "CPU", settings)
    return embedder(batches, lambda *arrays: compiled(dict(zip(INPUTS, arrays)))[0])


def load(folder, batches, encoder, work, threads):
    """Every peer that is installed: name, version, and the function that embeds."""

    def there(module):
        return importlib.util.find_spec(module) is not None

    peers = []
    if there("sentence_transformers"):
        label = f"{version('sentence-transformers')}, torch {torch.__version__}"
        peers.append(("sentence-transformers f32", label, sentence_transformers_peer(folder)))
    if there("onnxruntime") and there("onnx"):
        session = onnxruntime_peer(encoder, batches, work, threads)
        peers.append(("ONNX Runtime f32", version("onnxruntime"), session))
    if there("openvino"):
        for precision in ("f32", "bf16"):
            compiled = openvino_peer(encoder, batches, precision, threads)
            peers.append((f"OpenVINO {precision}", version("openvino"), compiled))
    return peers


def cosine_min(vectors, truth):
    """The smallest cosine between rows, in f64."""
    a, b = np.asarray(vectors, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).min())


def say(**line):
    print(json.dumps(line), flush=True)


def serve(texts, tokens, truth, peers):
    embed = {name: function for name, _, function in peers}
    for line in sys.stdin:
        command, argument = line.rstrip("\n").split(" ", 1)
        if command == "round":
            begun = time.perf_counter()
            embed[argument](texts)
            seconds = time.perf_counter() - begun
            say(peer=argument, seconds=seconds, tokens_per_s=tokens / seconds)
        elif command == "compare":
            with open(argument, encoding="utf-8") as file:
                say(cosine_min=cosine_min([json.loads(line)["embedding"] for line in file], truth))
        else:
            sys.exit(f"unknown command {command}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the model's folder")
    parser.add_argument("--texts", required=True, help="JSON lines with a text each")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    with open(arguments.texts, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    batches, encoder = Batches(arguments.model), Encoder(arguments.model)
    tokens = sum(int(mask.sum()) for _, (_, mask, _) in batches.of(texts))
    truth = reference(encoder, batches)(texts)
    with tempfile.TemporaryDirectory() as work:
        peers = load(arguments.model, batches, encoder, work, threads)
    # Held against the reference once. That also warms them up.
    known = [{"name": name, "version": label, "cosine_min": cosine_min(f(texts), truth)} for name, label, f in peers]
    say(threads=threads, tokens=tokens, peers=known)
    serve(texts, tokens, truth, peers)


if __name__ == "__main__":
    main()
