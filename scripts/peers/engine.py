"""The bare engine beside other engines: same model folder, same texts, same threads, in turns.

    engine.py --model FOLDER --texts LINES.jsonl --ours PROGRAM

PROGRAM is the engine's example `beside`, which stays loaded as the others do. Each shape of work is embedded by every
engine once a round, tokenisation included; the order turns with the rounds. Peers sort by length and run batches of
32, or of 128 where that is faster. Prints a table a shape for people and, last, a line of JSON for machines. The
reference of accuracy is PyTorch in f32.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel
from transformers.utils import logging

BATCHES = (32, 128)
ROUNDS = 5
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
        self.size = BATCHES[0]

    def of(self, texts):
        """Pairs of the texts' indices and their three arrays."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        for start in range(0, len(order), self.size):
            indices = order[start : start + self.size]
            ids = np.zeros((len(indices), len(rows[indices[-1]])), dtype=np.int64)
            mask = np.zeros_like(ids)
            for line, index in enumerate(indices):
                ids[line, : len(rows[index])] = rows[index]
                mask[line, : len(rows[index])] = 1
            yield indices, (ids, mask, np.zeros_like(ids))


def embedder(batches, infer):
    """A function from texts to vectors, in order, around one that takes a batch's three arrays."""

    def embed(texts):
        vectors = [None] * len(texts)
        for indices, arrays in batches.of(texts):
            for index, vector in zip(indices, infer(*arrays)):
                vectors[index] = vector
        return np.stack(vectors)

    return embed


def reference(encoder, batches):
    def infer(*arrays):
        with torch.inference_mode():
            return encoder(*map(torch.from_numpy, arrays)).numpy()

    return embedder(batches, infer)


def sentence_transformers_peer(folder, batches):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = TOKENS_MAX
    return lambda texts: model.encode(texts, batch_size=batches.size, normalize_embeddings=True)  # it sorts by itself


def export(encoder, work):
    """The whole encoder as ONNX, with open sizes of batch and sequence."""
    path = os.path.join(work, "encoder.onnx")
    example = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in INPUTS)
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS}
    torch.onnx.export(
        encoder, example, path, input_names=INPUTS, output_names=["embedding"], dynamic_axes=axes, dynamo=False
    )
    return path


def onnxruntime_peer(path, batches, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return embedder(batches, lambda *arrays: session.run(None, dict(zip(INPUTS, arrays)))[0])


def openvino_peer(encoder, batches, precision, threads):
    import openvino

    example = {name: torch.ones((2, 8), dtype=torch.int64) for name in INPUTS}
    model = openvino.convert_model(encoder, example_input=example)
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(model, "CPU", settings)
    return embedder(batches, lambda *arrays: compiled(dict(zip(INPUTS, arrays)))[0])


class Peer:
    """Another engine, with the batch size that serves it best on the texts at hand."""

    def __init__(self, name, label, embed, batches):
        self.name, self.label, self.embed, self.batches = name, label, embed, batches

    def prepare(self, texts, times):
        self.texts, self.times = texts, times
        self.size = min(BATCHES, key=self.round_of)

    def round_of(self, size):
        self.batches.size = size
        return timed(self.embed, self.texts, self.times)

    def round(self):
        return self.round_of(self.size)

    def vectors(self):
        return self.embed(self.texts)


def load(folder, batches, encoder, work, threads):
    """Every peer that is installed."""

    def there(module):
        return importlib.util.find_spec(module) is not None

    peers = []
    if there("sentence_transformers"):
        label = f"{version('sentence-transformers')}, torch {torch.__version__}"
        embed = sentence_transformers_peer(folder, batches)
        peers.append(Peer("sentence-transformers f32", label, embed, batches))
    if there("onnxruntime") and there("onnx"):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        path, quantized = export(encoder, work), os.path.join(work, "int8.onnx")
        quantize_dynamic(path, quantized, weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True})
        for name, file in (("f32", path), ("int8", quantized)):
            embed = onnxruntime_peer(file, batches, threads)
            peers.append(Peer(f"ONNX Runtime {name}", version("onnxruntime"), embed, batches))
    if there("openvino"):
        for precision in ("f32", "bf16"):
            embed = openvino_peer(encoder, batches, precision, threads)
            peers.append(Peer(f"OpenVINO {precision}", version("openvino"), embed, batches))
    return peers


def cosine_min(vectors, truth):
    """The smallest cosine between rows, in f64."""
    a, b = np.asarray(vectors, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).min())


class Ours:
    """The engine's example `beside`, in one number type."""

    def __init__(self, program, folder, dtype, threads):
        command = [program, folder, dtype, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name, self.dtype = f"Forebay {dtype}", dtype
        self.loaded = json.loads(self.process.stdout.readline())

    def ask(self, command, argument):
        self.process.stdin.write(f"{command} {argument}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def prepare(self, file, times):
        """Takes the texts in a file; how many tokens they have."""
        self.file, self.times = file, times
        return self.ask("texts", file)["tokens"]

    def round(self):
        return self.ask("round", self.times)["seconds"]

    def vectors(self):
        path = self.file + ".vectors"
        self.ask("vectors", path)
        with open(path, encoding="utf-8") as file:
            return json.load(file)


def timed(embed, texts, times):
    """The median time of embedding the texts, in seconds."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        embed(texts)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def shapes(texts, batches):
    """The shapes of work: name, texts, and how often they are embedded in a round."""
    lengths = [len(encoding.ids) for encoding in batches.tokenizer.encode_batch(texts)]
    short = [text for text, length in zip(texts, lengths) if length <= 24]
    long = next(text for text, length in zip(texts, lengths) if length == TOKENS_MAX)
    short = (short * (512 // len(short) + 1))[:512]
    return [
        ("500 descriptions", texts[:500], 1),
        ("1 short text", short[:1], 50),
        ("1 long text", [long], 20),
        ("32 mixed", texts[500:532], 5),
        ("512 short", short, 1),
    ]


def measure(shape, ours, peers, batches, truth, work):
    name, texts, times = shape
    file = os.path.join(work, "texts.json")
    with open(file, "w", encoding="utf-8") as out:
        json.dump(texts, out)
    for engine in ours:
        tokens = engine.prepare(file, times)
    assert tokens == sum(int(mask.sum()) for _, (_, mask, _) in batches.of(texts)), "tokens differ"
    for peer in peers:
        peer.prepare(texts, times)
    engines, expected = ours + peers, truth(texts)
    cosines = {engine.name: cosine_min(engine.vectors(), expected) for engine in engines}
    seconds = {engine.name: [] for engine in engines}
    for turn in range(ROUNDS):
        print(f"{name}, round {turn + 1} of {ROUNDS}", file=sys.stderr)
        first = turn % len(engines)
        for engine in engines[first:] + engines[:first]:
            seconds[engine.name].append(engine.round())
    rows = []
    for engine, values in seconds.items():
        ratios = {
            base.dtype: [other / own for other, own in zip(values, seconds[base.name])] for base in ours
        }
        rows.append({
            "engine": engine,
            "ms": [round(1000 * value, 3) for value in sorted(values)],
            "tokens_per_s": round(tokens / statistics.median(values)),
            "cosine_min": round(cosines[engine], 7),
            "ours_faster_by": {dtype: round(statistics.median(all), 3) for dtype, all in ratios.items()},
        })
    table(name, len(texts), tokens, rows)
    return {"shape": name, "texts": len(texts), "tokens": tokens, "rows": rows}


def table(name, texts, tokens, rows):
    """Times of one pass over all texts; how many times as fast ours are; the least cosine to PyTorch in f32."""
    print(f"\n{name}: {texts} texts, {tokens} tokens")
    print(f"{'':<26} {'min ms':>10} {'median':>10} {'max':>10} {'tokens/s':>9}  ours f32, bf16, int8   least cosine")
    for row in rows:
        ms = row["ms"]
        ours = ", ".join(f"{ratio:.2f}" for ratio in row["ours_faster_by"].values())
        print(
            f"{row['engine']:<26} {ms[0]:>10.2f} {ms[len(ms) // 2]:>10.2f} {ms[-1]:>10.2f} "
            f"{row['tokens_per_s']:>9,}  {ours:<21}  {row['cosine_min']:.7f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the model's folder")
    parser.add_argument("--texts", required=True, help="JSON lines with a text each")
    parser.add_argument("--ours", required=True, help="the engine's example `beside`")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    with open(arguments.texts, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    batches, encoder = Batches(arguments.model), Encoder(arguments.model)
    truth = reference(encoder, batches)
    ours = [Ours(arguments.ours, arguments.model, dtype, threads) for dtype in ("f32", "bf16", "int8")]
    with tempfile.TemporaryDirectory() as work:
        peers = load(arguments.model, batches, encoder, work, threads)
        for peer in peers:
            print(f"{peer.name}: {peer.label}")
        results = [measure(shape, ours, peers, batches, truth, work) for shape in shapes(texts, batches)]
    versions = {peer.name: peer.label for peer in peers}
    print(json.dumps({"threads": threads, "rounds": ROUNDS, "peers": versions, "shapes": results}))


if __name__ == "__main__":
    main()
