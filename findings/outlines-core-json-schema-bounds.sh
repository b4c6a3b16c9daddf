#!/usr/bin/env bash
# outlines_core 0.2.14 (PyPI): the regular expression it makes of a JSON schema drops `minimum` and `maximum` without a
# word, and reads `pattern` as anchored at both ends, where JSON Schema searches.
# Guess: bounds are kept or refused; a pattern is found anywhere in the text. llguidance 1.9.1 does both.
# Seen: 7 fits an integer from 3 to 5; "abbc" does not fit the pattern `b+`.
# What follows: an answer that was generated under a schema is still checked against it, or the schema's unread keys are
# refused by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps outlines_core==0.2.14 llguidance==1.9.1
"$folder/venv/bin/python" - <<'END'
import json, re
from llguidance import LLMatcher, LLTokenizer
from outlines_core import json_schema

bytes_alone = LLTokenizer("byte")

def outlines(schema, text):
    return re.fullmatch(json_schema.build_regex_from_schema(json.dumps(schema)), text) is not None

def llguidance(schema, text):
    matcher = LLMatcher(bytes_alone, LLMatcher.grammar_from_json_schema(schema))
    return matcher.try_consume_tokens(list(text.encode())) == len(text.encode()) and matcher.is_accepting()

cases = [
    ({"type": "integer", "minimum": 3, "maximum": 5}, "4", True, True),
    ({"type": "integer", "minimum": 3, "maximum": 5}, "7", True, False),
    ({"type": "string", "pattern": "b+"}, '"bb"', True, True),
    ({"type": "string", "pattern": "b+"}, '"abbc"', False, True),
]
for schema, text, expect_outlines, expect_llguidance in cases:
    seen = outlines(schema, text), llguidance(schema, text)
    print(f"{json.dumps(schema):52} {text:8} outlines_core {seen[0]!s:6} llguidance {seen[1]}")
    assert seen == (expect_outlines, expect_llguidance), "this has changed"
END
