#!/usr/bin/env python3
"""Makes the answers that the engine's tests hold SmolLM2-135M-Instruct against: those of transformers in f32, with the
weights of the GGUF file made f32 by the package gguf.

    python3 consumer/engine/tests/smollm2.py MODEL.gguf TEXTS.jsonl > consumer/engine/tests/data/smollm2_135m.jsonl

Needs torch, transformers (5.24 was used) and gguf. TEXTS has a field `text` a line; half of the prompts are chats about
them, and half are their beginnings. `gap` is by how much the likeliest token of each step was ahead of the next one, in
log-probability: where it is tiny, the order of sums decides.
"""

import json
import pathlib
import sys

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = 50
TOKENS = 64


@torch.no_grad()
def continued(model, ids, ends):
    tokens, logprobs, gaps = [], [], []
    past = None
    step = torch.tensor([ids])
    while len(tokens) < TOKENS:
        out = model(step, past_key_values=past, use_cache=True)
        past = out.past_key_values
        these = torch.log_softmax(out.logits[0, -1].double(), -1)
        best = these.topk(2)
        token = int(best.indices[0])
        tokens.append(token)
        logprobs.append(round(float(best.values[0]), 5))
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
        if token in ends:
            break
        step = torch.tensor([[token]])
    return tokens, logprobs, gaps


def main():
    path, texts = pathlib.Path(sys.argv[1]), sys.argv[2]
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # The file says `smollm`, whose digits stand alone; transformers 5.24 takes every file for GPT-2's.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    ends = {tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id}
    for number, line in enumerate(open(texts)):
        if number == PROMPTS:
            break
        text = json.loads(line)["text"]
        if number % 2:
            ids = tokenizer(text[: 40 + 9 * number])["input_ids"]
            given = {"prompt": text[: 40 + 9 * number]}
        else:
            messages = [{"role": "user", "content": f"In one sentence, what is this about?\n\n{text[:600]}"}]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            given = {"messages": messages}
        tokens, logprobs, gaps = continued(model, list(ids), ends)
        print(json.dumps({**given, "token_ids": list(ids), "tokens": tokens, "logprobs": logprobs,
                          "gap": min(gaps), "text": tokenizer.decode(tokens, skip_special_tokens=True)}), flush=True)


main()
