#!/usr/bin/env bash
# sentencepiece 0.2.3 and tokenizers 0.23.3 (PyPI): the same Unigram vocabulary cuts a run of one character, such as a
# rule of `=` or `-`, into the same pieces in another order. Both look for the split of the highest score, and all
# orders of the same pieces are equal; sentencepiece adds scores with 32 bits, tokenizers with 64, so the rounding of
# the sums chooses, each its own.
# Guess: the same ids, since the scores are the same numbers and the algorithm is the same.
# Seen: `=======` is [1, 4, 2] characters long in sentencepiece, [1, 2, 4] in tokenizers; of the runs of 1 to 200, more
# than 100 differ. With whole numbers as scores, whose sums are exact, both agree.
# What follows: a fast tokenizer is no exact copy of a sentencepiece model, and vectors of texts with tables, rules or
# "hahaha" differ between libraries that use one and the other. Compare such texts with a library that reads
# tokenizer.json; a difference in the order of the same ids is this, not a fault of the conversion.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps sentencepiece==0.2.3 tokenizers==0.23.3 protobuf==7.36.2
"$folder/venv/bin/python" - <<'END'
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer, models

def sentencepiece(pieces):
    model = ModelProto()
    model.trainer_spec.model_type = 1  # Unigram
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    for number, (piece, score) in enumerate(pieces):
        model.pieces.add(piece=piece, score=score, type=1 if number else 2)  # The first is the unknown one.
    return SentencePieceProcessor(model_proto=model.SerializeToString())

def compare(scores):
    pieces = [("<unk>", 0.0), *zip(("=", "==", "====", "========"), scores)]
    theirs, ours = sentencepiece(pieces), Tokenizer(models.Unigram(pieces, 0, False))
    runs = [(theirs.encode("=" * n), ours.encode("=" * n).ids) for n in range(1, 201)]
    assert all(sorted(one) == sorted(other) for one, other in runs), "not only the order differs"
    lengths = [[len(pieces[id][0]) for id in ids] for ids in runs[6]]
    differ = sum(one != other for one, other in runs)
    print(f"scores {scores}: `=======` {lengths[0]} and {lengths[1]}; of 200 runs {differ} differ")
    return lengths, differ

# All of them are numbers of 32 bits.
lengths, differ = compare([-8.650123596191406, -10.962583541870117, -11.062676429748535, -8.017420768737793])
assert lengths == [[1, 4, 2], [1, 2, 4]] and differ > 100, "this has changed"
assert compare([-9.0, -11.0, -11.0, -8.0])[1] == 0, "this has changed"
END
