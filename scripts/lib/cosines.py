"""Compares vectors of the same texts in two files of JSON lines, in any order: fails where one is missing or differs.

    python3 scripts/lib/cosines.py EXPECTED.jsonl ACTUAL.jsonl

The first has `id` and `embedding` on each line; the second may have a `line` instead of the id.
"""

import json
import math
import sys

# Batches differ, and with them the order in which a device sums.
COSINE_MIN = 0.9999


def read(path):
    with open(path) as lines:
        rows = [json.loads(line) for line in lines]
    return {str(row.get("id", row.get("line"))): row["embedding"] for row in rows}


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def main():
    expected, actual = read(sys.argv[1]), read(sys.argv[2])
    missing = sorted(expected.keys() - actual.keys())
    least = min((cosine(expected[key], actual[key]) for key in expected.keys() & actual.keys()), default=0.0)
    report = {"texts": len(expected), "missing": len(missing), "cosine_min": least}
    print(json.dumps(report))
    if missing or least < COSINE_MIN:
        sys.exit(f"{len(missing)} texts are missing, the least cosine is {least}")


if __name__ == "__main__":
    main()
