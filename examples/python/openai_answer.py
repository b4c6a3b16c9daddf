"""Answers a question from the texts that fit it best, through the gateway with OpenAI's own package: the embedder finds
the texts, the generator answers from them, and the answer is printed as it is written.
`pip install -r requirements.txt` first.
"""
import json
import os
import pathlib
import sys

import openai

EMBEDDER = os.environ.get("FOREBAY_MODEL", "all-minilm-l6-v2")
GENERATOR = os.environ.get("FOREBAY_GENERATOR", "smollm2-135m-instruct")
QUESTION = " ".join(sys.argv[1:]) or "Which package can I use to make a backup of my files?"
TEXTS = 256  # of the example's thousand
USED = 2

# While the fleet has no keys any text will do: the package wants one.
key = os.environ.get("FOREBAY_API_KEY", "none")
client = openai.OpenAI(base_url=os.environ["FOREBAY_GATEWAY_URL"] + "/v1", api_key=key)

data = pathlib.Path(__file__).parent.parent / "data" / "descriptions.jsonl"
packages = [json.loads(line) for line in data.read_text().splitlines()[:TEXTS]]
rows = client.embeddings.create(model=EMBEDDER, input=[package["text"] for package in packages]).data
asked = client.embeddings.create(model=EMBEDDER, input=QUESTION).data[0].embedding
similar = [sum(a * b for a, b in zip(row.embedding, asked, strict=True)) for row in rows]
best = sorted(range(len(packages)), key=similar.__getitem__, reverse=True)[:USED]
for index in best:
    print(f"  {similar[index]:.2f} {packages[index]['id']}: {packages[index]['text'][:80]}")

found = "\n".join(f"- {packages[index]['id']}: {packages[index]['text'][:400]}" for index in best)
stream = client.chat.completions.create(
    model=GENERATOR,
    messages=[
        {"role": "system", "content": "Answer in one or two sentences, from the packages that are listed."},
        {"role": "user", "content": f"Packages:\n{found}\n\n{QUESTION}"},
    ],
    temperature=0,
    max_tokens=96,
    stream=True,
    stream_options={"include_usage": True},
)
print(f"{QUESTION}\n ", end="", flush=True)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif chunk.usage:
        usage = chunk.usage
        print(f"\n{usage.prompt_tokens} tokens were read and {usage.completion_tokens} written")
