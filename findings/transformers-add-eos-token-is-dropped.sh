#!/usr/bin/env bash
# transformers 5.24.0 with tokenizers 0.23.3, and 4.57.6 with 0.22.2 (PyPI): `add_eos_token: true` in
# tokenizer_config.json has no effect in 5.24.0 where a tokenizer.json lies beside it. 4.57.6 appends the end token.
# Guess: the end token stands last in both, as the class documents for this field.
# Seen: `a b` is <s> a b </s> in 4.57.6 and <s> a b in 5.24.0, whose attribute `add_eos_token` is False. Switching the
# attribute on afterwards appends the end token and drops the start token, which tokenizer.json asked for.
# What follows: an embedder that takes the last token's state, trained with the end token, gives another vector without
# a warning. Put the end token in tokenizer.json's template, and compare ids, not only the fields of a folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/check.py" <<'END'
import json, os, sys
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, __version__

folder = os.environ["FOLDER"] + "/tokenizer-" + __version__
os.mkdir(folder)
tokenizer = Tokenizer(models.BPE({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}, [], unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair=None, special_tokens=[("<s>", 1)])
tokenizer.save(folder + "/tokenizer.json")
fields = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
with open(folder + "/tokenizer_config.json", "w") as file:
    json.dump(fields | {"add_bos_token": True, "add_eos_token": True}, file)
tokenizer = AutoTokenizer.from_pretrained(folder)
loaded = tokenizer.add_eos_token, tokenizer.convert_ids_to_tokens(tokenizer("a b")["input_ids"])
tokenizer.add_eos_token = True
switched = tokenizer.convert_ids_to_tokens(tokenizer("a b")["input_ids"])
print(f"{__version__}: add_eos_token is {loaded[0]}, `a b` is {loaded[1]}; switched on by hand {switched}")
end = ["a", "b", "</s>"]
old, new = (True, ["<s>"] + end), (False, ["<s>", "a", "b"])
assert (loaded, switched) == {"old": (old, ["<s>"] + end), "new": (new, end)}[sys.argv[1]], "this has changed"
END
for versions in "old 4.57.6 0.22.2" "new 5.24.0 0.23.3"; do
    read -r name transformers tokenizers <<<"$versions"
    python3 -m venv "$folder/$name"
    "$folder/$name/bin/pip" install --quiet "transformers==$transformers" "tokenizers==$tokenizers"
    FOLDER=$folder TRANSFORMERS_VERBOSITY=error "$folder/$name/bin/python" "$folder/check.py" "$name"
done
