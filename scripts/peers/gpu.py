"""Tokens a second of sentence-transformers on a GPU: fp16, plain and compiled, and with its own tokenisation.

    python3 scripts/peers/gpu.py MODEL_FOLDER TEXTS.jsonl REPORT.json [compile]

Measured twice: `encode` over the texts, tokenisation included; then the model alone, its best case: batches hold texts
of one length, so nothing of its work is padding.
"""

import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer

TEXTS_REPEATED = 10
TOKENS_ALL = 1 << 20
LENGTHS = [32, 64, 128, 256]
BATCH_TOKENS = [8_192, 32_768, 131_072]


def rate(forward, length, tokens):
    """Tokens a second from ids on the host to rows on the host."""
    rows = tokens // length
    ids = torch.randint(1_000, 20_000, (rows, length))
    mask = torch.ones_like(ids)

    def once():
        features = {"input_ids": ids.to("cuda"), "attention_mask": mask.to("cuda")}
        return forward(features)["sentence_embedding"].float().cpu()

    for _ in range(3):
        once()
    torch.cuda.synchronize()
    rounds = max(3, TOKENS_ALL // (rows * length))
    began = time.perf_counter()
    for _ in range(rounds):
        once()
    torch.cuda.synchronize()
    return rounds * rows * length / (time.perf_counter() - began)


def encoded(model, path, batch_size):
    """Tokens a second of `encode` over the texts of a file, many times over."""
    with open(path) as lines:
        texts = [json.loads(line)["text"] for line in lines] * TEXTS_REPEATED
    ids = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    model.encode(texts[:2_048], batch_size=batch_size)
    began = time.perf_counter()
    model.encode(texts, batch_size=batch_size)
    return sum(map(len, ids)) / (time.perf_counter() - began)


def best(forward, sizes):
    found = {}
    for length in LENGTHS:
        rates = {tokens: rate(forward, length, tokens) for tokens in sizes}
        tokens = max(rates, key=rates.get)
        found[str(length)] = {"tokens_per_s": rates[tokens], "batch_tokens": tokens}
    return found


def main():
    model = SentenceTransformer(sys.argv[1], device="cuda", model_kwargs={"dtype": torch.float16})
    model.eval()
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "attention": model[0].auto_model.config._attn_implementation,
    }
    with torch.inference_mode():
        report["encode_tokens_per_s"] = max(encoded(model, sys.argv[2], size) for size in [256, 1_024])
        report["fp16"] = best(model.forward, BATCH_TOKENS)
        if "compile" in sys.argv[4:]:
            compiled = torch.compile(model[0].auto_model, dynamic=False)
            model[0].auto_model = compiled
            report["fp16_compiled"] = best(model.forward, [32_768])
    with open(sys.argv[3], "w") as file:
        json.dump(report, file, indent=2)
    for name in ["fp16", "fp16_compiled"]:
        for length, found in report.get(name, {}).items():
            print(f"{name:<14} length {length:>4} {found['tokens_per_s']:>14,.0f} tokens/s")
    print(f"encode, with tokenisation        {report['encode_tokens_per_s']:>12,.0f} tokens/s")


if __name__ == "__main__":
    main()
