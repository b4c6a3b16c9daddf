#!/usr/bin/env bash
# transformers 4.57.6 with tokenizers 0.22.2 (PyPI): two texts of equal length are cut to a maximum that leaves an odd
# number of tokens. The Python tokenizer leaves the odd one to the first text, the fast tokenizer to the second.
# Guess: both give the same ids, as their documentation says of one strategy, `longest_first`.
# Seen: 6 + 5 tokens from BertTokenizer, 5 + 6 from BertTokenizerFast, from the same vocabulary file.
# What follows: reference scores of a reranker on long pairs hold for one of the two only; say which one is followed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==4.57.6 tokenizers==0.22.2
FOLDER=$folder TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'END'
import os
from transformers import BertTokenizer, BertTokenizerFast

path = os.environ["FOLDER"] + "/vocab.txt"
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
first, second = [f"a{i}" for i in range(20)], [f"b{i}" for i in range(20)]
with open(path, "w") as file:
    file.write("\n".join(special + first + second) + "\n")
seen = {}
for kind in (BertTokenizer, BertTokenizerFast):
    tokenizer = kind(path)
    for length_max in (14, 15, 16):
        ids = tokenizer(" ".join(first), " ".join(second), truncation=True, max_length=length_max)["input_ids"]
        tokens = tokenizer.convert_ids_to_tokens(ids)
        counts = (sum(token in first for token in tokens), sum(token in second for token in tokens))
        seen[kind.__name__, length_max] = counts
        print(f"{kind.__name__:18} maximum {length_max}: {counts[0]} tokens of the first, {counts[1]} of the second")
python = [seen["BertTokenizer", n] for n in (14, 15, 16)]
fast = [seen["BertTokenizerFast", n] for n in (14, 15, 16)]
assert python == [(6, 5), (6, 6), (7, 6)] and fast == [(5, 6), (6, 6), (6, 7)], "this has changed"
END
