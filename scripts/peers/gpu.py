"""Tokens a second of sentence-transformers on a GPU: fp16, plain and compiled, and with its own tokenisation.

    python3 scripts/peers/gpu.py MODEL_FOLDER REPORT.json [compile]

Batches hold texts of one length, so nothing of its work is padding: its best case.
"""

import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer

TOKENS_ALL = 1 << 20
LENGTHS = [32, 64, 128, 256]
BATCH_TOKENS = [8_192, 32_768, 131_072]
TEXT = "the quick water of a river turns seven old mills "


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
        report["fp16"] = best(model.forward, BATCH_TOKENS)
        texts = [TEXT * 12] * 4_096
        model.encode(texts[:256], batch_size=256)
        began = time.perf_counter()
        model.encode(texts, batch_size=256)
        took_s = time.perf_counter() - began
        ids = model.tokenizer(TEXT * 12)["input_ids"]
        report["encode_tokens_per_s"] = len(texts) * len(ids) / took_s
        if "compile" in sys.argv[3:]:
            compiled = torch.compile(model[0].auto_model, dynamic=False)
            model[0].auto_model = compiled
            report["fp16_compiled"] = best(model.forward, [32_768])
    with open(sys.argv[2], "w") as file:
        json.dump(report, file, indent=2)
    for name in ["fp16", "fp16_compiled"]:
        for length, found in report.get(name, {}).items():
            print(f"{name:<14} length {length:>4} {found['tokens_per_s']:>14,.0f} tokens/s")
    print(f"its own way, with tokenisation {report['encode_tokens_per_s']:>12,.0f} tokens/s")


if __name__ == "__main__":
    main()
