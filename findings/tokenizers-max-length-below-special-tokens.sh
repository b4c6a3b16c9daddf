#!/usr/bin/env bash
# tokenizers 0.23.3 (PyPI): a maximum length below the number of special tokens switches truncation off. No error is
# raised; the whole text comes back. At exactly their number only the special tokens are left.
# Guess: an error, or no more tokens than the maximum. Seen: 12 tokens for a maximum of 1.
# What follows: a loader checks that a model's maximum length leaves room for a token beside the special ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps tokenizers==0.23.3
"$folder/venv/bin/python" - <<'END'
from tokenizers import Tokenizer, models, pre_tokenizers, processors

words = ["[UNK]", "[CLS]", "[SEP]"] + [f"w{i}" for i in range(10)]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
)
text = " ".join(words[3:])
seen = {}
for length_max in (1, 2, 3, 12):
    tokenizer.enable_truncation(length_max)
    seen[length_max] = len(tokenizer.encode(text).ids)
print("maximum length -> tokens returned:", seen)
assert seen == {1: 12, 2: 2, 3: 3, 12: 12}, "this has changed"
END
